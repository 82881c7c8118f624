//! Pruning: entries go, and whoever reads, proves or continues the log does not lose its thread.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use curfew_ledger::merkle::{leaf_hash, verify_consistency, verify_inclusion};
use curfew_ledger::verify::{Report, Verify, verify};
use curfew_ledger::{
    Checkpoint, Disk, KeyChain, LogReader, OpenError, Options, Prunable, PruneError, PrunePoint,
    Published, ReadError, Rotation, Signer, VerifiedState,
};
use curfew_ledger_faults::{Fault, FaultyDisk, Kept};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::common::*;
use crate::rotation::{entry_of, other, prove};
use crate::rotation_forged::{Both, without};
use crate::seal::{published, reader, sealing, wait_sealed};

/// A log of 24,000 entries, sealed as far as can be, with a checkpoint at each 2,000 at
/// least.
fn sealed() -> FaultyDisk {
    let disk = disk();
    let log = create(&disk, sealing());
    for size in (2_000..=24_000).step_by(2_000) {
        log.fill(size);
        published(&log, size);
    }
    wait_sealed(&disk);
    log.writer.close().unwrap();
    disk
}

fn prune_point(disk: &FaultyDisk) -> Option<PrunePoint> {
    PrunePoint::read(disk, Path::new(DIR)).unwrap()
}

/// What stands for the first entries, up to a checkpoint that covers at most `most`.
fn made(disk: &FaultyDisk, most: u64) -> Option<PrunePoint> {
    made_by(disk, most, &KeyChain::new(&keys()))
}

fn made_by(disk: &FaultyDisk, most: u64, keys: &KeyChain) -> Option<PrunePoint> {
    let (at, earlier): (Arc<dyn Disk>, _) = (Arc::new(disk.clone()), prune_point(disk));
    let log = Prunable {
        dir: Path::new(DIR),
        disk: &at,
        keys,
        prune_point: earlier.as_ref(),
    };
    let place = log.checkpoint(most).unwrap()?;
    let mut next = earlier.as_ref().map_or(0, PrunePoint::size);
    let verified_state = log.advance(&place, |index, bytes| {
        assert!(bytes == entry(index) || bytes.starts_with(b"rotated "));
        assert_eq!(index, next);
        next += 1;
        true
    });
    assert_eq!(next, place.size());
    let state = format!("what there was up to {next}\nand more");
    Some(PrunePoint::new(
        verified_state.unwrap(),
        earlier.as_ref(),
        state.into(),
    ))
}

/// Prunes at most so many entries, and gives how many.
fn prune(disk: &FaultyDisk, most: u64) -> u64 {
    let prune_point = made(disk, most).unwrap();
    prune_point.put(disk, Path::new(DIR)).unwrap();
    prune_point.clear(disk, Path::new(DIR)).unwrap();
    prune_point.size()
}

fn bundles(disk: &FaultyDisk) -> Vec<PathBuf> {
    let entries = Path::new("/log/tile/entries");
    let files = disk.files().into_keys();
    files.filter(|path| path.starts_with(entries)).collect()
}

fn from(
    disk: &FaultyDisk,
    from: &VerifiedState,
) -> Result<Report, Vec<curfew_ledger::verify::Failure>> {
    let keys = keys();
    let what = Verify {
        dir: Path::new(DIR),
        keys: &keys,
        remembered: None,
        from: Some(from),
        disk: Arc::new(disk.clone()),
    };
    verify(&what, &mut ())
}

fn note(disk: &FaultyDisk, size: u64) -> Vec<u8> {
    let text = String::from_utf8(disk.files()[Path::new("/log/checkpoints")].clone()).unwrap();
    let notes = text.split("checkpoint ").skip(1);
    let mut notes = notes.map(|record| record.split_once('\n').unwrap().1.as_bytes().to_vec());
    let covers = |note: &Vec<u8>| Checkpoint::verify(note, &keys()).unwrap().size == size;
    notes.find(covers).unwrap()
}

