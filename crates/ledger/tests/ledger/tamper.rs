//! Whoever changes a log after the fact is found out, and the place is named.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use curfew_ledger::verify::{Failure, FailureKind, Progress, Verify, Visitor, verify};
use curfew_ledger::{Checkpoint, CloseError, LogKey, Options, PublishError};
use curfew_ledger_faults::FaultyDisk;

use crate::common::*;

/// A log of 10,000 entries with checkpoints at several sizes, so that there are full and partial
/// tiles of both levels, and partial tiles of an earlier checkpoint.
fn log() -> FaultyDisk {
    static LOG: OnceLock<FaultyDisk> = OnceLock::new();
    let made = LOG.get_or_init(|| {
        let disk = disk();
        create(&disk, options()).writer.close().unwrap();
        for size in [100, 300, 5_000, 9_990, 10_000] {
            let log = open(&disk, options()).unwrap();
            log.fill(size);
            log.writer.close().unwrap();
        }
        let report = check(&disk).unwrap();
        assert_eq!(
            (report.size, report.checkpoints, report.torn_tail),
            (10_000, 6, None)
        );
        disk
    });
    made.copy()
}

/// All files of the log that hold something.
fn files(disk: &FaultyDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let holds = |path: &Path| {
        path.starts_with(DIR)
            && !path.to_string_lossy().ends_with(".tmp")
            && !path.ends_with("lock")
    };
    disk.files()
        .into_iter()
        .filter(|(path, _)| holds(path))
        .collect()
}

/// Where the content ends: segments are filled up with zeros.
fn used(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1)
}

fn expect_named(disk: &FaultyDisk, path: &Path, case: &str) -> Vec<Failure> {
    match check(disk) {
        Ok(_) => panic!("{case} of {} went unseen", path.display()),
        Err(failures) => {
            let named = failures.iter().any(|failure| failure.path == path);
            assert!(named, "{case} of {}: {failures:?}", path.display());
            failures
        }
    }
}

type Tampering = fn(&mut Vec<u8>, usize);

const TAMPERINGS: [(&str, Tampering); 5] = [
    ("flip", |bytes, at| bytes[at] ^= 1 << (at % 8)),
    ("drop", |bytes, at| {
        bytes.remove(at);
    }),
    ("swap", |bytes, at| {
        // With the next byte that differs.
        let other = (0..bytes.len())
            .find(|other| bytes[*other] != bytes[at])
            .unwrap();
        bytes.swap(at, other);
    }),
    ("insert", |bytes, at| bytes.insert(at, b'7')),
    ("truncate", |bytes, at| bytes.truncate(at)),
];

fn tamper_everywhere(pick: impl Fn(&str) -> bool, positions: usize) {
    let original = log();
    let picked: Vec<_> = files(&original)
        .into_iter()
        .filter(|(path, _)| pick(&path.to_string_lossy()))
        .collect();
    assert!(!picked.is_empty());
    for (path, bytes) in picked {
        let end = used(&bytes);
        for step in 0..positions {
            // First and last byte, and evenly between, a little off so as to meet all alignments.
            let at = if step + 1 == positions {
                end - 1
            } else {
                (end / positions + 1) * step
            };
            for (case, tamper) in TAMPERINGS {
                let disk = log();
                let mut changed = bytes.clone();
                tamper(&mut changed, at.min(end - 1));
                if changed == bytes {
                    continue;
                }
                disk.put(&path, &changed);
                expect_named(&disk, &path, &format!("{case} at {at}"));
            }
        }
    }
}

#[test]
fn changes_in_segments_are_named() {
    tamper_everywhere(|path| path.ends_with(".seg"), 9);
}

#[test]
fn changes_in_checkpoint_files_are_named() {
    tamper_everywhere(|path| path.contains("checkpoint"), 15);
}

#[test]
fn changes_in_tiles_are_named() {
    let some = [
        "/tile/0/000",
        "/tile/0/038",
        "/tile/entries/000",
        "/tile/entries/017",
    ];
    tamper_everywhere(
        |path| some.iter().any(|some| path.ends_with(some)) || path.contains(".p/"),
        4,
    );
}

