//! Sealing: segments go once tiles hold the same, and nobody who reads the log notices.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use curfew_ledger::merkle::{leaf_hash, verify_inclusion};
use curfew_ledger::segment::CorruptionKind;
use curfew_ledger::verify::FailureKind;
use curfew_ledger::{Checkpoint, Disk, LogReader, Options, ReadError};
use curfew_ledger_faults::{Fault, FaultyDisk, Kept, Op};

use crate::common::*;

/// Seals as soon as it can.
pub fn sealing() -> Options {
    Options {
        publish_interval: Duration::from_millis(5),
        segments_kept: 2,
        ..options()
    }
}

pub fn segments(disk: &FaultyDisk) -> Vec<u64> {
    let number = |path: &Path| path.file_stem()?.to_str()?.parse().ok();
    let is_segment = |path: &Path| path.extension().is_some_and(|e| e == "seg");
    let files = disk.files();
    let found = files.keys().filter(|path| is_segment(path));
    found.filter_map(|path| number(path)).collect()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn wait_sealed(disk: &FaultyDisk) {
    wait_until("only two segments", || segments(disk).len() == 2);
}

pub fn reader(disk: &FaultyDisk) -> LogReader {
    LogReader::open_on(Path::new(DIR), Arc::new(disk.clone())).unwrap()
}

/// A closed log of this size, sealed as far as can be.
fn sealed(size: u64) -> FaultyDisk {
    let disk = disk();
    let log = create(&disk, sealing());
    log.fill(size);
    wait_sealed(&disk);
    log.writer.close().unwrap();
    disk
}

/// A closed log of this size, with all its segments.
pub fn unsealed(size: u64) -> FaultyDisk {
    let disk = disk();
    let kept = Options {
        segments_kept: usize::MAX,
        ..sealing()
    };
    let log = create(&disk, kept);
    log.fill(size);
    log.writer.close().unwrap();
    disk
}

/// Waits until the checkpoint of so many entries is published, and gives it.
pub fn published(log: &Log, size: u64) -> String {
    let covers = |note: &String| Checkpoint::verify(note.as_bytes(), &keys()).unwrap().size == size;
    let state = log.acks.wait(|state| state.published.iter().any(covers));
    state.published.into_iter().find(covers).unwrap()
}

fn bundle(n: u64) -> PathBuf {
    Path::new(DIR).join(format!("tile/entries/{n:03}"))
}

fn flip(disk: &FaultyDisk, path: &Path, at: usize) {
    let mut bytes = disk.files()[path].clone();
    bytes[at] ^= 1;
    disk.put(path, &bytes);
}

#[test]
fn a_sealed_log_reads_verifies_and_goes_on_as_before() {
    let disk = sealed(20_000);
    let first = segments(&disk)[0];
    assert!(first > 5_000 && !first.is_multiple_of(256), "{first}");
    let report = check(&disk).unwrap();
    assert_eq!((report.size, report.unsigned()), (20_000, 0));

    let reader = reader(&disk);
    let mut fetch = reader.fetch().unwrap();
    for index in [0, 255, 256, first - 1, first, first + 1, 19_999, 3, first] {
        assert_eq!(reader.entry(index).unwrap(), entry(index));
        assert_eq!(fetch.entry(index, Some(4_096)).unwrap(), entry(index));
    }
    for (start, end) in [(0, 20_000), (first - 300, first + 300), (255, 258)] {
        let found: Vec<_> = reader.range(start..end).map(Result::unwrap).collect();
        let wanted: Vec<_> = (start..end).map(|index| (index, entry(index))).collect();
        assert!(found == wanted, "{start}..{end}");
    }
    let proof = reader.inclusion_proof(17, 20_000).unwrap();
    verify_inclusion(&leaf_hash(&entry(17)), 17, 20_000, &proof, &report.root).unwrap();

    let log = open(&disk, sealing()).unwrap();
    log.check_entries(20_000);
    log.fill(40_000);
    wait_sealed(&disk);
    log.writer.close().unwrap();
    assert!(segments(&disk)[0] > 20_000);
    assert_eq!(check(&disk).unwrap().size, 40_000);
    open(&disk, sealing()).unwrap().check_entries(40_000);
}

#[test]
fn entries_of_any_length_are_sealed_where_segments_end() {
    for seed in 1..6_u64 {
        let disk = disk();
        let log = create(&disk, sealing());
        let content = |index: u64| {
            let length = (index * seed * 7_919) % if index % 40 == seed { 9_000 } else { 130 };
            [entry(index), vec![b'z'; length as usize]].concat()
        };
        let mut index = 0;
        // Some entries on, since the last bundle of a segment must be full.
        while segments(&disk).last() < Some(&3_000) || index < 3_600 {
            log.append(&content(index));
            index += 1;
        }
        wait_until("no segment but the last three", || {
            let left = segments(&disk);
            left.len() == 2 || left[1].next_multiple_of(256) > index
        });
        log.writer.close().unwrap();
        check(&disk).unwrap();
        let log = open(&disk, sealing()).unwrap();
        for found in log.recovered.entries() {
            let (index, bytes) = found.unwrap();
            assert!(bytes == content(index), "entry {index} of seed {seed}");
        }
        log.append(&content(index));
        log.acks.wait_durable(index + 1);
        log.writer.close().unwrap();
        assert_eq!(check(&disk).unwrap().size, index + 1);
    }
}

#[test]
fn who_reads_while_it_is_sealed_reads_on() {
    let disk = unsealed(20_000);
    let mut reader = reader(&disk);
    let mut fetch = reader.fetch().unwrap();
    let mut entries = reader.range(0..20_000);
    for index in 0..100 {
        assert_eq!(entries.next().unwrap().unwrap(), (index, entry(index)));
    }
    let place = entries.place();
    assert_eq!(fetch.entry(99, Some(place)).unwrap(), entry(99));

    let log = open(&disk, sealing()).unwrap();
    wait_sealed(&disk);
    for index in 100..20_000 {
        assert_eq!(entries.next().unwrap().unwrap(), (index, entry(index)));
    }
    for index in [100, 12_000, 5_000, 19_999] {
        assert_eq!(fetch.entry(index, Some(place)).unwrap(), entry(index));
    }
    // The segment that it stood in, and the one after, are gone by now.
    log.fill(60_000);
    wait_sealed(&disk);
    assert_eq!(reader.refresh().unwrap(), 60_000);
    assert_eq!(reader.entry(59_999).unwrap(), entry(59_999));
}

#[test]
fn a_verification_under_way_goes_on_in_the_bundles() {
    let disk = disk();
    let log = create(&disk, sealing());
    log.fill(10_000);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            log.fill(120_000);
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            check(&disk).unwrap();
        }
    });
    wait_sealed(&disk);
    log.writer.close().unwrap();
    assert_eq!(check(&disk).unwrap().size, 120_000);
}

