//! Another key takes the place of the one that signs, at a log and at whoever verifies it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use curfew_ledger::guarded_signer::{GuardedSigner, SignRefusal};
use curfew_ledger::key_file::KeyFileError;
use curfew_ledger::rotate::{RotateError, begin, complete};
use curfew_ledger::verify::{Failure, FailureKind, Report, Verify, Visitor, verify};
use curfew_ledger::{
    Checkpoint, Disk, KeyFile, LogKey, OpenError, Options, Rotation, VerifiedState, VerifierKey,
};
use curfew_ledger_faults::{Fault, FaultyDisk, Kept, Op};

use crate::common::*;
use crate::rotation_forged::kinds;

pub(crate) const KEY: &str = "/keys/ledger.key";

/// Opens the entry that a statement stands in.
const MARK: &[u8] = b"rotated ";

pub(crate) fn note_of(entry: &[u8]) -> Option<String> {
    String::from_utf8(entry.strip_prefix(MARK)?.to_vec()).ok()
}

pub(crate) fn entry_of(note: &str) -> Vec<u8> {
    [MARK, note.as_bytes()].concat()
}

/// Finds the statements among the entries.
pub(crate) struct Finds;

impl Visitor for Finds {
    fn rotation(&mut self, _index: u64, entry: &[u8]) -> Option<Vec<u8>> {
        note_of(entry).map(String::into_bytes)
    }
}

pub(crate) fn other(seed: u8) -> LogKey {
    LogKey::from_seed("example.com/curfew", &[seed; 32]).unwrap()
}

pub(crate) fn key_file(disk: &FaultyDisk) -> KeyFile {
    KeyFile::open(Arc::new(disk.clone()), Path::new(KEY)).unwrap()
}

pub(crate) fn with(key: KeyFile) -> Options {
    Options {
        signer: Arc::new(key),
        ..options()
    }
}

/// A log of 30 entries in two checkpoints, whose key lies in a file. Its first key.
pub(crate) fn log() -> (FaultyDisk, VerifierKey) {
    let disk = disk();
    disk.create_dir_all(Path::new("/keys")).unwrap();
    LogKey::create_on(&disk, Path::new(KEY), "example.com/curfew").unwrap();
    let key = key_file(&disk);
    let first = key.verifier();
    let log = create(&disk, with(key));
    log.fill(20);
    log.writer.close().unwrap();
    write(&disk, 30);
    (disk, first)
}

/// Goes on up to `size` entries, whatever stands before.
pub(crate) fn write(disk: &FaultyDisk, size: u64) {
    let log = open(disk, with(key_file(disk))).unwrap();
    for index in log.writer.size()..size {
        log.append(&entry(index));
    }
    log.acks
        .wait(|state| size == log.recovered.size || state.sizes.last() == Some(&size));
    log.writer.close().unwrap();
}

/// As `curfew key rotate` does it, from wherever an earlier try has come to.
pub(crate) fn change(disk: &FaultyDisk) -> Result<Rotation, String> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let open = || KeyFile::open(shared.clone(), Path::new(KEY)).map_err(|e| e.to_string());
    let mut key = open()?;
    if key.pending().is_none() {
        key.prepare().map_err(|e| e.to_string())?;
        begin(with(key), shared.clone()).map_err(|e| e.to_string())?;
        key = open()?;
    }
    key.settle().map_err(|e| e.to_string())?;
    let note = key.statement().unwrap().to_owned();
    let done = complete(
        with(key.clone()),
        shared,
        &note,
        &|note, before| {
            assert!(before.is_some());
            entry_of(note)
        },
        &note_of,
    );
    let done = done.map_err(|e| e.to_string())?;
    key.finish().map_err(|e| e.to_string())?;
    Ok(done)
}

pub(crate) fn prove(disk: &FaultyDisk, keys: &[VerifierKey]) -> Result<Report, Vec<Failure>> {
    prove_from(disk, keys, None, None)
}

