//! Crashes at every moment: what was acknowledged is there, and nothing is half there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use curfew_ledger::{OpenError, Options, Writer};
use curfew_ledger_faults::{Fault, FaultyDisk};

use crate::common::*;

/// Opens what a crash left, and shows that it is a log with at least `acked` entries that goes on.
fn recovers(disk: &FaultyDisk, acked: u64, case: &str) -> u64 {
    let log = open(disk, options()).unwrap_or_else(|error| panic!("{case}: {error}"));
    let size = log.recovered.size;
    assert!(
        size >= acked,
        "{case}: {acked} were acknowledged, {size} are left"
    );
    log.check_entries(size);
    log.fill(size + 2);
    log.writer.close().unwrap();
    let report = check(disk).unwrap_or_else(|failures| panic!("{case}: {failures:?}"));
    assert_eq!((report.size, report.torn_tail), (size + 2, None), "{case}");
    size
}

#[test]
fn a_write_cut_off_at_any_byte_leaves_a_prefix() {
    let disk = disk();
    let log = create(&disk, options());
    let mut ends = Vec::new();
    for index in 0..4 {
        // The third frame takes two blocks.
        let bytes = if index == 2 {
            vec![b'y'; 5000]
        } else {
            entry(index)
        };
        ends.push((
            if index == 2 { 8192 } else { 4096 },
            84 + 2 + bytes.len() as u64,
        ));
        log.writer.append(bytes).unwrap();
        log.acks.wait_durable(index + 1);
    }
    let image = disk.files()[&segment(0)].clone();
    let before = disk.copy();
    // What was there is a log that was created and has only frames, as after a kill.
    drop(log);
    let mut start = 0_u64;
    let frames: Vec<(u64, u64)> = ends
        .iter()
        .map(|(padded, content)| {
            start += padded;
            (start - padded, start - padded + content)
        })
        .collect();
    let first_cut = frames[1].0;
    let last_cut = frames[3].1;
    for cut in first_cut..=last_cut {
        // In the zeros between frames all cuts look the same.
        let within = frames.iter().any(|(from, to)| (*from..=*to).contains(&cut));
        let sampled = !(frames[2].0 + 200..frames[2].1 - 50).contains(&cut) || cut % 97 == 0;
        if !within || !sampled {
            continue;
        }
        let disk = before.copy();
        let mut torn = image.clone();
        torn[cut as usize..].fill(0);
        disk.put(&segment(0), &torn);
        let whole = frames.iter().filter(|(_, end)| *end <= cut).count() as u64;
        let log = open(&disk, options()).unwrap();
        // The last bytes of a frame may be zeros by chance (never here: entries are text).
        assert_eq!(log.recovered.size, whole, "cut at {cut}");
        let cut_in_frame = frames
            .iter()
            .any(|(from, to)| (from + 1..*to).contains(&cut));
        assert_eq!(
            log.recovered.torn_tail.is_some(),
            cut_in_frame,
            "cut at {cut}"
        );
        if let Some(torn) = &log.recovered.torn_tail {
            assert_eq!((&torn.path, torn.index), (&segment(0), whole));
            assert_eq!(torn.offset, frames[whole as usize].0);
        }
        assert_eq!(log.writer.append(b"next").unwrap(), whole);
        log.writer.close().unwrap();
        let report = check(&disk).unwrap();
        assert_eq!((report.size, report.torn_tail), (whole + 1, None));
    }
}

#[test]
fn a_power_cut_after_any_operation_loses_nothing_acknowledged() {
    // The machine dies at its n-th operation: everything from there on fails.
    let mut reached_end = false;
    for n in 0..2_000 {
        let disk = disk();
        let small = Options {
            publish_interval: std::time::Duration::from_millis(1),
            ..options()
        };
        let log = create(&disk, small);
        let count = AtomicU64::new(0);
        let reached = Arc::new(AtomicU64::new(0));
        let seen = reached.clone();
        disk.set_plan(move |_| {
            let at = count.fetch_add(1, Ordering::SeqCst);
            seen.store(at, Ordering::SeqCst);
            (at >= n).then_some(Fault::Fail(std::io::ErrorKind::Other))
        });
        // Large entries, so that segments are changed too.
        for index in 0..24 {
            let bytes = [entry(index), vec![b'z'; 30_000]].concat();
            if log.writer.append(bytes).is_err() {
                break;
            }
            log.acks
                .wait(|s| s.sizes.last() > Some(&index) || !s.failed.is_empty());
        }
        let acked = log.writer.durable_size();
        let _ = log.writer.close();
        reached_end = reached.load(Ordering::SeqCst) < n;
        let after = disk.after_crash(n);
        let log = open(&after, options()).unwrap_or_else(|error| panic!("{n}: {error}"));
        assert!(log.recovered.size >= acked, "operation {n}");
        for found in log.recovered.entries() {
            let (index, bytes) = found.unwrap();
            assert!(
                bytes.starts_with(&entry(index)),
                "operation {n}, entry {index}"
            );
        }
        log.writer.append(b"on it goes").unwrap();
        log.writer.close().unwrap();
        check(&after).unwrap_or_else(|failures| panic!("operation {n}: {failures:?}"));
        if reached_end {
            break;
        }
    }
    assert!(reached_end, "the run was followed to its end");
}