#[test]
fn a_flip_in_any_file_is_named_with_its_entry() {
    let original = log();
    let mut kinds = std::collections::BTreeSet::new();
    for (path, bytes) in files(&original) {
        let disk = log();
        let mut changed = bytes.clone();
        let at = used(&bytes) / 2;
        changed[at] ^= 0x10;
        disk.put(&path, &changed);
        let failures = expect_named(&disk, &path, "flip");
        let failure = failures
            .iter()
            .find(|failure| failure.path == path)
            .unwrap();
        kinds.insert(failure.kind == FailureKind::Tile);
        if path.starts_with("/log/tile") {
            assert_eq!(failure.offset, Some(at as u64), "{failure}");
            assert!(
                failure.index.is_some_and(|index| index < 10_000),
                "{failure}"
            );
        }
    }
    assert_eq!(kinds.len(), 2, "tiles and others");
}

#[test]
fn a_file_that_is_gone_or_too_many_is_named() {
    let original = log();
    for (path, _) in files(&original) {
        let text = path.to_string_lossy().into_owned();
        // Partial tiles of earlier sizes may be dropped: clients take newer ones.
        let width = text.split_once(".p/").map(|(_, width)| width);
        if width.is_some_and(|width| width != "16" && width != "39") {
            continue;
        }
        let disk = log();
        disk.delete(&path);
        match check(&disk) {
            // The oldest segment may go: its bundles hold the same.
            Ok(report) if path == segment(0) => assert_eq!(report.size, 10_000),
            Ok(_) => panic!("{text} was not missed"),
            // A segment is missed at the end of the one before it.
            Err(failures) if text.ends_with(".seg") => {
                let near = |f: &Failure| f.path.to_string_lossy().contains("/segments/");
                assert!(failures.iter().any(near), "{failures:?}");
            }
            Err(failures) => assert!(failures.iter().any(|f| f.path == path), "{failures:?}"),
        }
    }
    for extra in [
        "/log/tile/0/040",
        "/log/tile/0/039.p/17",
        "/log/tile/2/000",
        "/log/tile/0/000.bak",
        "/log/tile/2/000.p/1",
        "/log/tile/entries/x001/000",
        "/log/segments/notes",
    ] {
        let disk = log();
        let extra = Path::new(extra);
        curfew_ledger::Disk::create_dir_all(&disk, extra.parent().unwrap()).unwrap();
        disk.put(extra, b"anything");
        expect_named(&disk, extra, "addition");
    }
    let disk = log();
    disk.put(&segment(77), &[0; 4096]);
    expect_named(&disk, &segment(77), "a stray segment");
    let disk = log();
    disk.put(&segment(20_000), &[0; 4096]);
    assert!(check(&disk).is_err(), "a segment far behind the end");
}

#[test]
fn swapped_files_and_records_are_named() {
    let original = log();
    let contents = original.files();
    for [a, b] in [
        ["/log/tile/0/003", "/log/tile/0/004"],
        ["/log/tile/entries/003", "/log/tile/entries/004"],
        ["/log/segments/00000000000000000000.seg", "LAST"],
        ["/log/checkpoint", "/log/checkpoints"],
    ] {
        let last = contents
            .keys()
            .rfind(|path| path.extension().is_some_and(|e| e == "seg"));
        let (a, b) = (
            Path::new(a),
            if b == "LAST" {
                last.unwrap()
            } else {
                Path::new(b)
            },
        );
        let disk = log();
        disk.put(a, &contents[b]);
        disk.put(b, &contents[a]);
        expect_named(&disk, a, "swap");
    }
    // Records of `checkpoints`: swapped, dropped, doubled, and the newest dropped everywhere.
    let path = Path::new("/log/checkpoints");
    let text = String::from_utf8(contents[path].clone()).unwrap();
    let starts: Vec<usize> = text
        .match_indices("checkpoint ")
        .map(|(at, _)| at)
        .collect();
    let records: Vec<&str> = (0..starts.len())
        .map(|i| &text[starts[i]..starts.get(i + 1).copied().unwrap_or(text.len())])
        .collect();
    assert_eq!(records.len(), 6);
    let orders: [&[usize]; 4] = [
        &[0, 1, 3, 2, 4, 5],
        &[1, 2, 3, 4, 5],
        &[0, 1, 2, 2, 3, 4, 5],
        &[],
    ];
    for order in orders {
        let disk = log();
        let changed: String = order.iter().map(|i| records[*i]).collect();
        disk.put(path, changed.as_bytes());
        expect_named(&disk, path, "records");
    }
    // An older checkpoint, rightly signed, where the newest belongs.
    let behind = log();
    let older = records[3].split_once('\n').unwrap().1;
    behind.put(Path::new("/log/checkpoint"), older.as_bytes());
    let failures = expect_named(&behind, Path::new("/log/checkpoint"), "an older checkpoint");
    assert_eq!(failures[0].kind, FailureKind::NotNewest);
    // A writer that died while it published left the one before.
    let before = records[4].split_once('\n').unwrap().1;
    behind.put(Path::new("/log/checkpoint"), before.as_bytes());
    check(&behind).unwrap();
    // Two frames of a segment change places, checksums and all.
    let disk = disk();
    let log = create(&disk, options());
    log.fill_one_by_one(4);
    log.writer.close().unwrap();
    let mut frames = disk.files()[&segment(0)].clone();
    let (left, right) = frames.split_at_mut(8192);
    left[4096..].swap_with_slice(&mut right[..4096]);
    disk.put(&segment(0), &frames);
    expect_named(&disk, &segment(0), "swapped frames");
}