pub(crate) fn prove_from(
    disk: &FaultyDisk,
    keys: &[VerifierKey],
    remembered: Option<&[u8]>,
    from: Option<&VerifiedState>,
) -> Result<Report, Vec<Failure>> {
    let what = Verify {
        dir: Path::new(DIR),
        keys,
        remembered,
        from,
        disk: Arc::new(disk.clone()),
    };
    verify(&what, &mut Finds)
}

pub(crate) fn checkpoint(disk: &FaultyDisk) -> Vec<u8> {
    disk.files()[Path::new("/log/checkpoint")].clone()
}

/// A log with two rotations: at 30 and at 41. Its three keys.
pub(crate) fn twice() -> (FaultyDisk, [VerifierKey; 3]) {
    let (disk, first) = log();
    let one = change(&disk).unwrap();
    assert_eq!((one.size, &one.old), (30, &first));
    write(&disk, 36);
    write(&disk, 41);
    let two = change(&disk).unwrap();
    assert_eq!((two.size, &two.old), (41, &one.new));
    write(&disk, 50);
    (disk, [first, one.new, two.new])
}

/// The same, of which no more is there than C2SP tlog-tiles.
fn as_tiles(disk: &FaultyDisk) -> FaultyDisk {
    let tiles = disk.copy();
    let all = disk.files();
    let gone =
        |path: &Path| path.starts_with("/log/segments") || path == Path::new("/log/checkpoints");
    for path in all.keys().filter(|path| gone(path)) {
        tiles.delete(path);
    }
    tiles
}

#[test]
fn a_log_goes_on_under_another_key_and_proves_by_any_one_of_them() {
    let (disk, keys) = twice();
    for copy in [disk.clone(), as_tiles(&disk)] {
        for key in &keys {
            let report = prove(&copy, std::slice::from_ref(key)).unwrap();
            assert_eq!((report.size, report.signed.size), (50, 50));
            let seen: Vec<_> = report.keys.rotations().iter().map(|r| r.size).collect();
            assert_eq!(seen, [30, 41]);
            assert_eq!(report.keys.signing(), Some(&keys[2]));
        }
        assert!(prove(&copy, &keys).is_ok());
        let foreign = prove(&copy, &[other(9).verifier()]).unwrap_err();
        assert!(
            kinds(&foreign).contains(&FailureKind::ForeignKeys),
            "{foreign:?}"
        );
    }
    // The newest key alone opens it, and the old ones are gone.
    let names: Vec<_> = disk.files().into_keys().collect();
    let names: Vec<_> = names.iter().filter(|p| p.starts_with("/keys")).collect();
    assert_eq!(
        names,
        [Path::new(KEY), Path::new("/keys/ledger.key.rotation")]
    );
    assert_eq!(disk.permissions(Path::new(KEY)).unwrap() & 0o077, 0);
    assert_eq!(key_file(&disk).verifier(), keys[2]);
}

#[test]
fn what_was_remembered_of_an_earlier_key_still_counts() {
    let (disk, first) = log();
    let (early, verified_state) = (
        checkpoint(&disk),
        prove(&disk, std::slice::from_ref(&first)).unwrap(),
    );
    let verified_state =
        VerifiedState::decode(&verified_state.verified_state.unwrap().encode()).unwrap();
    change(&disk).unwrap();
    let later = checkpoint(&disk);
    write(&disk, 40);
    let new = key_file(&disk).verifier();
    for key in [&first, &new] {
        for remembered in [&early, &later] {
            let keys = std::slice::from_ref(key);
            prove_from(&disk, keys, Some(remembered), None).unwrap();
        }
    }
    // From the verified state on, by the key it was made with; and then by either.
    let report = prove_from(
        &disk,
        std::slice::from_ref(&first),
        None,
        Some(&verified_state),
    )
    .unwrap();
    let verified_state = VerifiedState::decode(&report.verified_state.unwrap().encode()).unwrap();
    write(&disk, 45);
    for key in [&first, &new] {
        let report = prove_from(
            &disk,
            std::slice::from_ref(key),
            None,
            Some(&verified_state),
        )
        .unwrap();
        assert_eq!((report.size, report.keys.rotations().len()), (45, 1));
    }
    let foreign = prove_from(&disk, &[other(9).verifier()], None, Some(&verified_state));
    assert!(foreign.is_err());
}

