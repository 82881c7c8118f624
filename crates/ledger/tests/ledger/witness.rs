//! A witness cosigns what goes on from what it cosigned, and nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use curfew_ledger::merkle::{CompactTree, Nodes, consistency_proof, leaf_hash, node_hash};
use curfew_ledger::signer::Extends;
use curfew_ledger::witness::{AddError, WitnessError, cosigned, file_name, request, told_size};
use curfew_ledger::{Checkpoint, CosignerKey, Disk, Hash, LogKey, ReadError, Signer, Witness};
use curfew_ledger_faults::{Fault, FaultyDisk, Op};

const DIR: &str = "/witness";
const ORIGIN: &str = "example.com/curfew";
const NOW: u64 = 1_780_000_000;

/// A history: the leaves of a log.
struct History(Vec<Hash>);

impl Nodes for History {
    type Error = std::convert::Infallible;

    fn node(&mut self, height: u32, index: u64) -> Result<Hash, Self::Error> {
        if height == 0 {
            return Ok(self.0[index as usize]);
        }
        let left = self.node(height - 1, index * 2)?;
        let right = self.node(height - 1, index * 2 + 1)?;
        Ok(node_hash(&left, &right))
    }
}

struct NoProof;

impl Extends for NoProof {
    fn consistency_proof(&self, _size: u64) -> Result<Vec<Hash>, ReadError> {
        Ok(Vec::new())
    }
}

impl History {
    /// 300 entries, which differ from the true ones from `fork` on.
    fn new(fork: u64) -> History {
        let leaf = |index| match index {
            index if index < fork => leaf_hash(format!("entry {index}").as_bytes()),
            index => leaf_hash(format!("other {index}").as_bytes()),
        };
        History((0..300).map(leaf).collect())
    }

    fn checkpoint(&self, size: u64) -> Checkpoint {
        let mut tree = CompactTree::new();
        self.0
            .iter()
            .take(size as usize)
            .for_each(|l| tree.push(*l));
        Checkpoint {
            origin: ORIGIN.to_owned(),
            size,
            root: tree.root(),
        }
    }

    fn note(&self, size: u64) -> String {
        log_key()
            .sign_checkpoint(&self.checkpoint(size), &NoProof)
            .unwrap()
    }

    fn ask(&mut self, old: u64, size: u64) -> String {
        let proof = if old == 0 {
            Vec::new()
        } else {
            consistency_proof(self, old, size)
                .unwrap()
                .unwrap_or_default()
        };
        request(old, &proof, &self.note(size))
    }
}

fn log_key() -> LogKey {
    LogKey::from_seed(ORIGIN, &[7; 32]).unwrap()
}

fn state() -> PathBuf {
    Path::new(DIR).join("logs").join(file_name(ORIGIN))
}

fn made() -> (FaultyDisk, Vec<CosignerKey>) {
    let disk = FaultyDisk::new();
    let keys = Witness::create(&disk, Path::new(DIR), "witness.example").unwrap();
    assert!(Witness::trust(&disk, Path::new(DIR), &log_key().verifier()).unwrap());
    (disk, keys)
}

fn open(disk: &FaultyDisk) -> Witness {
    Witness::open(Arc::new(disk.clone()), Path::new(DIR)).unwrap()
}

#[track_caller]
fn status(witness: &Witness, body: &str) -> u16 {
    witness
        .add_checkpoint(body.as_bytes(), NOW)
        .unwrap_err()
        .status()
}

#[test]
fn it_cosigns_by_both_its_keys_what_goes_on() {
    let (disk, keys) = made();
    let witness = open(&disk);
    let mut log = History::new(300);
    assert_eq!(witness.checkpoint(&file_name(ORIGIN)), None);
    for (old, size) in [(0, 0), (0, 1), (1, 200), (200, 200), (200, 256), (256, 300)] {
        let answer = witness
            .add_checkpoint(log.ask(old, size).as_bytes(), NOW + size)
            .unwrap();
        assert_eq!(answer.lines().count(), keys.len());
        for key in &keys {
            let (line, seconds) = cosigned(key, &log.note(size), &answer).unwrap();
            assert!(answer.contains(&line));
            assert_eq!(seconds, NOW + size);
        }
        // Monitors get it with all signatures.
        let kept = witness.checkpoint(&file_name(ORIGIN)).unwrap();
        assert_eq!(kept, format!("{}{answer}", log.note(size)));
    }
    assert_eq!(witness.logs().collect::<Vec<_>>(), [(ORIGIN, 300)]);
}

