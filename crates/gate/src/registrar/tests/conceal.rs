//! Values that the log only commits to.

use curfew_ledger_faults::Kept;
use curfew_values::Shown;

use super::outages::outage_of;
use super::*;

/// The values that entries conceal, as a machine would find them after losing power now.
fn all_values(bench: &Bench) -> Vec<Shown> {
    let disk = bench.disk.after_power_cut(Kept::Nothing);
    let entries = bench.entries();
    let store = values(&disk, entries.len() as u64);
    (0..)
        .zip(entries)
        .filter_map(|(index, event)| Some((index, event.concealed()?.clone())))
        .flat_map(|(index, concealed)| store.read(index, &concealed).unwrap())
        .map(|(_, shown)| shown)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_concealed_is_not_in_the_log_and_durable_before_its_entry() {
    let bench = bench_concealing(&[Field::Path]).await;
    let _permit = bench.permit(Verb::WebWrite).await.unwrap();
    for (path, bytes) in bench.disk.files() {
        let told = bytes.windows(9).any(|part| part == b"/orders/7");
        assert!(!told, "{}", path.display());
    }
    let shown = all_values(&bench);
    assert_eq!(shown, [Shown::Value("/orders/7".into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_cannot_be_kept_stops_admission_and_is_caught_up() {
    for lost in [true, false] {
        let bench = bench_concealing(&[Field::Path]).await;
        let plan = move |op: &Op| match op {
            Op::Sync(path) if lost && path.extension().is_some_and(|end| end == "val") => {
                Some(Fault::Lose(ErrorKind::Other))
            }
            // The values are kept, and then their entries are not.
            Op::Sync(path) if !lost && is_segment(path) => Some(Fault::Lose(ErrorKind::Other)),
            _ => None,
        };
        let bench = outage_of(bench, plan).await;
        let shown = all_values(&bench);
        assert!(shown.len() >= 2, "{shown:?}");
        for shown in shown {
            assert_eq!(shown, Shown::Value("/orders/7".into()));
        }
    }
}