/// Changes the entry in the second frame, which has only that one, and makes it a new checksum.
fn change_second_entry(disk: &FaultyDisk) {
    let mut bytes = disk.files()[&segment(0)].clone();
    let frame = &mut bytes[4096..8192];
    frame[90] ^= 1;
    let end = 84 + u32::from_le_bytes(frame[44..48].try_into().unwrap()) as usize;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..80]), &frame[84..end]);
    frame[80..84].copy_from_slice(&crc.to_le_bytes());
    disk.put(&segment(0), &bytes);
}

/// Checksums are for crashes, not for people: whoever changes an entry can make a new one.
#[test]
fn a_changed_entry_with_a_new_checksum_is_named() {
    let disk = disk();
    let log = create(&disk, options());
    log.fill_one_by_one(4);
    log.writer.close().unwrap();
    change_second_entry(&disk);
    let failures = expect_named(&disk, &segment(0), "change");
    let failure = failures
        .iter()
        .find(|failure| failure.path == segment(0))
        .unwrap();
    assert_eq!(
        (failure.offset, failure.index),
        (Some(4096), Some(1)),
        "{failure}"
    );
    assert!(matches!(
        open(&disk, options()),
        Err(curfew_ledger::OpenError::Corrupt(_))
    ));
}

/// Bytes in the gap after a frame, and after the last frame of a segment that was left.
/// What was hashed when it was handed over is signed only for what is on disk.
#[test]
fn an_entry_changed_before_it_is_signed_is_noticed_at_once() {
    let disk = disk();
    let log = create(&disk, options());
    log.fill_one_by_one(4);
    change_second_entry(&disk);
    let error = log.writer.close().unwrap_err();
    assert!(
        matches!(
            error,
            CloseError::NotPublished(PublishError::Root { size: 2 })
        ),
        "{error}"
    );
}

#[test]
fn bytes_where_nothing_belongs_are_named() {
    let original = log().files()[&segment(0)].clone();
    let gap = (0..original.len() / 4096).map(|block| block * 4096 + 4095);
    let gap = gap
        .clone()
        .find(|at| original[at - 8..=*at].iter().all(|byte| *byte == 0))
        .unwrap();
    for at in [gap, original.len() - 1] {
        let disk = log();
        let mut bytes = original.clone();
        bytes[at] = 1;
        disk.put(&segment(0), &bytes);
        expect_named(&disk, &segment(0), "a stray byte");
    }
    // Four frames of 15 blocks leave four blocks of the first segment empty.
    let disk = disk();
    let log = create(&disk, options());
    for index in 0..5 {
        log.append(&vec![b'w'; 60_000]);
        log.acks.wait_durable(index + 1);
    }
    log.writer.close().unwrap();
    let mut bytes = disk.files()[&segment(0)].clone();
    *bytes.last_mut().unwrap() = 1;
    disk.put(&segment(0), &bytes);
    let failures = expect_named(&disk, &segment(0), "a byte after the last frame");
    assert_eq!(
        (failures[0].offset, failures[0].index),
        (Some(60 * 4096), Some(4))
    );
    assert!(open(&disk, options()).is_err());
}