#[test]
fn forks_rollbacks_and_strangers_get_the_status_of_the_specification() {
    let (disk, _) = made();
    let witness = open(&disk);
    let (mut log, mut fork) = (History::new(300), History::new(150));
    witness
        .add_checkpoint(log.ask(0, 200).as_bytes(), NOW)
        .unwrap();

    // Another history: from a shared start, at the same size, and from its own start.
    assert_eq!(status(&witness, &fork.ask(200, 300)), 422);
    assert_eq!(status(&witness, &fork.ask(200, 200)), 422);
    assert_eq!(status(&witness, &fork.ask(0, 300)), 409);
    // A rollback, and a proof from elsewhere.
    for (old, size) in [(0, 200), (0, 100), (100, 100), (199, 300), (300, 300)] {
        let error = witness
            .add_checkpoint(log.ask(old, size).as_bytes(), NOW)
            .unwrap_err();
        assert!(
            matches!(error, AddError::Elsewhere { size: 200 }),
            "{error}"
        );
        assert_eq!(error.status(), 409);
    }
    assert_eq!(status(&witness, &log.ask(200, 199)), 400);
    // No proof, too much of one, a wrong one.
    let note = log.note(300);
    let proof = consistency_proof(&mut log, 200, 300).unwrap().unwrap();
    let more = [&proof[..], &proof[..1]].concat();
    for wrong in [&[][..], &more, &proof[1..]] {
        assert_eq!(status(&witness, &request(200, wrong, &note)), 422);
    }
    // Keys and logs that are not known; a known key under another's signature.
    let other = note.replace(ORIGIN, "example.com/other");
    assert_eq!(status(&witness, &request(200, &proof, &other)), 404);
    let stranger = LogKey::from_seed(ORIGIN, &[8; 32]).unwrap();
    let foreign = stranger
        .sign_checkpoint(&log.checkpoint(300), &NoProof)
        .unwrap();
    let body = request(200, &proof, &foreign);
    assert_eq!(status(&witness, &body), 403);
    let told = witness.add_checkpoint(body.as_bytes(), NOW).unwrap_err();
    assert!(told.to_string().contains("must be told of it"), "{told}");
    let altered = note.replacen("\n300\n", "\n301\n", 1);
    assert_eq!(status(&witness, &request(200, &proof, &altered)), 403);
    // Nothing of this moved it.
    assert!(
        witness
            .add_checkpoint(log.ask(200, 300).as_bytes(), NOW)
            .is_ok()
    );
}

#[test]
fn an_empty_log_has_one_root() {
    let (disk, _) = made();
    let witness = open(&disk);
    let mut wrong = History::new(300).checkpoint(0);
    wrong.root = leaf_hash(b"");
    let note = log_key().sign_checkpoint(&wrong, &NoProof).unwrap();
    assert_eq!(status(&witness, &request(0, &[], &note)), 422);
    // A proof from nothing proves nothing.
    let note = History::new(300).note(3);
    assert_eq!(status(&witness, &request(0, &[wrong.root], &note)), 422);
}

