//! Forwarding to a collector.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use curfew_entry::Verb;
use curfew_ledger::{PrunePoint, RealDisk};
use opentelemetry_proto::tonic::common::v1::any_value::Value;

use super::collector::{Collector, Reply, attribute, text};
use super::person::Person;
use super::{LONG, Place, nothing_is_missing, record, wait};

pub(crate) async fn stage() -> (Place, Collector, String) {
    let place = Place::new();
    place.write("token", "abc.def\n");
    let token = place.folder.path().join("token");
    std::fs::set_permissions(token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let collector = Collector::start(&place).await;
    let forward = collector.forward();
    (place, collector, forward)
}

/// Waits until everything that is recorded now is acknowledged, durably.
async fn forwarded(place: &Place) -> u64 {
    let size = curfew_ledger::LogReader::open(&place.ledger())
        .unwrap()
        .size();
    wait("the cursor", || (place.cursor() >= size).then_some(())).await;
    size
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_each_entry_once_and_in_order_over_restarts_between_batches() {
    let (place, collector, forward) = stage().await;
    let mut running = place.start(&forward).await;
    for _ in 0..2 {
        // Some fill a batch, and the rest come later.
        record(&running, 300).await;
        forwarded(&place).await;
        running.stop().await.unwrap();
        running = place.start(&forward).await;
    }
    record(&running, 3).await;
    let size = forwarded(&place).await;
    let taken = collector.see(|seen| seen.taken.clone());
    assert!(taken.len() as u64 >= size);
    assert_eq!(taken, place.expected(taken.len() as u64));
    collector.see(|seen| {
        assert!(seen.requests.iter().all(|(count, _)| *count <= 256));
        let last = seen.records.last().unwrap();
        assert_eq!(last.event_name, "curfew.clock.stepped");
        assert!(text(&last.body).unwrap().starts_with("{\"v\":1,"));
        let outcome = attribute(last, "curfew.outcome");
        assert_eq!(outcome, Some(Value::StringValue("success".to_owned())));
    });
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_inside_a_batch_repeats_that_batch_and_nothing_acknowledged() {
    let (place, collector, forward) = stage().await;
    let running = place.start(&forward).await;
    record(&running, 5).await;
    let before = forwarded(&place).await;
    // Taken, but the answer does not arrive; meanwhile the registrar goes on.
    collector.see(|seen| seen.replies.push_back(Reply::TakeInSilence));
    record(&running, 5).await;
    wait("the silent batch", || {
        collector.see(|seen| seen.replies.is_empty().then_some(()))
    })
    .await;
    record(&running, 5).await;
    assert_eq!(place.cursor(), before);
    running.stop().await.unwrap();
    assert_eq!(place.cursor(), before);

    let running = place.start(&forward).await;
    let size = forwarded(&place).await;
    let (taken, acknowledged) =
        collector.see(|seen| (seen.taken.clone(), seen.acknowledged.clone()));
    nothing_is_missing(&taken);
    // Acknowledged once each, and in order; the silent batch came twice.
    let whole: Vec<u64> = (0..acknowledged.len() as u64).collect();
    assert_eq!(acknowledged, whole);
    assert!(acknowledged.len() as u64 >= size);
    assert!(taken.len() > acknowledged.len());
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_busy_is_left_alone_for_as_long_as_it_says() {
    let (place, collector, forward) = stage().await;
    collector.see(|seen| {
        seen.replies.push_back(Reply::Refuse(503, None));
        seen.replies.push_back(Reply::Refuse(429, Some("3")));
        seen.replies.push_back(Reply::Partly(1));
    });
    let running = place.start(&forward).await;
    forwarded(&place).await;
    collector.see(|seen| {
        let waited = seen.requests[2].1 - seen.requests[1].1;
        assert!(waited >= Duration::from_secs(3), "{waited:?}");
        // What it left out was taken by its own account, and is not sent again.
        let acknowledged = &seen.acknowledged;
        assert!(
            acknowledged
                .iter()
                .copied()
                .eq(0..acknowledged.len() as u64)
        );
    });
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_entry_that_is_refused_holds_up_none_and_a_collector_that_refuses_all_loses_none() {
    let (place, collector, forward) = stage().await;
    collector.see(|seen| (seen.most, seen.poison) = (Some(3), Some(6)));
    let running = place.start(&forward).await;
    record(&running, 10).await;
    let size = forwarded(&place).await;
    let taken = collector.see(|seen| seen.taken.clone());
    assert_eq!(taken, place.expected(taken.len() as u64));
    assert!(taken.len() as u64 >= size);

    // No request is fit any more: nothing is passed over.
    collector.see(|seen| seen.most = Some(0));
    let before = place.cursor();
    let requests = collector.see(|seen| seen.requests.len());
    record(&running, 3).await;
    wait("requests", || {
        collector.see(|seen| (seen.requests.len() > requests + 3).then_some(()))
    })
    .await;
    assert_eq!(place.cursor(), before);
    collector.see(|seen| seen.most = None);
    forwarded(&place).await;
    let taken = collector.see(|seen| seen.taken.clone());
    assert_eq!(taken, place.expected(taken.len() as u64));
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_sent_wrongly_does_not_start() {
    let (place, collector, forward) = stage().await;
    let running = place.start(&forward).await;
    forwarded(&place).await;
    running.stop().await.unwrap();
    let refused = async |place: &Place| {
        let started = curfew_gateway::start(place.config(&forward), "policy.cedar", super::POLICY);
        started.await.map(|_| ()).unwrap_err().to_string()
    };
    let token = place.folder.path().join("token");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refused(&place).await.contains("mode to 0600"));
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let cursor = place.folder.path().join("data/forward/siem.json");
    let kept = std::fs::read_to_string(&cursor).unwrap();
    std::fs::write(&cursor, kept.replace("curfew.test/log", "other.test/log")).unwrap();
    assert!(refused(&place).await.contains("not of this log"));

    // A cursor that does not fit the log: nothing is sent, rather than something left out.
    let sent = collector.see(|seen| seen.requests.len());
    std::fs::write(&cursor, kept.replace("\"leaf\":\"", "\"leaf\":\"0")).unwrap();
    let running = place.start(&forward).await;
    record(&running, 2).await;
    let size = curfew_ledger::LogReader::open(&place.ledger())
        .unwrap()
        .size();
    wait("a checkpoint", || (place.signed() >= size).then_some(())).await;
    running.stop().await.unwrap();
    assert_eq!(collector.see(|seen| seen.requests.len()), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_starts_now_gets_what_comes_after_its_first_start_whatever_happens_meanwhile() {
    let (place, collector, forward) = stage().await;
    let running = place.start("").await;
    record(&running, 5).await;
    running.stop().await.unwrap();
    let first = place.signed();
    assert!(first > 5);

    // It is away all the while: what is now does not move with the next start.
    let forward = format!("{forward}start = \"now\"\n");
    collector.see(|seen| {
        let refusals = std::iter::repeat_with(|| Reply::Refuse(503, None));
        seen.replies.extend(refusals.take(100));
    });
    let running = place.start(&forward).await;
    assert_eq!(place.cursor(), first);
    record(&running, 5).await;
    running.stop().await.unwrap();
    assert!(place.signed() >= first + 5);
    assert_eq!(place.cursor(), first);

    collector.see(|seen| seen.replies.clear());
    let running = place.start(&forward).await;
    let size = forwarded(&place).await;
    let taken = collector.see(|seen| seen.taken.clone());
    let end = taken.last().unwrap().index + 1;
    assert!(end >= size);
    assert_eq!(taken, place.expected(end).split_off(first as usize));
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_a_session_name_its_subject_although_its_start_is_gone() {
    let (place, collector, forward) = stage().await;
    let forward = format!(
        "{forward}[log.retention]\nkeep = \"1s\"\nunarchived = true\n[tuning]\nsegment_mib = 1\n"
    );
    let running = place.start(&forward).await;
    let ana = Person::new(running.registrar()).await;
    let end = tokio::time::Instant::now() + LONG;
    while PrunePoint::size_at(&RealDisk, &place.ledger()).unwrap() == 0 {
        assert!(tokio::time::Instant::now() < end, "nothing goes");
        record(&running, 100).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    running.stop().await.unwrap();

    // What was learned before is forgotten.
    let running = place.start(&forward).await;
    let refused = ana.ask(running.registrar(), Verb::WebRead, "nothing").await;
    assert!(refused.is_err());
    let denied = wait("what was refused", || {
        collector.see(|seen| {
            let mut records = seen.records.iter();
            let denied = records.find(|record| record.event_name == "curfew.action.denied");
            denied.cloned()
        })
    });
    let name = attribute(&denied.await, "user.name");
    assert_eq!(name, Some(Value::StringValue("ana".to_owned())));
    running.stop().await.unwrap();
}