#[test]
fn nothing_is_sealed_that_is_not_signed() {
    let disk = disk();
    let log = create(&disk, sealing());
    log.fill(1_000);
    published(&log, 1_000);
    disk.set_plan(|op| match op {
        Op::Rename(path) if path == Path::new("/log/checkpoint") => {
            Some(Fault::Fail(ErrorKind::Other))
        }
        _ => None,
    });
    log.fill(12_000);
    let before = segments(&disk);
    assert!(before.len() > 2);
    // It looks once more before it ends.
    assert!(log.writer.close().is_err());
    assert_eq!(segments(&disk), before);
}

#[test]
fn a_tile_that_is_missing_or_wrong_is_made_again_before_its_segment_goes() {
    let disk = unsealed(20_000);
    flip(&disk, &bundle(3), 70);
    flip(&disk, Path::new("/log/tile/0/004"), 70);
    disk.remove_file(&bundle(9)).unwrap();
    let log = open(&disk, sealing()).unwrap();
    wait_sealed(&disk);
    drop(log);
    // What is not synced by then is gone.
    let disk = disk.after_power_cut(Kept::Nothing);
    open(&disk, sealing()).unwrap().check_entries(20_000);
    check(&disk).unwrap();
}

#[test]
fn a_tile_that_is_changed_after_it_was_published_is_made_again() {
    let disk = disk();
    let log = create(&disk, sealing());
    log.fill(1_300);
    published(&log, 1_300);
    // Whatever batches they came in, the first segment is still there.
    assert_eq!(segments(&disk)[0], 0);
    flip(&disk, &bundle(3), 70);
    disk.delete(Path::new("/log/tile/0/004"));
    log.fill(20_000);
    wait_sealed(&disk);
    log.writer.close().unwrap();
    check(&disk).unwrap();
}

