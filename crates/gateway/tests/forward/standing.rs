//! What an operator is told of receivers.

use curfew_custody::progress::{Follower, Kind};
use curfew_custody::standing::Status;
use curfew_entry::Entry;
use curfew_gateway::control::{self, Operation, Outcome};
use curfew_ledger::LogReader;

use super::collector::Reply;
use super::otlp::stage;
use super::{LONG, Place, record, wait};

async fn status(place: &Place) -> Status {
    let socket = place.ledger().with_file_name("control.sock");
    match control::request(&socket, &Operation::Status).await.unwrap() {
        Outcome::Status(all) => all.status,
        other => panic!("{other:?}"),
    }
}

/// Looks until the one receiver stands as wanted.
pub(crate) async fn until(
    place: &Place,
    wanted: impl Fn(&Status, &Follower) -> bool,
) -> (Status, Follower) {
    let end = tokio::time::Instant::now() + LONG;
    loop {
        let status = status(place).await;
        let follower = status.followers[0].clone();
        if wanted(&status, &follower) {
            return (status, follower);
        }
        assert!(tokio::time::Instant::now() < end, "{status:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_told_what_a_receiver_lacks_since_when_and_why() {
    let (place, collector, forward) = stage().await;
    let running = place.start(&forward).await;
    let level = |_: &Status, follower: &Follower| follower.lacks == Some(0);
    let (status, follower) = until(&place, level).await;
    assert_eq!(
        (follower.kind, follower.name.as_str()),
        (Kind::Otlp, "siem")
    );
    assert_eq!((follower.has, follower.since), (Some(status.signed), None));
    assert_eq!((follower.failing, status.not_signed), (None, None));

    let refusals = std::iter::repeat_n(Reply::Refuse(503, None), 1_000);
    collector.see(|seen| seen.replies.extend(refusals));
    record(&running, 40).await;
    let failed = |_: &Status, follower: &Follower| {
        follower.failing.is_some() && follower.lacks.is_some_and(|lacks| lacks >= 40)
    };
    let (status, follower) = until(&place, failed).await;
    let has = follower.has.unwrap();
    assert_eq!(follower.lacks, Some(status.signed - has));
    let entry = LogReader::open(&place.ledger())
        .unwrap()
        .entry(has)
        .unwrap();
    let oldest = Entry::from_bytes(&entry).unwrap().time;
    assert_eq!(follower.since, Some(oldest), "of the first that it lacks");
    let failing = follower.failing.unwrap();
    assert!(failing.error.contains("503"), "{failing:?}");
    assert!(
        oldest <= failing.since && failing.since <= status.now,
        "{failing:?}"
    );
    assert_eq!(has, place.cursor());

    collector.see(|seen| seen.replies.clear());
    let (_, follower) = until(&place, level).await;
    assert_eq!(follower.failing, None, "it takes entries again");
    // After a restart it is known from the cursor, before anything is sent.
    let before = wait("the cursor", || Some(place.cursor())).await;
    running.stop().await.unwrap();
    let running = place.start(&forward).await;
    let has = self::status(&place).await.followers[0].has;
    assert!(has.is_some_and(|has| has >= before), "{has:?}");
    running.stop().await.unwrap();
}
