//! A disk that fails: the writer ends, says so, and opening again finds what is really there.

use std::io::ErrorKind;
use std::path::Path;

use curfew_ledger::{AppendError, CloseError, Disk, OpenError, Options};
use curfew_ledger_faults::{Fault, FaultyDisk, Op};

use crate::common::*;

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "seg")
        || path.ends_with(Path::new("segments/prepared-segment.tmp"))
}

/// Appends five entries, fails the sixth batch as told, and gives the number acknowledged.
fn fail_sixth(disk: &FaultyDisk, fault: impl Fn(&Op) -> Option<Fault> + Send + 'static) -> u64 {
    let log = create(disk, options());
    log.fill_one_by_one(5);
    disk.set_plan(move |op| match op {
        Op::Write(path, ..) | Op::Sync(path) if path == &segment(0) => fault(op),
        _ => None,
    });
    log.writer.append(entry(5)).unwrap();
    let state = log.acks.wait(|state| !state.failed.is_empty());
    assert_eq!(
        (state.failed.len(), state.failed[0].0),
        (1, 5),
        "said once, with what holds"
    );
    assert!(
        state.failed[0].1.contains("00000000000000000000.seg"),
        "{:?}",
        state.failed
    );
    assert_eq!(log.writer.append(entry(6)), Err(AppendError::Failed));
    assert_eq!(
        log.writer.append_reserved(entry(6)),
        Err(AppendError::Failed)
    );
    // It stays failed, however well the disk is now.
    disk.clear_plan();
    assert_eq!(log.writer.append(entry(6)), Err(AppendError::Failed));
    assert_eq!(log.writer.durable_size(), 5);
    assert!(matches!(log.writer.close(), Err(CloseError::Failed(_))));
    assert_eq!(log.acks.get().sizes, [1, 2, 3, 4, 5]);
    5
}

/// The log is a prefix with all that was acknowledged, stays so after a power cut, and goes on.
fn goes_on(disk: &FaultyDisk, acked: u64, case: &str) {
    let log = open(disk, options()).unwrap_or_else(|error| panic!("{case}: {error}"));
    let size = log.recovered.size;
    assert!(size >= acked && size <= acked + 1, "{case}: {size}");
    log.check_entries(size);
    // What recovery counted is durable now, whatever the failed sync did.
    for seed in 0..8 {
        let after = disk.after_crash(seed);
        let log = open(&after, options()).unwrap_or_else(|error| panic!("{case}: {error}"));
        log.check_entries(size);
    }
    log.fill(size + 3);
    log.writer.close().unwrap();
    check(disk).unwrap_or_else(|failures| panic!("{case}: {failures:?}"));
}

#[test]
fn every_fault_of_a_commit_ends_the_writer_and_recovery_counts_what_is_there() {
    type Choice = fn(&Op) -> Option<Fault>;
    const EIO: ErrorKind = ErrorKind::Other;
    let faults: [(&str, Choice); 6] = [
        ("write fails", |op| {
            matches!(op, Op::Write(..)).then_some(Fault::Fail(EIO))
        }),
        ("write fails after all", |op| {
            matches!(op, Op::Write(..)).then_some(Fault::FailAfter(EIO))
        }),
        ("write is torn", |op| {
            matches!(op, Op::Write(..)).then_some(Fault::Torn(100, EIO))
        }),
        ("sync fails", |op| {
            matches!(op, Op::Sync(_)).then_some(Fault::Fail(EIO))
        }),
        ("sync fails and loses", |op| {
            matches!(op, Op::Sync(_)).then_some(Fault::Lose(EIO))
        }),
        ("sync fails and stores", |op| {
            matches!(op, Op::Sync(_)).then_some(Fault::FailAfter(EIO))
        }),
    ];
    for (case, fault) in faults {
        let disk = disk();
        let acked = fail_sixth(&disk, fault);
        for seed in 0..8 {
            goes_on(&disk.after_crash(seed), acked, case);
        }
        goes_on(&disk, acked, case);
    }
}