#[test]
fn what_is_no_request_is_told_so() {
    let (disk, _) = made();
    let witness = open(&disk);
    let good = History::new(300).ask(0, 3);
    let line = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    for body in [
        String::new(),
        "old 0\n".to_owned(),
        good.replacen("old 0", "old 00", 1),
        good.replacen("old 0", "old +0", 1),
        good.replacen("old 0", "old -1", 1),
        good.replacen("old 0", "old  0", 1),
        good.replacen("old 0", "new 0", 1),
        good.replacen("old 0\n", "old 0\r\n", 1),
        good.replacen("old 0\n", "old 18446744073709551616\n", 1),
        good.replacen("old 0\n", "old 0\nAAAA\n", 1),
        good.replacen(
            "old 0\n",
            &format!("old 0\n{}", line.replace("A=", "B=")),
            1,
        ),
        good.replacen("old 0\n", &format!("old 0\n{}", line.repeat(64)), 1),
        good.replacen("\n\n", "\n", 1),
        good.replace('\u{2014}', "-"),
        good.trim_end().to_owned(),
        good.replacen("\n3\n", "\n03\n", 1),
        format!("{good}{}", "x".repeat(64 * 1024)),
    ] {
        assert_eq!(status(&witness, &body), 400, "{body}");
    }
    let most = good.replacen("old 0\n", &format!("old 0\n{}", line.repeat(63)), 1);
    assert_eq!(status(&witness, &most), 422);
    assert!(witness.add_checkpoint(good.as_bytes(), NOW).is_ok());
    assert_eq!(told_size(b"200\n"), Some(200));
    for wrong in [&b"200"[..], b"0200\n", b"200\n\n", b"", b"\n", b"+1\n"] {
        assert_eq!(told_size(wrong), None);
    }
}

#[test]
fn it_remembers_over_restarts_and_takes_further_keys() {
    let (disk, _) = made();
    let (mut log, mut fork) = (History::new(300), History::new(0));
    {
        let witness = open(&disk);
        witness
            .add_checkpoint(log.ask(0, 200).as_bytes(), NOW)
            .unwrap();
        let second = Witness::open(Arc::new(disk.clone()), Path::new(DIR));
        assert!(matches!(second, Err(WitnessError::Locked { .. })));
    }
    let files = disk.files();
    assert_eq!(
        disk.permissions(&Path::new(DIR).join("witness.key"))
            .unwrap(),
        0o600
    );
    let next = LogKey::from_seed(ORIGIN, &[9; 32]).unwrap();
    assert!(Witness::trust(&disk, Path::new(DIR), &next.verifier()).unwrap());
    assert!(!Witness::trust(&disk, Path::new(DIR), &next.verifier()).unwrap());
    {
        let witness = open(&disk);
        assert_eq!(status(&witness, &fork.ask(0, 300)), 409);
        let note = next
            .sign_checkpoint(&log.checkpoint(300), &NoProof)
            .unwrap();
        let proof = consistency_proof(&mut log, 200, 300).unwrap().unwrap();
        let body = request(200, &proof, &note);
        assert!(witness.add_checkpoint(body.as_bytes(), NOW).is_ok());
    }
    // A log whose file is gone is unknown, not new; one that was altered stops the witness.
    disk.delete(&state());
    assert_eq!(status(&open(&disk), &fork.ask(0, 300)), 404);
    let text = String::from_utf8(files[&state()].clone()).unwrap();
    disk.put(&state(), text.replacen("\n200\n", "\n100\n", 1).as_bytes());
    let altered = Witness::open(Arc::new(disk.clone()), Path::new(DIR));
    assert!(matches!(altered, Err(WitnessError::State { .. })));
}