#[test]
fn a_segment_stays_when_its_tiles_cannot_be_synced() {
    for (what, cut_at_once) in [
        ("/log/tile/entries/005", true),
        ("/log/tile/entries/005", false),
        ("/log/tile/0/005", false),
        ("/log/tile/0", true),
        ("/log/tile", true),
    ] {
        let disk = unsealed(20_000);
        let before = segments(&disk);
        disk.set_plan(move |op| match op {
            Op::Sync(path) | Op::SyncDir(path) if path == Path::new(what) => {
                Some(Fault::Lose(ErrorKind::Other))
            }
            _ => None,
        });
        let log = open(&disk, sealing()).unwrap();
        let state = log.acks.wait(|state| !state.seal_failed.is_empty());
        assert!(state.failed.is_empty(), "{what}");
        assert_eq!(segments(&disk), before, "{what}");
        drop(log);
        disk.clear_plan();
        // What a failed sync has lost still reads well until the power is cut.
        let disk = if cut_at_once {
            disk.after_power_cut(Kept::Nothing)
        } else {
            disk
        };
        let log = open(&disk, sealing()).unwrap();
        log.check_entries(20_000);
        wait_sealed(&disk);
        drop(log);
        let disk = disk.after_power_cut(Kept::Nothing);
        open(&disk, sealing()).unwrap().check_entries(20_000);
        check(&disk).unwrap();
    }
}

#[test]
fn damage_in_the_sealed_part_is_named_and_never_read_as_an_entry() {
    let disk = sealed(20_000);
    let size = 2 + entry(768).len();
    flip(&disk, &bundle(3), size + 5);
    let reader = reader(&disk);
    assert_eq!(reader.entry(768).unwrap(), entry(768));
    for found in [reader.entry(769), reader.fetch().unwrap().entry(769, None)] {
        let Err(ReadError::Corrupt(place)) = found else {
            panic!("{found:?}")
        };
        assert_eq!(
            (place.path, place.offset, place.index),
            (bundle(3), size as u64, 769)
        );
    }
    let failures = check(&disk).unwrap_err();
    let tile = failures.iter().find(|f| f.kind == FailureKind::Tile);
    assert_eq!(tile.unwrap().index, Some(769));
    // And the next frame is over other entries.
    let root = FailureKind::Segment(CorruptionKind::Root);
    assert!(failures.iter().any(|f| f.kind == root), "{failures:?}");

    let disk = sealed(20_000);
    let mut bytes = disk.files()[&bundle(3)].clone();
    bytes.pop();
    disk.put(&bundle(3), &bytes);
    assert!(matches!(
        reader_entry(&disk, 800),
        Err(ReadError::Corrupt(_))
    ));
    check(&disk).unwrap_err();
    disk.remove_file(&bundle(3)).unwrap();
    assert!(matches!(reader_entry(&disk, 800), Err(ReadError::File(_))));
    let failures = check(&disk).unwrap_err();
    assert_eq!(failures[0].path, bundle(3));
}

fn reader_entry(disk: &FaultyDisk, index: u64) -> Result<Vec<u8>, ReadError> {
    reader(disk).entry(index)
}

#[test]
fn who_changed_the_sealed_part_and_its_hashes_cannot_open_or_prove_it() {
    let disk = sealed(20_000);
    let mut bytes = disk.files()[&bundle(3)].clone();
    bytes[10] ^= 1;
    let len = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    let leaf = leaf_hash(&bytes[2..2 + len]);
    let tile = PathBuf::from("/log/tile/0/003");
    let mut hashes = disk.files()[&tile].clone();
    hashes[..32].copy_from_slice(&leaf.0);
    disk.put(&bundle(3), &bytes);
    disk.put(&tile, &hashes);
    // The hashes of the sealed part lead to another root than the frames after it have.
    let opened = open(&disk, sealing());
    assert!(matches!(
        opened,
        Err(curfew_ledger::OpenError::Corrupt(_) | curfew_ledger::OpenError::Inconsistent { .. })
    ));
    check(&disk).unwrap_err();
}

#[test]
fn a_guard_that_was_put_back_is_still_compared() {
    let disk = disk();
    let log = create(&disk, sealing());
    log.fill(1_000);
    let old = published(&log, 1_000);
    log.fill(20_000);
    wait_sealed(&disk);
    log.writer.close().unwrap();
    disk.put(Path::new(GUARD), old.as_bytes());
    open(&disk, sealing()).unwrap().check_entries(20_000);
}