#[test]
fn a_sync_that_fails_while_recovering_is_an_error_and_can_be_tried_again() {
    let disk = disk();
    let fault = |op: &Op| matches!(op, Op::Sync(_)).then_some(Fault::Lose(ErrorKind::Other));
    let acked = fail_sixth(&disk, fault);
    disk.set_plan(move |op| match op {
        Op::Sync(path) if path == &segment(0) => Some(Fault::Lose(ErrorKind::Other)),
        _ => None,
    });
    assert!(matches!(open(&disk, options()), Err(OpenError::File(_))));
    disk.clear_plan();
    goes_on(&disk, acked, "second recovery");
}

#[test]
fn a_segment_that_cannot_be_named_ends_the_writer() {
    let disk = disk();
    let log = create(&disk, options());
    disk.set_plan(|op| match op {
        Op::Rename(path) if is_segment(path) => Some(Fault::Fail(ErrorKind::Other)),
        _ => None,
    });
    let mut index = 0;
    loop {
        match log.writer.append(entry(index)) {
            Ok(_) => index += 1,
            Err(AppendError::Full) => std::thread::yield_now(),
            Err(AppendError::Failed) => break,
            Err(other) => panic!("{other}"),
        }
    }
    let acked = log.acks.wait(|state| !state.failed.is_empty()).failed[0].0;
    assert_eq!(acked, log.writer.durable_size());
    drop(log);
    disk.clear_plan();
    let log = open(&disk, options()).unwrap();
    log.check_entries(acked);
}

#[test]
fn a_publisher_that_fails_stops_nothing_and_makes_up_for_it() {
    for broken in ["tile", "last-signed", "checkpoints", "checkpoint.tmp"] {
        let disk = disk();
        let publish_interval = std::time::Duration::from_millis(1);
        let log = create(
            &disk,
            Options {
                publish_interval,
                ..options()
            },
        );
        disk.set_plan(move |op| match op {
            Op::Write(path, ..) if path.to_string_lossy().contains(broken) => {
                Some(Fault::Torn(3, ErrorKind::StorageFull))
            }
            _ => None,
        });
        log.fill(600);
        let state = log.acks.wait(|state| !state.publish_failed.is_empty());
        assert!(
            state.failed.is_empty() && state.published.is_empty(),
            "{broken}"
        );
        log.fill(700);
        // Even a power cut here loses nothing, and forks nothing.
        let after = disk.after_crash(1);
        open(&after, options()).unwrap().check_entries(700);
        disk.clear_plan();
        log.acks.wait(|state| !state.published.is_empty());
        log.writer.close().unwrap();
        let report = check(&disk).unwrap_or_else(|failures| panic!("{broken}: {failures:?}"));
        assert_eq!((report.size, report.unsigned()), (700, 0));
    }
}

#[test]
fn tiles_lost_in_a_power_cut_are_made_again() {
    let disk = disk();
    let log = create(&disk, options());
    log.fill(1_000);
    log.writer.close().unwrap();
    let tiles = disk
        .files()
        .into_keys()
        .filter(|path| path.starts_with("/log/tile"));
    for (lost, path) in tiles.enumerate() {
        // Gone, empty, or full of zeros.
        match lost % 3 {
            0 => disk.delete(&path),
            1 => disk.put(&path, &[]),
            _ => disk.put(&path, &[0; 8192]),
        }
    }
    assert!(check(&disk).is_err());
    open(&disk, options()).unwrap().writer.close().unwrap();
    check(&disk).unwrap();
}

fn copy_log(from: &FaultyDisk, to: &FaultyDisk) {
    for path in to.files().into_keys().filter(|path| path.starts_with(DIR)) {
        to.delete(&path);
    }
    for (path, bytes) in from
        .files()
        .into_iter()
        .filter(|(path, _)| path.starts_with(DIR))
    {
        to.put(&path, &bytes);
    }
}