#[test]
fn a_pruned_log_reads_verifies_proves_and_goes_on() {
    let disk = sealed();
    let whole = bundles(&disk).len();
    let old = Checkpoint::verify(&note(&disk, 2_000), &keys()).unwrap();
    let first = prune(&disk, 9_000);
    assert!((8_000..=9_000).contains(&first), "{first}");
    assert_eq!(bundles(&disk).len(), whole - first as usize / 256);

    let report = check(&disk).unwrap();
    assert_eq!((report.size, report.pruned), (24_000, first));
    let log = reader(&disk);
    assert_eq!(log.first(), first);
    assert_eq!(log.entry(first).unwrap(), entry(first));
    for gone in [log.entry(17), log.fetch().unwrap().entry(17, None)] {
        let Err(ReadError::Pruned {
            index: 17,
            first: told,
        }) = gone
        else {
            panic!("{gone:?}");
        };
        assert_eq!(told, first);
    }
    let left: Vec<_> = log.range(0..24_000).map(Result::unwrap).collect();
    assert_eq!(left.len() as u64, 24_000 - first);
    assert_eq!(left[0], (first, entry(first)));

    // Who still has an entry that is gone here, can have it proven.
    let proof = log.inclusion_proof(17, 24_000).unwrap();
    verify_inclusion(&leaf_hash(&entry(17)), 17, 24_000, &proof, &report.root).unwrap();
    let proof = log.consistency_proof(2_000, 24_000).unwrap();
    verify_consistency(2_000, 24_000, &proof, &old.root, &report.root).unwrap();
    let published = Published::new_on(Path::new(DIR), Arc::new(disk.clone()));
    assert_eq!(published.root(2_000).unwrap(), old.root);

    let opened = open(&disk, sealing()).unwrap();
    let recovered: Vec<_> = opened.recovered.entries().map(Result::unwrap).collect();
    assert_eq!(recovered[0].0, first);
    assert_eq!(recovered.len() as u64, 24_000 - first);
    let kept = opened.recovered.prune_point.as_ref().unwrap();
    let state = format!("what there was up to {first}\nand more");
    assert_eq!(kept.state(), state.as_bytes());
    opened.fill(50_000);
    published_and_sealed(&opened, &disk);
    opened.writer.close().unwrap();
    let next = prune(&disk, 30_000);
    assert!(next >= 24_000, "{next}");
    let report = check(&disk).unwrap();
    assert_eq!((report.size, report.pruned), (50_000, next));
    open(&disk, sealing()).unwrap();
}

fn published_and_sealed(log: &Log, disk: &FaultyDisk) {
    published(log, 50_000);
    wait_sealed(disk);
}

#[test]
fn only_what_is_sealed_and_signed_goes_and_only_as_its_owner_says() {
    let disk = sealed();
    let sealed = crate::seal::segments(&disk)[0];
    let most = made(&disk, u64::MAX).unwrap().size();
    assert!(most <= sealed && most > 0, "{most} of {sealed}");
    let first = prune(&disk, 2_000);
    assert!(made(&disk, first).is_none());

    let (at, keys): (Arc<dyn Disk>, _) = (Arc::new(disk.clone()), KeyChain::new(&keys()));
    let kept = prune_point(&disk);
    let log = Prunable {
        dir: Path::new(DIR),
        disk: &at,
        keys: &keys,
        prune_point: kept.as_ref(),
    };
    let place = log.checkpoint(6_000).unwrap().unwrap();
    let refused = log.advance(&place, |index, _| index != 3_000);
    assert!(matches!(refused, Err(PruneError::Refused { index: 3_000 })));
    // An entry that is not the one that was signed.
    let path = Path::new("/log/tile/entries/009");
    let mut bytes = disk.files()[path].clone();
    bytes[10] ^= 1;
    disk.put(path, &bytes);
    log.advance(&place, |_, _| true).unwrap_err();
    // A checkpoint that is not signed.
    let other = curfew_ledger::LogKey::from_seed("example.com/curfew", &[8; 32]).unwrap();
    let keys = KeyChain::new(&[other.verifier()]);
    let log = Prunable { keys: &keys, ..log };
    assert!(matches!(log.checkpoint(6_000), Err(PruneError::Note(_))));
}