#[test]
fn a_key_that_was_withdrawn_leads_nowhere_and_its_successor_goes_on() {
    let (disk, _) = made();
    let dir = Path::new(DIR);
    let (mut log, first) = (History::new(300), log_key().verifier());
    let next = LogKey::from_seed(ORIGIN, &[9; 32]).unwrap();
    let (body, going_on) = (log.ask(0, 200), log.ask(200, 256));
    open(&disk).add_checkpoint(body.as_bytes(), NOW).unwrap();
    // Without another key the log would be known by none.
    let only = Witness::distrust(&disk, dir, &first);
    assert!(matches!(only, Err(WitnessError::OnlyKey(_))), "{only:?}");
    let unknown = Witness::distrust(&disk, dir, &next.verifier());
    assert!(
        matches!(unknown, Err(WitnessError::NotTrusted(_))),
        "{unknown:?}"
    );
    let other = LogKey::from_seed("example.com/other", &[9; 32]).unwrap();
    let unknown = Witness::distrust(&disk, dir, &other.verifier());
    assert!(
        matches!(unknown, Err(WitnessError::NotTrusted(_))),
        "{unknown:?}"
    );
    assert!(Witness::trust(&disk, dir, &next.verifier()).unwrap());
    {
        let witness = open(&disk);
        let serving = Witness::distrust(&disk, dir, &first);
        assert!(matches!(serving, Err(WitnessError::Locked { .. })));
        drop(witness);
    }
    assert!(Witness::distrust(&disk, dir, &first).unwrap());
    assert!(!Witness::distrust(&disk, dir, &first).unwrap());

    // What is kept is signed by the withdrawn key alone, and is gone on from all the same.
    let witness = open(&disk);
    assert_eq!(witness.logs().collect::<Vec<_>>(), [(ORIGIN, 200)]);
    let refused = witness.add_checkpoint(going_on.as_bytes(), NOW);
    let refused = refused.unwrap_err();
    assert!(matches!(refused, AddError::OldKey(_)), "{refused}");
    assert_eq!(refused.status(), 403);
    let proof = consistency_proof(&mut log, 200, 300).unwrap().unwrap();
    let note = next
        .sign_checkpoint(&log.checkpoint(300), &NoProof)
        .unwrap();
    let body = request(200, &proof, &note);
    witness.add_checkpoint(body.as_bytes(), NOW).unwrap();
    drop(witness);
    // Remembered over restarts; and whoever withdrew it by mistake takes it back.
    let ask = log.ask(300, 300);
    assert_eq!(status(&open(&disk), &ask), 403);
    assert!(Witness::trust(&disk, dir, &first).unwrap());
    assert!(open(&disk).add_checkpoint(ask.as_bytes(), NOW).is_ok());
}

#[test]
fn nothing_is_given_away_that_a_crash_could_make_it_forget() {
    // Every operation of remembering fails once, in each way; then the power goes.
    for fault in [
        Fault::Fail(std::io::ErrorKind::Other),
        Fault::FailAfter(std::io::ErrorKind::Other),
        Fault::Lose(std::io::ErrorKind::Other),
        Fault::Torn(10, std::io::ErrorKind::Other),
    ] {
        for nth in 0..6 {
            for seed in 0..3 {
                crash_at(fault, nth, seed);
            }
        }
    }
}

fn crash_at(fault: Fault, nth: usize, seed: u64) {
    let (disk, _) = made();
    let (mut log, mut fork) = (History::new(300), History::new(150));
    let witness = open(&disk);
    witness
        .add_checkpoint(log.ask(0, 100).as_bytes(), NOW)
        .unwrap();
    let mut count = 0;
    disk.set_plan(move |op| {
        let fits = match fault {
            Fault::Lose(_) => matches!(op, Op::Sync(_) | Op::SyncDir(_)),
            Fault::Torn(..) => matches!(op, Op::Write(..)),
            Fault::Fail(_) | Fault::FailAfter(_) => !matches!(op, Op::Read(_)),
        };
        count += usize::from(fits);
        (fits && count == nth + 1).then_some(fault)
    });
    let first = witness.add_checkpoint(log.ask(100, 200).as_bytes(), NOW);
    if let Err(error) = &first {
        assert_eq!(error.status(), 500, "{error}");
    }
    drop(witness);
    let after = disk.after_crash(seed);
    // Of two histories it has cosigned at most one, whatever it remembers.
    let witness = open(&after);
    let size = witness.logs().next().unwrap().1;
    assert!(
        size == 200 || (first.is_err() && size == 100),
        "{fault:?} {nth} {size}"
    );
    let forked = witness.add_checkpoint(fork.ask(size, 300).as_bytes(), NOW);
    assert!(first.is_err() || forked.is_err());
}