/// Everything but the signatures is made anew around one changed entry.
#[test]
fn a_log_rewritten_in_all_its_parts_fails_at_the_first_checkpoint_after_the_change() {
    let forged = disk();
    create(&forged, options()).writer.close().unwrap();
    for size in [100, 300, 5_000, 9_990, 10_000] {
        let log = open(&forged, options()).unwrap();
        while log.writer.size() < size {
            let index = log.writer.size();
            let bytes = if index == 4_000 {
                b"nothing happened".to_vec()
            } else {
                entry(index)
            };
            log.append(&bytes);
        }
        log.writer.close().unwrap();
    }
    let real = log().files();
    for name in ["/log/checkpoint", "/log/checkpoints"] {
        forged.put(Path::new(name), &real[Path::new(name)]);
    }
    let failures = check(&forged).unwrap_err();
    let first = &failures[0];
    assert_eq!(
        (first.path.as_path(), first.index),
        (Path::new("/log/checkpoints"), Some(5_000))
    );
    assert!(
        matches!(first.kind, FailureKind::Root { size: 5_000, .. }),
        "{first}"
    );
    // Signed by another hand it does not pass either.
    let key = LogKey::from_seed("example.com/curfew", &[8; 32]).unwrap();
    let disk = disk();
    create(
        &disk,
        Options {
            signer: std::sync::Arc::new(key),
            ..options()
        },
    )
    .writer
    .close()
    .unwrap();
    expect_named(&disk, Path::new("/log/checkpoints"), "a foreign signature");
}

#[test]
fn a_remembered_checkpoint_shows_what_was_cut_or_replaced() {
    let disk = disk();
    let log = create(&disk, options());
    log.fill(40);
    log.writer.close().unwrap();
    let old = disk.copy();
    let log = open(&disk, options()).unwrap();
    log.fill(70);
    let note = {
        log.writer.close().unwrap();
        disk.files()[Path::new("/log/checkpoint")].clone()
    };
    assert_eq!(Checkpoint::verify(&note, &keys()).unwrap().size, 70);
    check_with(&disk, Some(&note)).unwrap();
    // The older copy is whole in itself; only memory tells.
    check(&old).unwrap();
    let failures = check_with(&old, Some(&note)).unwrap_err();
    assert!(
        failures.iter().any(|f| f.kind
            == FailureKind::TooSmall {
                signed: 70,
                size: 40
            }),
        "{failures:?}"
    );
    let log = open(&old, options()).unwrap();
    for _ in 40..75 {
        log.writer.append(b"another history").unwrap();
    }
    log.writer.close().unwrap();
    check(&old).unwrap();
    let failures = check_with(&old, Some(&note)).unwrap_err();
    assert!(
        matches!(failures[0].kind, FailureKind::Root { size: 70, .. }),
        "{failures:?}"
    );
    assert!(check_with(&disk, Some(b"nonsense")).is_err());
}

#[test]
fn what_follows_the_last_entry_is_reported() {
    let last = |disk: &FaultyDisk| {
        let is_segment = |path: &Path| path.extension().is_some();
        let mut files = files(disk).into_iter();
        files.rfind(|(path, _)| is_segment(path)).unwrap()
    };
    let room = |bytes: &[u8]| bytes.len() - used(bytes).next_multiple_of(4096);
    let (disk, mut size) = (log(), 10_000);
    // Now and then the last batch ends where its segment does.
    while room(&last(&disk).1) == 0 {
        size += 1;
        let log = open(&disk, options()).unwrap();
        log.fill(size);
        log.writer.close().unwrap();
    }
    let (path, bytes) = last(&disk);
    assert!(path.to_string_lossy().ends_with(".seg"));
    let mut changed = bytes.clone();
    let end = used(&bytes).next_multiple_of(4096);
    changed[end + 9] = 1;
    disk.put(&path, &changed);
    let torn = check(&disk).unwrap().torn_tail.unwrap();
    assert_eq!(
        (torn.path, torn.offset, torn.len_bytes, torn.index),
        (path, end as u64, 10, size)
    );
}

#[derive(Default)]
struct Seen {
    entries: u64,
    progress: Vec<Progress>,
}

impl Visitor for Seen {
    fn entry(&mut self, index: u64, bytes: &[u8]) {
        assert_eq!((index, bytes), (self.entries, entry(index).as_slice()));
        self.entries += 1;
    }

    fn progress(&mut self, progress: Progress) {
        self.progress.push(progress);
    }
}

#[test]
fn a_visitor_sees_all_entries_in_the_same_pass() {
    let disk: Arc<dyn curfew_ledger::Disk> = Arc::new(log());
    let mut seen = Seen::default();
    let what = Verify {
        dir: Path::new(DIR),
        keys: &keys(),
        remembered: None,
        from: None,
        disk,
    };
    verify(&what, &mut seen).unwrap();
    assert_eq!(seen.entries, 10_000);
    assert!(seen.progress.is_sorted_by(|a, b| a.entries < b.entries));
    let last = seen.progress.last().unwrap();
    assert_eq!((last.entries, last.entries_total), (10_000, 10_000));
}