#[test]
fn what_was_verified_or_remembered_before_is_gone_on_from() {
    let disk = sealed();
    let remembered = note(&disk, 2_000);
    let early = made(&disk, 4_000).unwrap().verified_state().clone();
    let late = check(&disk).unwrap().verified_state.unwrap();
    let first = prune(&disk, 9_000);
    check_with(&disk, Some(&remembered)).unwrap();
    check_with(&disk, Some(&note(&disk, 12_000))).unwrap();
    assert_eq!(from(&disk, &early).unwrap().pruned, first);
    assert_eq!(from(&disk, &late).unwrap().pruned, first);

    // Another log by the same key, of which the beginning cannot be read any more.
    let other = crate::common::disk();
    let log = create(&other, sealing());
    log.append(b"something else");
    let forked = published(&log, 1);
    log.writer.close().unwrap();
    let failures = check_with(&disk, Some(forked.as_bytes())).unwrap_err();
    assert!(
        failures[0].to_string().contains("does not go on"),
        "{failures:?}"
    );
}

#[test]
fn what_stands_for_the_pruned_part_cannot_be_changed_unseen() {
    let base = sealed();
    let digest = {
        let prune_point = made(&base, 9_000).unwrap();
        prune_point.put(&base, Path::new(DIR)).unwrap();
        prune_point.clear(&base, Path::new(DIR)).unwrap();
        prune_point.digest()
    };
    let path = Path::new("/log/horizon");
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let disk = base.copy();
        let mut bytes = disk.files()[path].clone();
        change(&mut bytes);
        disk.put(path, &bytes);
        disk
    };
    // The state is the writer's: an entry names its digest.
    let disk = changed(&|bytes| *bytes.last_mut().unwrap() ^= 1);
    assert_ne!(prune_point(&disk).unwrap().digest(), digest);
    // A hash within, a size, a part that is missing.
    let line = base.files()[path].iter().position(|b| *b == b'\n').unwrap();
    let end = line
        + 1
        + base.files()[path][line + 1..]
            .iter()
            .position(|b| *b == b'\n')
            .unwrap();
    for disk in [
        changed(&|bytes| bytes[end - 40] = if bytes[end - 40] == b'A' { b'B' } else { b'A' }),
        changed(&|bytes| bytes[17] ^= 1),
        changed(&|bytes| bytes.truncate(line)),
        changed(&Vec::clear),
    ] {
        check(&disk).unwrap_err();
        open(&disk, sealing()).map(|_| ()).unwrap_err();
    }
    let disk = base.copy();
    disk.delete(path);
    check(&disk).unwrap_err();
    // Hashes of what was pruned, of either level.
    for tile in ["/log/tile/0/003", "/log/tile/1/000.p/93"] {
        let disk = base.copy();
        let Some(mut bytes) = disk.files().get(Path::new(tile)).cloned() else {
            continue;
        };
        bytes[100] ^= 1;
        disk.put(Path::new(tile), &bytes);
        check(&disk).unwrap_err();
    }
    check(&base).unwrap();
}

#[test]
fn a_prune_point_past_what_is_sealed_is_refused() {
    let disk = sealed();
    prune(&disk, u64::MAX);
    let ahead = disk.files()[Path::new("/log/horizon")].clone();
    let unsealed = crate::seal::unsealed(24_000);
    unsealed.put(Path::new("/log/horizon"), &ahead);
    let opened = open(
        &unsealed,
        Options {
            segments_kept: usize::MAX,
            ..sealing()
        },
    );
    let Err(OpenError::PrunePoint { problem, .. }) = opened.map(|_| ()) else {
        panic!("it was opened");
    };
    assert!(problem.contains("sealed up to 0"), "{problem}");
}