#[test]
fn a_running_log_keeps_its_key() {
    let (disk, _) = log();
    let running = open(&disk, with(key_file(&disk))).unwrap();
    key_file(&disk).prepare().unwrap();
    let refused = begin(with(key_file(&disk)), Arc::new(disk.clone()));
    let locked = matches!(refused, Err(RotateError::Open(OpenError::Locked { .. })));
    assert!(locked, "{refused:?}");
    running.writer.close().unwrap();
    assert!(key_file(&disk).statement().is_none());
    // Nor is one changed that has written nothing.
    let empty = self::disk();
    empty.create_dir_all(Path::new("/keys")).unwrap();
    LogKey::create_on(&empty, Path::new(KEY), "example.com/curfew").unwrap();
    create(&empty, with(key_file(&empty)))
        .writer
        .close()
        .unwrap();
    key_file(&empty).prepare().unwrap();
    let refused = begin(with(key_file(&empty)), Arc::new(empty.clone()));
    assert!(matches!(refused, Err(RotateError::Empty)), "{refused:?}");
}

#[test]
fn keys_that_do_not_belong_together_are_not_used() {
    let (disk, _) = log();
    let path = Path::new(KEY);
    let old = disk.files()[path].clone();
    change(&disk).unwrap();
    write(&disk, 40);
    // A copy of the old key that was put back.
    disk.delete(path);
    disk.put_secret(path, &old);
    let refused = KeyFile::open(Arc::new(disk.clone()), path);
    assert!(
        matches!(refused, Err(KeyFileError::Retired { size: 30, .. })),
        "{refused:?}"
    );
}

#[test]
fn a_copy_that_went_on_by_itself_is_not_signed_by_the_new_key() {
    let (disk, _) = log();
    let before = disk.copy();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    key_file(&disk).prepare().unwrap();
    begin(with(key_file(&disk)), shared).unwrap();
    let note = key_file(&disk).statement().unwrap().to_owned();
    write(&before, 33);
    let newest = checkpoint(&before);
    let both = Options {
        signer: Arc::new(key_file(&disk)),
        ..options()
    };
    let refused = complete(
        both,
        Arc::new(before.clone()),
        &note,
        &|note, _| entry_of(note),
        &note_of,
    );
    assert!(
        matches!(refused, Err(RotateError::WentOn { size: 30 })),
        "{refused:?}"
    );
    assert_eq!(checkpoint(&before), newest);
}

/// Each operation on the disk fails in each way, or the process dies there; the power is cut or not; and
/// then the same is asked again, and the log goes on.
#[test]
fn a_rotation_cut_short_anywhere_leaves_a_log_that_opens_and_goes_on() {
    let (start, first) = log();
    let ops = Arc::new(Mutex::new(Vec::new()));
    let counted = start.copy();
    let counter = ops.clone();
    counted.set_plan(move |op| {
        if !matches!(op, Op::Read(_)) {
            counter.lock().unwrap().push(op.clone());
        }
        None
    });
    change(&counted).unwrap();
    let ops = ops.lock().unwrap().clone();
    assert!(ops.len() > 40, "{ops:?}");
    let eio = std::io::ErrorKind::Other;
    let mut unfinished = 0;
    for (at, op) in ops.iter().enumerate() {
        let mut faults = vec![Fault::Fail(eio), Fault::FailAfter(eio)];
        match op {
            Op::Sync(_) => faults.push(Fault::Lose(eio)),
            Op::Write(..) => faults.push(Fault::Torn(9, eio)),
            _ => {}
        }
        for fault in faults {
            for dies in [false, true] {
                let disk = start.copy();
                let mut seen = 0;
                disk.set_plan(move |op| {
                    if matches!(op, Op::Read(_)) {
                        return None;
                    }
                    seen += 1;
                    if seen == at + 1 {
                        return Some(fault);
                    }
                    (dies && seen > at).then_some(Fault::Fail(eio))
                });
                let _ = change(&disk);
                disk.clear_plan();
                for kept in [
                    None,
                    Some(Kept::All),
                    Some(Kept::Nothing),
                    Some(Kept::Some(at as u64)),
                ] {
                    let case =
                        || format!("operation {at}, {op:?}, {fault:?}, dies {dies}, {kept:?}");
                    let after = kept.map_or_else(|| disk.copy(), |kept| disk.after_power_cut(kept));
                    let key = KeyFile::open(Arc::new(after.clone()), Path::new(KEY));
                    let key = key.unwrap_or_else(|error| panic!("{}: {error}", case()));
                    unfinished += u32::from(key.pending().is_some());
                    // It opens as it is, by whatever key is there.
                    let opened = open(&after.copy(), with(key));
                    opened.unwrap_or_else(|error| panic!("{}: {error}", case()));
                    let again = change(&after);
                    again.unwrap_or_else(|error| panic!("{}: again: {error}", case()));
                    write(&after, 40);
                    let newest = key_file(&after).verifier();
                    for key in [&first, &newest] {
                        let report = prove(&after, std::slice::from_ref(key));
                        report.unwrap_or_else(|error| panic!("{}: {error:?}", case()));
                    }
                }
            }
        }
    }
    assert!(unfinished > 20, "{unfinished}");
}

