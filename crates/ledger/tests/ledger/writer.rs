//! Appending, reading, publishing, closing.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew_ledger::merkle::{leaf_hash, verify_consistency, verify_inclusion};
use curfew_ledger::{
    AppendError, Checkpoint, ENTRY_BYTES_MAX, LogReader, OpenError, Options, RealDisk, Writer,
};

use crate::common::*;

fn reader(disk: &curfew_ledger_faults::FaultyDisk) -> LogReader {
    LogReader::open_on(Path::new(DIR), Arc::new(disk.clone())).unwrap()
}

#[test]
fn what_was_appended_is_read_replayed_and_verified() {
    let disk = disk();
    let log = create(&disk, options());
    log.fill(10_000);
    log.writer.close().unwrap();
    let report = check(&disk).unwrap();
    assert_eq!(
        (report.size, report.signed.size, report.unsigned()),
        (10_000, 10_000, 0)
    );
    let is_segment = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "seg");
    assert!(disk.files().into_keys().filter(is_segment).count() >= 2);

    let log = open(&disk, options()).unwrap();
    log.check_entries(10_000);
    let reader = reader(&disk);
    assert_eq!(reader.size(), 10_000);
    for index in [0, 1, 255, 256, 5_000, 9_999] {
        assert_eq!(reader.entry(index).unwrap(), entry(index));
    }
    assert!(reader.entry(10_000).is_err());
    let tail: Vec<u64> = reader.tail(3).map(|found| found.unwrap().0).collect();
    assert_eq!(tail, [9_997, 9_998, 9_999]);
    assert_eq!(reader.range(9_998..20_000).count(), 2);
    assert_eq!(reader.range(77..77).count(), 0);
}

#[test]
fn proofs_from_the_tiles_hold() {
    let disk = disk();
    let log = create(&disk, options());
    log.fill(700);
    log.writer.close().unwrap();
    let old = check(&disk).unwrap();
    let log = open(&disk, options()).unwrap();
    log.fill(2_000);
    log.writer.close().unwrap();
    let new = check(&disk).unwrap();
    let reader = reader(&disk);
    for index in [0, 255, 256, 699, 700, 1_791, 1_792, 1_999] {
        let proof = reader.inclusion_proof(index, 2_000).unwrap();
        let leaf = leaf_hash(&entry(index));
        verify_inclusion(&leaf, index, 2_000, &proof, &new.root).unwrap();
    }
    let proof = reader.consistency_proof(700, 2_000).unwrap();
    verify_consistency(700, 2_000, &proof, &old.root, &new.root).unwrap();
}

#[test]
fn entries_out_of_bounds_are_refused_and_leave_no_trace() {
    let disk = disk();
    let log = create(&disk, options());
    assert_eq!(log.writer.append([]), Err(AppendError::Empty));
    assert_eq!(
        log.writer.append(vec![0; ENTRY_BYTES_MAX + 1]),
        Err(AppendError::TooLarge)
    );
    assert_eq!(log.writer.append(vec![9; ENTRY_BYTES_MAX]), Ok(0));
    assert_eq!(log.writer.append([1]), Ok(1));
    log.writer.close().unwrap();
    let reader = reader(&disk);
    assert_eq!(reader.entry(0).unwrap(), vec![9; ENTRY_BYTES_MAX]);
    assert_eq!(reader.entry(1).unwrap(), [1]);
    check(&disk).unwrap();
}