#[test]
fn wherever_it_is_cut_short_there_are_all_entries_or_a_prune_point() {
    let base = sealed();
    let made = made(&base, 9_000).unwrap();
    let operations = {
        let (disk, count) = (base.copy(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&count);
        disk.set_plan(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            None
        });
        made.put(&disk, Path::new(DIR)).unwrap();
        made.clear(&disk, Path::new(DIR)).unwrap();
        count.load(Ordering::SeqCst)
    };
    assert!(operations > 30, "{operations}");
    let mut pruned = 0;
    for last in 0..operations {
        for (seed, fault) in
            (0..).zip([Fault::Fail(ErrorKind::Other), Fault::Lose(ErrorKind::Other)])
        {
            let disk = base.copy();
            let mut count = 0;
            disk.set_plan(move |_| {
                count += 1;
                (count > last).then_some(fault)
            });
            let put = made.put(&disk, Path::new(DIR));
            let _ = put.and_then(|()| made.clear(&disk, Path::new(DIR)));
            disk.clear_plan();
            for disk in [
                disk.after_power_cut(Kept::Nothing),
                disk.after_crash(seed + last as u64),
            ] {
                let log = open(&disk, sealing()).unwrap();
                let first = log
                    .recovered
                    .prune_point
                    .as_ref()
                    .map_or(0, PrunePoint::size);
                log.writer.close().unwrap();
                assert_eq!(check(&disk).unwrap().pruned, first);
                assert_eq!(
                    LogReader::open_on(Path::new(DIR), Arc::new(disk.clone()))
                        .unwrap()
                        .range(0..24_000)
                        .count() as u64,
                    24_000 - first
                );
                pruned += u64::from(first > 0);
                if let Some(prune_point) = prune_point(&disk) {
                    prune_point.clear(&disk, Path::new(DIR)).unwrap();
                    assert!(!bundles(&disk).contains(&PathBuf::from("/log/tile/entries/030")));
                }
            }
        }
    }
    assert!(pruned > operations as u64, "{pruned}");
}

#[test]
fn a_log_whose_key_was_changed_is_pruned_before_and_after_that() {
    let disk = sealed();
    let new = other(8);
    let at = Checkpoint::verify(&note(&disk, 24_000), &keys()).unwrap();
    let said = Rotation::sign(&at, &key(), &new).unwrap();
    let by_new = |disk: &FaultyDisk, signer: Arc<dyn Signer>| {
        let log = open(
            disk,
            Options {
                signer,
                ..sealing()
            },
        );
        log.unwrap()
    };
    let log = by_new(&disk, Arc::new(Both(new.clone())));
    log.append(&entry_of(&said));
    for index in 24_001..50_000 {
        log.append(&entry(index));
        if index % 2_000 == 0 {
            log.acks.wait_durable(index);
            let covers = |note: &String| note.contains(&format!("\n{}\n", index + 1));
            log.acks.wait(|state| {
                state.published.iter().any(covers) || state.up_to_date.contains(&(index + 1))
            });
        }
    }
    log.acks.wait_durable(50_000);
    wait_sealed(&disk);
    log.writer.close().unwrap();
    let chain = KeyChain::of(&[new.verifier()], [said.as_str()]).unwrap();
    for (most, told) in [(9_000, 0), (40_000, 1)] {
        let prune_point = made_by(&disk, most, &chain).unwrap();
        assert_eq!(prune_point.verified_state().statements().len(), told);
        prune_point.put(&disk, Path::new(DIR)).unwrap();
        prune_point.clear(&disk, Path::new(DIR)).unwrap();
        for key in [key().verifier(), new.verifier()] {
            let report = prove(&disk, &[key]).unwrap();
            assert_eq!((report.size, report.pruned), (50_000, prune_point.size()));
            assert_eq!(report.keys.rotations().len(), 1);
        }
        assert!(prove(&disk, &[other(9).verifier()]).is_err());
        by_new(&disk, Arc::new(new.clone())).writer.close().unwrap();
    }
    // A prune point that names a key which nobody handed the log over to.
    let path = Path::new("/log/horizon");
    let whole = String::from_utf8(disk.files()[path].clone()).unwrap();
    let line = whole.lines().nth(1).unwrap();
    let text = Rotation::sign(&at, &key(), &other(9)).unwrap();
    let bad = without(&text, &key().verifier());
    assert_ne!(bad, text);
    let bytes = STANDARD.decode(line).unwrap();
    let from = bytes
        .windows(said.len())
        .position(|part| part == said.as_bytes())
        .unwrap();
    let length = (bad.len() as u64).to_be_bytes();
    let forged = [
        &bytes[..from - 8],
        &length,
        bad.as_bytes(),
        &bytes[from + said.len()..],
    ]
    .concat();
    disk.put(
        path,
        whole.replace(line, &STANDARD.encode(forged)).as_bytes(),
    );
    assert!(prove(&disk, &[key().verifier()]).is_err());
}