const STATE: &str = "/keys/ledger.key.signed";

#[test]
fn a_guarded_signer_changes_its_key_after_what_it_signed_last_and_at_no_other_place() {
    let (disk, first) = log();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let newest = checkpoint(&disk);
    let seed = LogKey::from_seed("example.com/curfew", &[1; 32]).unwrap();
    assert!(GuardedSigner::create(&disk, Path::new(STATE), &seed, Some(&newest)).is_err());
    disk.put_secret(Path::new(STATE), &newest);
    let open = || GuardedSigner::open(shared.clone(), Path::new(STATE), key_file(&disk)).unwrap();
    let at = Checkpoint::verify(&newest, std::slice::from_ref(&first)).unwrap();
    let signer = open();
    // Nobody made a key.
    let refused = signer.rotate(&at.to_string());
    assert!(matches!(
        refused,
        Err(SignRefusal::Key(KeyFileError::NotPrepared { .. }))
    ));
    let new = key_file(&disk).prepare().unwrap();
    let elsewhere = Checkpoint {
        size: 29,
        ..at.clone()
    };
    let refused = signer.rotate(&elsewhere.to_string());
    assert!(matches!(refused, Err(SignRefusal::NotLast { signed: 30 })));
    let note = signer.rotate(&at.to_string()).unwrap();
    assert_eq!(Rotation::verify(note.as_bytes()).unwrap().new, new);
    // It says the same again, over a restart too, and names the new key.
    assert_eq!(signer.rotate(&at.to_string()).unwrap(), note);
    drop(signer);
    let signer = open();
    assert_eq!(signer.rotate(&at.to_string()).unwrap(), note);
    assert_eq!(
        (signer.verifier(), signer.rotation()),
        (new.clone(), Some(note.clone()))
    );
    // What was signed is still the old key's, and what follows is the new one's, which is then alone.
    let again = signer.sign(&at.to_string(), 30, &[]).unwrap();
    assert!(Checkpoint::verify(again.as_bytes(), &[first]).is_ok());
    let copy = disk.copy();
    let log = crate::common::open(&copy, with(key_file(&copy))).unwrap();
    log.append(&entry_of(&note));
    log.acks.wait_durable(31);
    log.writer.close().unwrap();
    let next = Checkpoint::verify(&checkpoint(&copy), std::slice::from_ref(&new)).unwrap();
    let reader = curfew_ledger::LogReader::open_on(Path::new(DIR), Arc::new(copy)).unwrap();
    let proof = reader.consistency_proof(30, 31).unwrap();
    let signed = signer.sign(&next.to_string(), 30, &proof).unwrap();
    assert!(Checkpoint::verify(signed.as_bytes(), std::slice::from_ref(&new)).is_ok());
    drop(signer);
    assert!(
        !disk
            .files()
            .contains_key(Path::new("/keys/ledger.key.next"))
    );
    let signer = open();
    assert_eq!((signer.verifier(), signer.size()), (new, 31));
}
