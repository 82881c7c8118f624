//! Power cuts and failures at every operation.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use curfew_ledger_faults::{Fault, FaultyDisk, Kept};
use curfew_values::{Shown, Store, ValuesError};

use crate::kit::{name, open, shown, stage, told};

/// What one life of a store has come to: entries whose values were acknowledged, and how far an
/// erasure of `ada` before entry 4 got.
#[derive(Debug, Default)]
struct Life {
    flushed: u64,
    /// The erasure was begun.
    condemned: bool,
    /// It came back.
    wiped: bool,
}

const ENTRIES: u64 = 6;

fn subject(index: u64) -> &'static str {
    if index.is_multiple_of(2) {
        "ada"
    } else {
        "bob"
    }
}

fn live(disk: &FaultyDisk, life: &mut Life) -> Result<(), ValuesError> {
    let store = open(disk, 0)?;
    for index in 0..4 {
        stage(&store, index, subject(index))?;
        store.flush()?;
        life.flushed = index + 1;
        store.durable(index + 1);
    }
    let condemned = store.condemn(&name("ada"), 4);
    life.condemned = true;
    store.wipe(&condemned)?;
    life.wiped = true;
    for index in 4..ENTRIES {
        stage(&store, index, subject(index))?;
    }
    store.flush()?;
    life.flushed = ENTRIES;
    Ok(())
}

/// Opens what is left, at a log that has what was acknowledged, and looks.
fn look(disk: &FaultyDisk, life: &Life, what: &str) {
    let size = life.flushed;
    let store = open(disk, size).unwrap();
    for index in 0..size {
        let found = shown(&store, index);
        let erasable = subject(index) == "ada" && index < 4;
        let wanted = match (erasable, life.wiped, life.condemned) {
            (true, true, _) => found == Shown::Erased,
            // Whatever became of it, a torn key among it: but never another value.
            (true, false, true) => found != Shown::Wrong,
            (true, false, false) | (false, ..) => found == told(index),
        };
        assert!(wanted, "{what}: entry {index} is {found:?}, {life:?}");
    }
    if life.condemned {
        finish(&store, size, what);
    }
    reuse(disk, &store, size, what);
}

/// An erasure that was cut short is completed at the next start.
fn finish(store: &Store, size: u64, what: &str) {
    let condemned = store.condemn(&name("ada"), 4);
    let wiped = store.wipe(&condemned).unwrap();
    assert_eq!((wiped.keys, wiped.entries), (1, 2), "{what}");
    for index in (0..size.min(4)).step_by(2) {
        assert_eq!(shown(store, index), Shown::Erased, "{what}");
    }
}

/// The indexes past the log's end are used by others now.
fn reuse(disk: &FaultyDisk, store: &Store, size: u64, what: &str) {
    stage(store, size, "eve").unwrap();
    store.flush().unwrap();
    for disk in [disk.clone(), disk.after_power_cut(Kept::Nothing)] {
        let store = open(&disk, size + 1).unwrap();
        assert_eq!(shown(&store, size), told(size), "{what}");
    }
}

/// A disk whose operation number `at` fails like this, and all after it.
fn failing(at: usize, fault: impl Fn() -> Fault + Send + 'static, dies: bool) -> FaultyDisk {
    let disk = FaultyDisk::new();
    let count = Arc::new(AtomicUsize::new(0));
    disk.set_plan(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        match number.cmp(&at) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal => Some(fault()),
            std::cmp::Ordering::Greater => dies.then_some(Fault::Fail(ErrorKind::Other)),
        }
    });
    disk
}

#[test]
fn every_operation_may_fail_and_the_power_be_cut_after_it() {
    let faults: [fn() -> Fault; 4] = [
        || Fault::Fail(ErrorKind::Other),
        || Fault::FailAfter(ErrorKind::Other),
        || Fault::Lose(ErrorKind::Other),
        || Fault::Torn(40, ErrorKind::StorageFull),
    ];
    let mut reached_end = 0;
    for (number, fault) in faults.into_iter().enumerate() {
        for at in 0.. {
            let disk = failing(at, fault, true);
            let mut life = Life::default();
            let whole = live(&disk, &mut life).is_ok();
            disk.clear_plan();
            for kept in [Kept::All, Kept::Nothing]
                .into_iter()
                .chain((0..12).map(|seed| Kept::Some(seed + at as u64 * 12)))
            {
                let after = disk.after_power_cut(kept);
                look(&after, &life, &format!("fault {number} at {at}, {kept:?}"));
            }
            if whole {
                reached_end += 1;
                break;
            }
        }
    }
    assert_eq!(reached_end, 4);
}

#[test]
fn after_a_failure_the_store_is_shut_until_it_is_opened_anew_and_nothing_is_lost() {
    for at in 0..40 {
        let disk = FaultyDisk::new();
        let store = open(&disk, 0).unwrap();
        stage(&store, 0, "ada").unwrap();
        store.flush().unwrap();
        store.durable(1);
        stage(&store, 1, "bob").unwrap();
        stage(&store, 2, "ada").unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        disk.set_plan(move |_| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            (number == at).then_some(Fault::Lose(ErrorKind::Other))
        });
        let failed = store.flush().is_err();
        disk.clear_plan();
        if !failed {
            return assert!(at > 3, "{at}");
        }
        assert!(matches!(stage(&store, 3, "ada"), Err(ValuesError::Failed)));
        assert!(matches!(store.flush(), Err(ValuesError::Failed)));
        store.reopen(1).unwrap();
        store.flush().unwrap();
        let after = open(&disk.after_power_cut(Kept::Nothing), 3).unwrap();
        for index in 0..3 {
            assert_eq!(shown(&after, index), told(index), "fault at {at}");
        }
    }
    panic!("there are not so many operations");
}

#[test]
fn values_whose_entries_were_not_written_are_kept_for_when_they_are() {
    let disk = FaultyDisk::new();
    let store = open(&disk, 0).unwrap();
    for index in 0..3 {
        stage(&store, index, subject(index)).unwrap();
    }
    store.flush().unwrap();
    // The ledger took only one of them before it failed.
    store.durable(1);
    store.reopen(1).unwrap();
    store.flush().unwrap();
    let after = open(&disk.after_power_cut(Kept::Nothing), 3).unwrap();
    for index in 0..3 {
        assert_eq!(shown(&after, index), told(index));
    }
}