#[test]
fn the_guard_refuses_an_older_copy_and_another_log() {
    let disk = disk();
    let log = create(&disk, options());
    log.fill(50);
    log.writer.close().unwrap();
    let old = disk.copy();
    let log = open(&disk, options()).unwrap();
    log.fill(80);
    log.writer.close().unwrap();

    // The old copy with the guard of today.
    let restored = disk.copy();
    copy_log(&old, &restored);
    match open(&restored, options()) {
        Err(
            error @ OpenError::OlderCopy {
                size: 50,
                signed: 80,
                ..
            },
        ) => {
            assert!(
                error
                    .to_string()
                    .contains("this is an older copy of the log")
            );
        }
        other => panic!("{:?}", other.err()),
    }
    // The old copy, continued otherwise where its guard was, is as long, but not the same.
    let fork = old.copy();
    let log = open(&fork, options()).unwrap();
    for _ in 50..90 {
        log.writer.append(b"another history").unwrap();
    }
    log.writer.close().unwrap();
    let forked = disk.copy();
    copy_log(&fork, &forked);
    match open(&forked, options()) {
        Err(OpenError::Inconsistent { signed: 80, .. }) => {}
        other => panic!("{:?}", other.err()),
    }
    // Without a guard, with a damaged one, and with one of another key.
    let guard = Path::new(GUARD);
    let missing = disk.copy();
    missing.delete(guard);
    assert!(matches!(
        open(&missing, options()),
        Err(OpenError::GuardMissing { .. })
    ));
    let damaged = disk.copy();
    let text = String::from_utf8(damaged.files()[guard].clone()).unwrap();
    damaged.put(guard, text.replace("\n80\n", "\n50\n").as_bytes());
    assert!(matches!(
        open(&damaged, options()),
        Err(OpenError::Checkpoint { .. })
    ));
    let key = curfew_ledger::LogKey::from_seed("example.com/curfew", &[9; 32]).unwrap();
    let other_key = open(
        &disk,
        Options {
            signer: std::sync::Arc::new(key),
            ..options()
        },
    );
    assert!(matches!(other_key, Err(OpenError::Checkpoint { .. })));
    open(&disk, options()).unwrap().check_entries(80);
}

/// A log that signs as soon as anything is durable.
fn hasty() -> Options {
    Options {
        publish_interval: std::time::Duration::from_millis(1),
        ..options()
    }
}

#[test]
fn of_two_copies_in_use_the_second_to_sign_stops_and_stays_shut() {
    let disk = disk();
    let log = create(&disk, options());
    log.fill(50);
    log.writer.close().unwrap();
    for (path, bytes) in disk.files() {
        if let Ok(rest) = path.strip_prefix(DIR) {
            let to = Path::new("/copy").join(rest);
            disk.create_dir_all(to.parent().unwrap()).unwrap();
            disk.put(&to, &bytes);
        }
    }
    let copied = || Options {
        dir: "/copy".into(),
        ..hasty()
    };
    let log = open(&disk, options()).unwrap();
    let copy = open(&disk, copied()).unwrap();
    log.fill(60);
    // Signs first, and goes on.
    log.writer.close().unwrap();
    copy.append(b"another history");
    let state = copy.acks.wait(|state| !state.failed.is_empty());
    assert!(state.published.is_empty());
    assert!(
        state.failed[0].1.contains("two copies of this log"),
        "{}",
        state.failed[0].1
    );
    assert!(matches!(
        copy.writer.append(b"more"),
        Err(AppendError::Failed)
    ));
    drop(copy);
    let again = open(&disk, copied()).err();
    assert!(
        matches!(again, Some(OpenError::OlderCopy { signed: 60, .. })),
        "{again:?}"
    );
    check(&disk).unwrap();
    open(&disk, options()).unwrap().check_entries(60);
}