#[test]
fn concurrent_callers_get_each_index_once_and_acks_in_order() {
    let disk = disk();
    let log = create(&disk, options());
    let (threads, each) = (8, 500);
    let indexes: Vec<Vec<(u64, Vec<u8>)>> = std::thread::scope(|scope| {
        let append = |thread: u64| {
            let log = &log;
            scope.spawn(move || {
                let mut given = Vec::new();
                for i in 0..each {
                    let entry = format!("{thread}/{i}").into_bytes();
                    // On a busy machine the next segment may not be there yet.
                    given.push((log.append(&entry), entry));
                }
                given
            })
        };
        let running: Vec<_> = (0..threads).map(append).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    log.acks.wait_durable(threads * each);
    assert_eq!(log.writer.durable_size(), threads * each);
    let acks = log.acks.get();
    assert!(acks.sizes.is_sorted_by(|a, b| a < b), "{:?}", acks.sizes);
    assert!(acks.sizes.len() < 4_000, "commits are shared");
    log.writer.close().unwrap();
    let reader = reader(&disk);
    let mut all: Vec<u64> = Vec::new();
    for given in indexes {
        assert!(
            given.is_sorted_by(|a, b| a.0 < b.0),
            "the order of calls is that of indexes"
        );
        for (index, entry) in given {
            all.push(index);
            assert_eq!(reader.entry(index).unwrap(), entry);
        }
    }
    all.sort_unstable();
    assert!(all.into_iter().eq(0..threads * each));
}

#[test]
fn the_queue_is_bounded_and_never_blocks() {
    let disk = disk();
    let log = create(
        &disk,
        Options {
            queue_entries_max: 10,
            ..options()
        },
    );
    let gate = Arc::new(std::sync::Mutex::new(()));
    let held = gate.lock().unwrap();
    let waiting = gate.clone();
    disk.set_plan(move |op| {
        if matches!(op, curfew_ledger_faults::Op::Read(_)) {
            return None;
        }
        drop(waiting.lock());
        None
    });
    for index in 0..10 {
        assert_eq!(log.writer.append(entry(index)), Ok(index));
    }
    assert_eq!(log.writer.append(b"x"), Err(AppendError::Full));
    assert_eq!(log.writer.durable_size(), 0);
    drop(held);
    log.acks.wait_durable(10);
    while log.writer.append(entry(10)) == Err(AppendError::Full) {}
    log.writer.close().unwrap();
    check(&disk).unwrap();
}

#[test]
fn checkpoints_follow_within_the_interval() {
    let disk = disk();
    let interval = Duration::from_millis(200);
    let log = create(
        &disk,
        Options {
            publish_interval: interval,
            ..options()
        },
    );
    for round in 1..=3 {
        let began = Instant::now();
        log.fill(round * 100);
        log.acks.wait(|state| {
            state.published.last().is_some_and(|note| {
                let checkpoint = Checkpoint::verify(note.as_bytes(), &keys()).unwrap();
                checkpoint.size == round * 100
            })
        });
        assert!(began.elapsed() < Duration::from_secs(5));
        let published = log.acks.get().published;
        assert_eq!(log.writer.checkpoint().as_ref(), published.last());
        // A log verifies while its writer runs, and remembered checkpoints fit.
        let report = check_with(&disk, Some(published[0].as_bytes())).unwrap();
        assert_eq!(report.signed.size, round * 100);
    }
    log.fill(301);
    drop(log);
    let report = check(&disk).unwrap();
    assert_eq!(
        (report.size, report.unsigned()),
        (301, 1),
        "unsigned entries are no fault"
    );
}

#[test]
fn there_is_one_writer_and_one_log() {
    let disk = disk();
    assert!(matches!(
        open(&disk, options()),
        Err(OpenError::Missing { .. })
    ));
    let log = create(&disk, options());
    assert!(matches!(
        open(&disk, options()),
        Err(OpenError::Locked { .. })
    ));
    log.writer.close().unwrap();
    let again = Writer::create(options(), Arc::new(disk.clone()), Arc::new(Acks::default()));
    assert!(matches!(again, Err(OpenError::AlreadyThere { .. })));
    open(&disk, options()).unwrap().check_entries(0);
}

#[test]
fn options_out_of_range_are_refused() {
    let good = options();
    for wrong in [
        Options {
            segment_bytes: 4096,
            ..good.clone()
        },
        Options {
            segment_bytes: 256 * 1024 + 1,
            ..good.clone()
        },
        Options {
            segment_bytes: u64::MAX,
            ..good.clone()
        },
        Options {
            batch_bytes_max: 0,
            ..good.clone()
        },
        Options {
            batch_bytes_max: 5 << 20,
            ..good.clone()
        },
        Options {
            queue_entries_max: 0,
            ..good.clone()
        },
        Options {
            publish_interval: Duration::ZERO,
            ..good.clone()
        },
    ] {
        let made = Writer::create(wrong, Arc::new(disk()), Arc::new(Acks::default()));
        assert!(matches!(made, Err(OpenError::Option { .. })));
    }
}

#[test]
fn it_works_on_the_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        publish_interval: Duration::from_millis(5),
        ..Options::new(dir.path().join("deep/log"), dir.path().join("guard"), key())
    };
    let options = Options {
        segment_bytes: 256 * 1024,
        ..options
    };
    let acks = Arc::new(Acks::default());
    let disk: Arc<dyn curfew_ledger::Disk> = Arc::new(RealDisk);
    let (writer, _) = Writer::create(options.clone(), disk.clone(), acks.clone()).unwrap();
    let second = Writer::open(options.clone(), disk.clone(), acks.clone());
    assert!(matches!(second, Err(OpenError::Locked { .. })));
    let (mut size, mut reader) = (0, LogReader::open(&options.dir).unwrap());
    while size < 20_000 {
        match writer.append(entry(size)) {
            Ok(_) => size += 1,
            Err(AppendError::Full) => std::thread::sleep(Duration::from_millis(1)),
            Err(other) => panic!("{other}"),
        }
        if size % 5_000 == 0 {
            reader.refresh().unwrap();
            assert!(reader.range(0..u64::MAX).all(|found| {
                let (index, bytes) = found.unwrap();
                bytes == entry(index)
            }));
        }
    }
    writer.close().unwrap();
    let (writer, recovered) = Writer::open(options.clone(), disk.clone(), acks).unwrap();
    assert_eq!(
        (recovered.size, recovered.entries().count()),
        (20_000, 20_000)
    );
    writer.close().unwrap();
    let what = curfew_ledger::verify::Verify {
        dir: &options.dir,
        keys: &keys(),
        remembered: None,
        from: None,
        disk: disk.clone(),
    };
    let report = curfew_ledger::verify::verify(&what, &mut ()).unwrap();
    assert_eq!(report.size, 20_000);
    // The lock is a file that stays; the rest is what the documentation lists.
    let names: Vec<String> = disk
        .list(&options.dir)
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(
        names,
        ["checkpoint", "checkpoints", "lock", "segments", "tile"]
    );
}