#[test]
fn power_cuts_under_load_lose_nothing_acknowledged() {
    for seed in 0..150_u64 {
        let disk = disk();
        let publish_interval = std::time::Duration::from_millis(1);
        let log = create(
            &disk,
            Options {
                publish_interval,
                ..options()
            },
        );
        let (acked, after) = std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                let mut index = 0;
                while index < 3_000 {
                    index += u64::from(log.writer.append(entry(index)).is_ok());
                }
            });
            log.acks.wait_durable(seed * 10 + 1);
            let acked = log.writer.durable_size();
            let after = disk.after_crash(seed);
            load.join().unwrap();
            (acked, after)
        });
        recovers(&after, acked, &format!("seed {seed}"));
    }
}

#[test]
fn a_crash_while_creating_can_be_mended_by_creating_again() {
    for n in 0..60 {
        let disk = disk();
        let count = AtomicU64::new(0);
        disk.set_plan(move |_| {
            let at = count.fetch_add(1, Ordering::SeqCst);
            (at >= n).then_some(Fault::Fail(std::io::ErrorKind::Other))
        });
        let made = Writer::create(options(), Arc::new(disk.clone()), Arc::new(Acks::default()));
        drop(made);
        let after = disk.after_crash(n);
        match open(&after, options()) {
            Ok(log) => log.check_entries(0),
            Err(OpenError::Missing { .. } | OpenError::GuardMissing { .. }) => {
                create(&after, options()).fill(3);
            }
            Err(other) => panic!("{n}: {other}"),
        }
        recovers(&after, 0, &format!("operation {n}"));
    }
}

#[test]
fn damage_is_told_from_a_torn_tail() {
    let disk = disk();
    let log = create(&disk, options());
    log.fill_one_by_one(5);
    let image = disk.copy();
    drop(log);
    let frames = image.files()[&segment(0)].clone();
    for frame in 0..5_usize {
        for at in [0, 30, 50, 83, 90] {
            let disk = image.copy();
            let mut bytes = frames.clone();
            bytes[frame * 4096 + at] ^= 1;
            disk.put(&segment(0), &bytes);
            match open(&disk, options()) {
                // Nothing shows that the last one had been acknowledged, so it may be torn.
                Ok(log) => assert_eq!((frame, log.recovered.size), (4, 4)),
                Err(OpenError::Corrupt(corruption)) => {
                    assert!(frame < 4);
                    assert_eq!(corruption.path, segment(0));
                    assert_eq!(corruption.offset, frame as u64 * 4096);
                    assert_eq!(corruption.index, frame as u64);
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    // A frame wiped in the middle, and a segment that went missing.
    let disk = image.copy();
    let mut bytes = frames.clone();
    bytes[4096..8192].fill(0);
    disk.put(&segment(0), &bytes);
    assert!(matches!(open(&disk, options()), Err(OpenError::Corrupt(_))));
}

#[test]
fn a_missing_or_stray_segment_is_damage() {
    let disk = disk();
    let log = create(&disk, options());
    log.fill(14_000);
    let image = disk.copy();
    drop(log);
    let segments: Vec<_> = image
        .files()
        .into_keys()
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    assert!(segments.len() >= 3, "{segments:?}");
    let gone = image.copy();
    gone.delete(&segments[1]);
    assert!(matches!(open(&gone, options()), Err(OpenError::Corrupt(_))));
    let gone = image.copy();
    gone.delete(&segments[0]);
    assert!(open(&gone, options()).is_err());
    let stray = image.copy();
    stray.put(&segment(7), &[0; 4096]);
    assert!(matches!(
        open(&stray, options()),
        Err(OpenError::Corrupt(_))
    ));
    let other = image.copy();
    other.put(Path::new("/log/segments/notes.txt"), b"not ours");
    open(&other, options()).unwrap().check_entries(14_000);
}

#[test]
fn an_entry_cannot_pass_for_a_frame() {
    // Somebody gets a copy of a frame into the log as an entry, aligned as a frame would be.
    let source = disk();
    let log = create(&source, options());
    log.fill_one_by_one(3);
    let frame = source.files()[&segment(0)][8192..12_288].to_vec();
    let mut forged = vec![b' '; 4096 - 84 - 2];
    forged.extend_from_slice(&frame);
    // It even claims a later place; only its number cannot be right.
    let disk = disk();
    let log = create(
        &disk,
        Options {
            signer: std::sync::Arc::new(other_key()),
            ..options()
        },
    );
    log.writer.append(b"first").unwrap();
    log.acks.wait_durable(1);
    log.writer.append(&forged).unwrap();
    log.acks.wait_durable(2);
    let mut bytes = disk.files()[&segment(0)].clone();
    let copy = disk.copy();
    drop(log);
    // The write of that entry was torn: its first block never reached the disk.
    bytes[4096..8192].fill(0);
    copy.put(&segment(0), &bytes);
    let log = open(
        &copy,
        Options {
            signer: std::sync::Arc::new(other_key()),
            ..options()
        },
    )
    .unwrap();
    assert_eq!(log.recovered.size, 1);
    assert_eq!(log.recovered.torn_tail.as_ref().unwrap().offset, 4096);
}

fn other_key() -> curfew_ledger::LogKey {
    curfew_ledger::LogKey::from_seed("example.com/curfew", &[6; 32]).unwrap()
}
