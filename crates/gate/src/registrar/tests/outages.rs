//! While the ledger can take no entries.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_stops_admission_and_the_ledger_catches_up() {
    outage(|op| match op {
        Op::Sync(path) if is_segment(path) => Some(Fault::Lose(ErrorKind::Other)),
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_turns_read_only_stops_admission_and_the_ledger_catches_up() {
    outage(|op| match op {
        Op::Write(..) | Op::Create(_) | Op::Rename(_) => {
            Some(Fault::Fail(ErrorKind::ReadOnlyFilesystem))
        }
        _ => None,
    })
    .await;
}

/// The disk fails by this plan for a while, and then works again.
async fn outage(plan: impl FnMut(&Op) -> Option<Fault> + Send + 'static) {
    let _ = outage_of(bench().await, plan).await;
}

pub(super) async fn outage_of(
    bench: Bench,
    plan: impl FnMut(&Op) -> Option<Fault> + Send + 'static,
) -> Bench {
    let live = bench.permit(Verb::WebConnect).await.unwrap();
    bench.disk.set_plan(plan);
    let refused = bench.permit(Verb::WebWrite).await;
    assert_eq!(
        refused.err(),
        Some(Refusal::Unavailable(Unavailable::Ledger))
    );
    let refused = bench.permit(Verb::WebRead).await;
    assert!(
        matches!(refused, Err(Refusal::Unavailable(_))),
        "nothing new is admitted"
    );
    // What is live goes on for the grace, and is then cut: first of grace and idle limit.
    assert!(timeout(SOON, live.cut().fired()).await.is_ok());
    bench.disk.clear_plan();
    bench
        .recorded(|event| matches!(event, Event::RecordingFailed { .. }))
        .await;
    let resumed = bench
        .recorded(|event| matches!(event, Event::RecordingResumed { .. }))
        .await;
    assert!(matches!(resumed, Event::RecordingResumed { refused } if refused >= 1));
    let events = bench.entries();
    let unrecorded = |event: &&Event| matches!(event, Event::ActionClosed(closed) if closed.by == ClosedBy::Unrecorded);
    assert_eq!(
        events.iter().filter(unrecorded).count(),
        1,
        "the write that never went ahead"
    );
    bench.proven();
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_on_time_even_while_the_ledger_is_out() {
    let bench = bench().await;
    let permit = bench.permit(Verb::WebConnect).await.unwrap();
    bench.disk.set_plan(|op| match op {
        Op::Sync(path) if is_segment(path) => Some(Fault::Fail(ErrorKind::Other)),
        _ => None,
    });
    let _ = bench.permit(Verb::WebWrite).await;
    // The registrar has heard of it.
    assert!(bench.permit(Verb::WebRead).await.is_err());
    bench.pass(2_000);
    let cut_at = {
        timeout(SOON, permit.cut().fired()).await.unwrap();
        bench.registrar.now()
    };
    bench.pass(700);
    bench.disk.clear_plan();
    let ended = bench
        .recorded(|event| matches!(event, Event::SessionEnded { .. }))
        .await;
    let Event::SessionEnded {
        deadline: Some(deadline),
        effective,
        late,
        ..
    } = ended
    else {
        panic!("no deadline: {ended:?}");
    };
    assert!(effective >= deadline && effective <= bench.registrar.now());
    assert_eq!(late, Some(effective.saturating_since(deadline)));
    drop((permit, cut_at));
    bench
        .recorded(|event| matches!(event, Event::RecordingResumed { .. }))
        .await;
    bench.proven();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_clearly_still_records_ends_and_recovers() {
    let bench = bench().await;
    let live = bench.permit(Verb::WebConnect).await.unwrap();
    bench.disk.set_capacity(Some(bench.disk.used_bytes()));
    let full = async {
        loop {
            match bench.permit(Verb::WebWrite).await {
                Ok(_) => {}
                Err(refusal) => return refusal,
            }
        }
    };
    let refusal = timeout(Duration::from_secs(60), full).await.unwrap();
    assert_eq!(refusal, Refusal::Unavailable(Unavailable::DiskFull));
    let cut = timeout(SOON, live.cut().fired()).await.unwrap();
    assert!(
        matches!(
            cut.cause,
            CutCause::LedgerFailed | CutCause::SessionEnded(_)
        ),
        "{cut:?}"
    );
    bench
        .recorded(|event| matches!(event, Event::RecordingFailed { .. }))
        .await;
    bench
        .recorded(|event| matches!(event, Event::SessionEnded { .. }))
        .await;
    bench.disk.set_capacity(None);
    bench
        .recorded(|event| matches!(event, Event::RecordingResumed { .. }))
        .await;
    bench.proven();
}