#[test]
fn an_uncertain_swap_ends_the_writer_and_opening_reads_what_the_guard_holds() {
    let faults = [
        ("rename", Fault::Fail(ErrorKind::Other)),
        ("rename", Fault::FailAfter(ErrorKind::Other)),
        ("sync", Fault::Fail(ErrorKind::Other)),
        ("sync", Fault::FailAfter(ErrorKind::Other)),
    ];
    for (step, fault) in faults {
        let disk = disk();
        let log = create(&disk, hasty());
        disk.set_plan(move |op| match op {
            Op::Rename(path) if step == "rename" && path == Path::new(GUARD) => Some(fault),
            Op::SyncDir(path) if step == "sync" && path == Path::new("/keep") => Some(fault),
            _ => None,
        });
        log.append(&entry(0));
        let state = log.acks.wait(|state| !state.failed.is_empty());
        let case = format!("{step} {fault:?}");
        assert!(state.failed[0].1.contains("uncertain"), "{case}");
        assert!(state.published.is_empty(), "{case}");
        let acked = state.failed[0].0;
        drop(log);
        disk.clear_plan();
        for disk in [disk.after_crash(3), disk] {
            let log = open(&disk, options()).unwrap();
            log.check_entries(log.recovered.size);
            assert!(log.recovered.size >= acked, "{case}");
            log.fill(20);
            log.writer.close().unwrap();
            check(&disk).unwrap_or_else(|failures| panic!("{case}: {failures:?}"));
        }
    }
}

#[test]
fn a_checkpoint_that_never_arrived_whole_is_torn_unless_others_follow_it() {
    let disk = disk();
    let log = create(&disk, options());
    log.fill(50);
    log.writer.close().unwrap();
    let path = Path::new("/log/checkpoints");
    let whole = disk.files()[path].clone();
    let last = String::from_utf8(whole.clone()).unwrap();
    let last = last.rfind("checkpoint ").unwrap();
    // All of the last record but one stretch was lost, or only a stretch of it.
    let length = whole.len() - last;
    for (from, to) in [(0, length), (0, 5), (3, 20), (15, 60), (length - 9, length)] {
        let mut torn = whole.clone();
        torn[last + from..last + to].fill(0);
        let crashed = disk.copy();
        crashed.put(path, &torn);
        assert!(check(&crashed).is_err(), "{from}..{to}");
        let log = open(&crashed, options()).unwrap_or_else(|e| panic!("{from}..{to}: {e}"));
        log.fill(60);
        log.writer.close().unwrap();
        check(&crashed).unwrap_or_else(|failures| panic!("{from}..{to}: {failures:?}"));
        // With another record behind it, no crash can have left it.
        torn.extend_from_slice(&whole[last..]);
        let changed = disk.copy();
        changed.put(path, &torn);
        assert!(
            matches!(open(&changed, options()), Err(OpenError::Checkpoint { .. }))
                || check(&changed).is_err(),
            "{from}..{to}"
        );
    }
}

#[test]
fn a_checkpoint_whose_publication_failed_half_way_is_told_once_it_is_there() {
    for file in ["checkpoints", "checkpoint.tmp"] {
        let disk = disk();
        let log = create(
            &disk,
            Options {
                publish_interval: std::time::Duration::from_millis(1),
                ..options()
            },
        );
        // The first round finds nothing to do, and says so.
        log.acks.wait(|state| state.up_to_date == [0]);
        let failing = Path::new(DIR).join(file);
        disk.set_plan(move |op| match op {
            Op::Sync(path) if *path == failing => Some(Fault::Fail(ErrorKind::Other)),
            _ => None,
        });
        log.fill(3);
        log.acks.wait(|state| !state.publish_failed.is_empty());
        disk.clear_plan();
        // Nothing is appended meanwhile: the note that was signed is all there is to tell.
        let state = log.acks.wait(|state| !state.published.is_empty());
        assert!(state.published[0].contains("\n3\n"), "{file}: {state:?}");
        assert_eq!(log.writer.checkpoint().as_ref(), state.published.last());
        log.writer.close().unwrap();
    }
}
