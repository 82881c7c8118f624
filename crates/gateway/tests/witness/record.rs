//! Actions whose rules demand more than a durable record: they wait for the witnesses, or are
//! refused.

use curfew_authority::Auditor;
use curfew_entry::{ClosedBy, Entry, Event, RecordLevel, Verb};
use curfew_gate::{Refusal, Unavailable, Unrecorded};
use curfew_ledger::LogReader;

use crate::person::Person;
use crate::rounds::{Stage, stage_with};

/// What is in the ledger, and nothing of it is wrong.
fn audited(stage: &Stage) -> Vec<Event> {
    let reader = LogReader::open(&stage.gateway.ledger()).unwrap();
    let mut auditor = Auditor::new();
    let entries = reader.range(0..reader.size()).map(|entry| {
        let (index, bytes) = entry.unwrap();
        let entry = Entry::from_bytes(&bytes).unwrap();
        assert_eq!(auditor.check(index, &entry), [], "{entry:?}");
        entry.event
    });
    entries.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gravest_actions_wait_for_the_witnesses() {
    let stage = stage_with(3, "10m", "10m", "10m").await;
    let person = Person::new(stage.gateway.running.registrar()).await;
    // Nobody cosigns yet: what demands no more than a durable record goes on.
    assert!(
        person
            .ask(stage.gateway.running.registrar(), Verb::WebWrite, "blog")
            .await
            .is_ok()
    );
    let signed = person
        .ask(stage.gateway.running.registrar(), Verb::WebWrite, "shop")
        .await
        .unwrap();
    let published = curfew_ledger::Published::new(&stage.gateway.ledger());
    let note = String::from_utf8(published.checkpoint().unwrap().unwrap()).unwrap();
    let size: u64 = note.lines().nth(1).unwrap().parse().unwrap();
    assert!(size > signed.entry(), "it was let go unsigned");

    // A read is let go at once, and its answer waits.
    let read = person
        .ask(stage.gateway.running.registrar(), Verb::WebRead, "vault")
        .await
        .unwrap();
    assert!(!read.is_recorded());
    let write = person.ask(stage.gateway.running.registrar(), Verb::WebWrite, "vault");
    tokio::pin!(write);
    let early = tokio::time::timeout(std::time::Duration::from_secs(2), &mut write).await;
    assert!(early.is_err(), "it was let go unwitnessed");
    let (_north, _south) = (stage.north.serve().await, stage.south.serve().await);
    let write = write.await.unwrap();
    let judged = stage.judged().unwrap();
    assert!(judged.met && judged.checkpoint.size > write.entry());
    assert!(write.is_recorded());
    assert_eq!(read.recorded().await, Ok(()));
    audited(&stage);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_witnessed_in_time_is_refused_and_the_log_says_so() {
    let stage = stage_with(3, "10m", "10m", "300ms").await;
    let person = Person::new(stage.gateway.running.registrar()).await;
    let refused = person
        .ask(stage.gateway.running.registrar(), Verb::WebWrite, "vault")
        .await;
    let late = Unavailable::Late(RecordLevel::Witnessed);
    assert_eq!(refused.unwrap_err(), Refusal::Unavailable(late));
    let read = person
        .ask(stage.gateway.running.registrar(), Verb::WebRead, "vault")
        .await
        .unwrap();
    let late = Unrecorded::Late(RecordLevel::Witnessed);
    assert_eq!(read.recorded().await, Err(late));
    // Once too late it stays so, whoever cosigns meanwhile.
    let (_north, _south) = (stage.north.serve().await, stage.south.serve().await);
    stage.witnessed(stage.size()).await;
    assert!(!read.is_recorded());
    assert_eq!(read.recorded().await, Err(late));
    drop(read);
    let is_close = |event: &Event| matches!(event, Event::ActionClosed(_));
    stage.events(is_close, 2).await;
    let events = audited(&stage);
    let closed = events.iter().filter_map(|event| match event {
        Event::ActionClosed(closed) => Some(closed),
        _ => None,
    });
    assert!(
        closed
            .clone()
            .all(|closed| closed.by == ClosedBy::Unrecorded)
    );
    for closed in closed {
        let index = usize::try_from(closed.action).unwrap();
        let Event::ActionAllowed { demands, .. } = &events[index] else {
            panic!("{:?}", events[index]);
        };
        assert_eq!(demands.record, Some(RecordLevel::Witnessed));
    }
}
