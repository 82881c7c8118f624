//! What the verifier reads from others, each with what must hold whatever it is given: nothing
//! panics, what is accepted was signed or is in its one canonical form, and nothing is proven of a
//! log that is not the signed one.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use curfew_authority::Auditor;
use curfew_entry::{Entry, Timestamp};
use curfew_verify::ledger::merkle::{
    CompactTree, Nodes, consistency_proof, inclusion_proof, leaf_hash, verify_consistency,
    verify_growth, verify_inclusion,
};
use curfew_verify::ledger::note::Note;
use curfew_verify::ledger::tile::Tile;
use curfew_verify::ledger::verify::{Verify, Visitor, verify};
use curfew_verify::ledger::{
    Checkpoint, CosignerKey, Hash, KeyChain, RealDisk, Receipt, Rotation, TrustPolicy, VerifierKey,
    Witness, witness,
};
use curfew_verify::{Audit, Outcome, State, audit};

use crate::corpus::Corpus;
use crate::mutate::{Prng, mutated};

/// Bytes between the places where frames may start.
const BLOCK: usize = 4096;

/// One kind of input.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// What it is called.
    pub(crate) name: &'static str,
    /// Cases in the short run of the test suite: about half a second each.
    pub(crate) cases: u64,
    /// Makes one input and looks at what comes of it; panics where that must not be.
    pub(crate) case: fn(&Corpus, &mut Prng),
}

/// All of them.
pub(crate) const TARGETS: [Target; 13] = [
    Target {
        name: "note",
        cases: 300,
        case: note,
    },
    Target {
        name: "key",
        cases: 2_000,
        case: key,
    },
    Target {
        name: "policy",
        cases: 200,
        case: policy,
    },
    Target {
        name: "tile-path",
        cases: 10_000,
        case: tile_path,
    },
    Target {
        name: "receipt",
        cases: 300,
        case: receipt,
    },
    Target {
        name: "proof",
        cases: 2_000,
        case: proof,
    },
    Target {
        name: "rotation",
        cases: 1_000,
        case: rotation,
    },
    Target {
        name: "entry",
        cases: 10_000,
        case: entry,
    },
    Target {
        name: "history",
        cases: 20,
        case: history,
    },
    Target {
        name: "witness",
        cases: 20,
        case: asked,
    },
    Target {
        name: "log",
        cases: 15,
        case: log,
    },
    Target {
        name: "tiles",
        cases: 15,
        case: tiles,
    },
    Target {
        name: "state",
        cases: 30,
        case: state,
    },
];

/// Runs one case again and again the same; gives what it panicked with.
pub(crate) fn run(target: Target, corpus: &Corpus, seed: u64, case: u64) -> Result<(), String> {
    let mut prng = Prng::of_case(seed, case);
    let ran = catch_unwind(AssertUnwindSafe(|| (target.case)(corpus, &mut prng)));
    ran.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        text.unwrap_or_else(|| "it panicked".to_owned())
    })
}

fn keys(corpus: &Corpus) -> &[VerifierKey] {
    std::slice::from_ref(&corpus.key)
}

/// Only what the log has signed may pass for signed.
fn assert_signed(corpus: &Corpus, checkpoint: &Checkpoint) {
    assert!(corpus.signed.contains(checkpoint), "forged: {checkpoint}");
}

fn note(corpus: &Corpus, prng: &mut Prng) {
    let original = prng.pick(&corpus.notes);
    let bytes = mutated(prng, original, &corpus.notes);
    if let Ok(checkpoint) = Checkpoint::verify(&bytes, keys(corpus)) {
        assert_signed(corpus, &checkpoint);
    }
    if let Ok(note) = Note::parse(&bytes) {
        assert!(bytes.starts_with(note.text().as_bytes()));
        let checkpoint = Checkpoint::parse(note.text());
        if let Ok(checkpoint) = &checkpoint {
            assert!(note.text().starts_with(&checkpoint.to_string()));
        }
        for cosigner in &corpus.cosigners {
            if cosigner.verifier().verify(&note).is_ok() {
                assert_signed(corpus, checkpoint.as_ref().unwrap());
            }
        }
    }
    // What a witness answers goes behind the note that it was asked about.
    let plain = &corpus.notes[prng.below(corpus.signed.len())];
    let answer = mutated(prng, original, &corpus.notes);
    let (plain, answer) = (str_of(plain), String::from_utf8_lossy(&answer));
    for cosigner in &corpus.cosigners {
        let key = cosigner.verifier();
        if let Ok((lines, seconds)) = witness::cosigned(key, plain, &answer) {
            let whole = format!("{plain}{lines}");
            let whole = Note::parse(whole.as_bytes()).unwrap();
            assert_eq!(key.verify(&whole).unwrap(), seconds);
        }
    }
}

fn str_of(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn key(corpus: &Corpus, prng: &mut Prng) {
    let original = prng.pick(&corpus.keys);
    let bytes = mutated(prng, original, &corpus.keys);
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return;
    };
    if let Ok(key) = VerifierKey::parse(text) {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(key) = CosignerKey::parse(text) {
        assert_eq!(key.to_string(), text);
    }
}

fn policy(corpus: &Corpus, prng: &mut Prng) {
    let bytes = mutated(prng, &corpus.policy, &corpus.keys);
    let Ok(policy) = TrustPolicy::parse(&bytes) else {
        return;
    };
    let note = prng.pick(&corpus.notes);
    if let Ok(judged) = policy.judge(note, keys(corpus)) {
        assert_signed(corpus, &judged.checkpoint);
        let counted = judged.cosigned.len() + judged.missing.len();
        assert_eq!(counted, policy.witnesses().len());
    }
}

fn tile_path(_: &Corpus, prng: &mut Prng) {
    const PATHS: [&str; 5] = [
        "tile/0/000",
        "tile/7/x001/234.p/255",
        "tile/entries/x999/x999/999",
        "tile/entries/x001/x234/067.p/1",
        "tile/63/x018/x446/x744/x073/x709/551.p/9",
    ];
    let others = PATHS.map(|path| path.as_bytes().to_vec());
    let original = prng.pick(&others);
    let bytes = mutated(prng, original, &others);
    let Ok(path) = std::str::from_utf8(&bytes) else {
        return;
    };
    if let Some(tile) = Tile::parse(path) {
        assert_eq!(tile.to_string(), path);
        assert!(tile.first_leaf() <= tile.end_leaf() || tile.end_leaf().is_none());
        assert_eq!(Tile::parse(&tile.full().to_string()), Some(tile.full()));
    }
}

fn receipt(corpus: &Corpus, prng: &mut Prng) {
    let original = prng.pick(&corpus.receipts);
    let bytes = mutated(prng, original, &corpus.receipts);
    let Ok(receipt) = Receipt::parse(&bytes) else {
        return;
    };
    assert_eq!(receipt.to_string().as_bytes(), bytes);
    if let Ok(checkpoint) = receipt.verify(keys(corpus)) {
        assert_signed(corpus, &checkpoint);
        let index = usize::try_from(receipt.index).unwrap();
        let leaf = leaf_hash(&receipt.entry.unwrap());
        assert_eq!(corpus.leaves.get(index), Some(&leaf), "a forged receipt");
    }
}

/// The bytes are a statement that holds only where both its keys have signed just that.
fn rotation(corpus: &Corpus, prng: &mut Prng) {
    let honest = corpus.rotations.iter().map(|r| r.note.clone().into_bytes());
    let all: Vec<_> = honest.chain(corpus.forged.iter().cloned()).collect();
    let original = prng.pick(&all);
    let bytes = mutated(prng, original, &all);
    let Ok(rotation) = Rotation::verify(&bytes) else {
        let is_honest = corpus.rotations.iter().any(|r| r.note.as_bytes() == bytes);
        assert!(!is_honest, "an honest statement is refused");
        return;
    };
    assert_eq!(rotation.note.as_bytes(), bytes);
    assert!(bytes.starts_with(rotation.to_string().as_bytes()));
    let note = Note::parse(&bytes).unwrap();
    for key in [&rotation.old, &rotation.new] {
        assert!(note.verify(key).is_ok(), "not signed by {key}");
    }
    // Other lines may have come to it, which count for nothing; its text is one that was signed.
    let plain = |rotation: &Rotation| Rotation {
        note: String::new(),
        ..rotation.clone()
    };
    let mut honest = corpus.rotations.iter().map(plain);
    assert!(
        honest.any(|honest| honest == plain(&rotation)),
        "forged: {rotation}"
    );
    // Nothing is gone on to from it but what the honest log did.
    let mut notes: Vec<&str> = corpus.rotations.iter().map(|r| r.note.as_str()).collect();
    let at = prng.below(notes.len());
    notes[at] = &rotation.note;
    if let Ok(chain) = KeyChain::of(keys(corpus), notes) {
        let last = corpus.rotations.last().unwrap();
        assert_eq!(chain.signing(), Some(&last.new));
        assert!(chain.is_anchored());
    }
}

/// The root of the first `size` leaves.
fn root(corpus: &Corpus, size: usize) -> Hash {
    let mut tree = CompactTree::new();
    for leaf in &corpus.leaves[..size] {
        tree.push(*leaf);
    }
    tree.root()
}

/// The leaves, as what proofs are made from.
struct Leaves<'a>(&'a [Hash]);

impl Nodes for Leaves<'_> {
    type Error = Infallible;

    fn node(&mut self, height: u32, index: u64) -> Result<Hash, Infallible> {
        let start = usize::try_from(index << height).unwrap();
        let mut tree = CompactTree::new();
        for leaf in &self.0[start..start + (1 << height)] {
            tree.push(*leaf);
        }
        Ok(tree.root())
    }
}

/// A proof with a hash changed, left out, put in or moved; now and then as it was.
fn changed(prng: &mut Prng, mut proof: Vec<Hash>, leaves: &[Hash]) -> Vec<Hash> {
    let at = prng.below(proof.len() + 1);
    match prng.below(5) {
        0 if at < proof.len() => proof[at].0[prng.below(32)] ^= 1 << prng.below(8),
        1 if at < proof.len() => drop(proof.remove(at)),
        2 => proof.insert(at, *prng.pick(leaves)),
        3 if !proof.is_empty() => {
            let with = prng.below(proof.len());
            proof.swap(at.min(with), with);
        }
        _ => {}
    }
    proof
}

fn proof(corpus: &Corpus, prng: &mut Prng) {
    let mut leaves = Leaves(&corpus.leaves);
    let size = 1 + prng.below(corpus.leaves.len());
    let index = prng.below(size);
    let whole = inclusion_proof(&mut leaves, index as u64, size as u64);
    let whole = whole.unwrap().unwrap();
    let claimed = changed(prng, whole.clone(), &corpus.leaves);
    let other = if prng.below(2) == 0 {
        index as u64
    } else {
        prng.edge()
    };
    let leaf = &corpus.leaves[index];
    let right = root(corpus, size);
    let accepted = verify_inclusion(leaf, other, size as u64, &claimed, &right).is_ok();
    assert_eq!(accepted, other == index as u64 && claimed == whole);
    // Of other sizes it may be true, and must not panic.
    let _ = verify_inclusion(leaf, prng.edge(), prng.edge(), &claimed, &right);

    let first = prng.below(size + 1);
    let whole = consistency_proof(&mut leaves, first as u64, size as u64);
    let whole = whole.unwrap().unwrap();
    let claimed = changed(prng, whole.clone(), &corpus.leaves);
    let before = root(corpus, first);
    let (from, to) = (first as u64, size as u64);
    let accepted = verify_growth(from, to, &claimed, &before, &right).is_ok();
    assert_eq!(accepted, claimed == whole);
    let accepted = verify_consistency(from, to, &claimed, &before, &right).is_ok();
    let is_defined = first > 0 || size == 0;
    assert_eq!(accepted, is_defined && claimed == whole);
    let _ = verify_growth(prng.edge(), prng.edge(), &claimed, &before, &right);
    let _ = verify_consistency(prng.edge(), prng.edge(), &claimed, &before, &right);
}

fn entry(corpus: &Corpus, prng: &mut Prng) {
    let original = prng.pick(&corpus.lines);
    let bytes = mutated(prng, original, &corpus.lines);
    match Entry::from_bytes(&bytes) {
        Ok(entry) => assert_eq!(entry.to_bytes().unwrap(), bytes, "two forms of one entry"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// An entry that can be read, with something changed in it.
fn other_entry(corpus: &Corpus, prng: &mut Prng) -> Option<Entry> {
    (0..20).find_map(|_| {
        let original = prng.pick(&corpus.lines);
        let bytes = mutated(prng, original, &corpus.lines);
        Entry::from_bytes(&bytes).ok()
    })
}

fn history(corpus: &Corpus, prng: &mut Prng) {
    let mut entries = corpus.entries.clone();
    for _ in 0..1 + prng.below(12) {
        let at = prng.below(entries.len());
        let with = prng.below(entries.len());
        match prng.below(5) {
            0 => drop(entries.remove(at)),
            1 => entries.insert(at, entries[with].clone()),
            2 => entries.swap(at, with),
            3 => entries[at].time = Timestamp::from_micros(prng.edge()),
            _ => {
                let other = other_entry(corpus, prng);
                entries.splice(at..at, other);
            }
        }
    }
    let mut auditor = Auditor::default();
    for (index, entry) in (0..).zip(&entries) {
        for finding in auditor.check(index, entry) {
            assert!(!finding.kind.as_str().is_empty());
        }
    }
    if let Some(last) = entries.last() {
        let _ = auditor.finish(last.time);
    }
}

fn asked(corpus: &Corpus, prng: &mut Prng) {
    let disk = corpus.witness.copy();
    let witness = Witness::open(Arc::new(disk), Path::new("/w")).unwrap();
    let (_, before) = witness.logs().next().unwrap();
    let original = prng.pick(&corpus.requests);
    let body = mutated(prng, original, &corpus.requests);
    let answer = witness.add_checkpoint(&body, 2);
    let (_, after) = witness.logs().next().unwrap();
    let sizes: Vec<u64> = corpus.signed.iter().map(|c| c.size).collect();
    match answer {
        Ok(_) => assert!(
            after >= before && sizes.contains(&after),
            "it went to {after}"
        ),
        Err(error) => {
            assert_eq!(after, before);
            assert!((400..600).contains(&error.status()));
        }
    }
    let _ = witness::told_size(&body);
}

/// Changes a segment and makes its checksums right again, as who attacks would.
fn resealed(prng: &mut Prng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let is_frame = |at: &usize| bytes[*at..].starts_with(b"CURFEWF1");
    let frames: Vec<_> = (0..bytes.len()).step_by(BLOCK).filter(is_frame).collect();
    let at = *prng.pick(&frames);
    let len_at = at + 44;
    let len = u32::from_le_bytes(bytes[len_at..len_at + 4].try_into().unwrap());
    let end = (at + 84 + len as usize).min(bytes.len());
    let place = if prng.below(2) == 0 {
        at + 8 + prng.below(72)
    } else {
        at + 84 + prng.below(end - at - 84)
    };
    if prng.below(2) == 0 {
        bytes[place] ^= 1 << prng.below(8);
    } else {
        let number = prng.edge().to_le_bytes();
        let room = (bytes.len() - place).min([2, 4, 8][prng.below(3)]);
        bytes[place..place + room].copy_from_slice(&number[..room]);
    }
    let len = u32::from_le_bytes(bytes[len_at..len_at + 4].try_into().unwrap());
    let end = (at + 84).saturating_add(len as usize).min(bytes.len());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[at..at + 80]), &bytes[at + 84..end]);
    bytes[at + 80..at + 84].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn log(corpus: &Corpus, prng: &mut Prng) {
    let mut touched = Vec::new();
    for _ in 0..=prng.below(2) {
        let is_segment = |at: &usize| corpus.files[*at].0.extension().is_some_and(|e| e == "seg");
        let segments: Vec<_> = (0..corpus.files.len()).filter(is_segment).collect();
        // The truth, half of the time.
        let at = match prng.below(2) {
            0 => *prng.pick(&segments),
            _ => prng.below(corpus.files.len()),
        };
        let (path, bytes) = &corpus.files[at];
        let segment = is_segment(&at);
        let made = match prng.below(6) {
            0 => None,
            1 => Some(prng.pick(&corpus.files).1.clone()),
            2..=4 if segment => Some(resealed(prng, bytes)),
            _ => Some(mutated(prng, bytes, &corpus.notes)),
        };
        match made {
            Some(made) => std::fs::write(path, made).unwrap(),
            None => drop(std::fs::remove_file(path)),
        }
        touched.push(at);
    }
    judge(corpus, &corpus.dir, &corpus.files, &touched);
}

fn tiles(corpus: &Corpus, prng: &mut Prng) {
    let mut touched = Vec::new();
    for _ in 0..=prng.below(2) {
        let at = prng.below(corpus.tile_files.len());
        let (path, bytes) = &corpus.tile_files[at];
        let made = match prng.below(6) {
            0 => None,
            1 => Some(prng.pick(&corpus.tile_files).1.clone()),
            _ => Some(mutated(prng, bytes, &corpus.notes)),
        };
        match made {
            Some(made) => std::fs::write(path, made).unwrap(),
            None => drop(std::fs::remove_file(path)),
        }
        touched.push(at);
    }
    judge(corpus, &corpus.tiles, &corpus.tile_files, &touched);
}

/// Looks at what is said of a log some of whose files were changed, and puts these back.
fn judge(corpus: &Corpus, dir: &Path, files: &[(PathBuf, Vec<u8>)], touched: &[usize]) {
    let what = Audit {
        dir,
        disk: Arc::new(RealDisk),
        keys: keys(corpus),
        since: corpus.notes.get(corpus.signed.len() - 1).map(Vec::as_slice),
        state: None,
    };
    let judged = catch_unwind(AssertUnwindSafe(|| {
        let report = audit(&what, &mut |_| ());
        let proven = report.outcome == Outcome::Proven;
        let leaves = proven.then(|| leaves_of(&what));
        (report, leaves)
    }));
    for at in touched {
        let (path, bytes) = &files[*at];
        std::fs::write(path, bytes).unwrap();
    }
    let (report, leaves) = match judged {
        Ok(judged) => judged,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    assert!(!report.to_string().is_empty());
    if let Some(leaves) = leaves {
        let newest = corpus.signed.last().unwrap();
        assert_eq!(report.signed, Some(newest.size), "{report}");
        assert!(
            leaves == corpus.leaves,
            "other entries are proven: {report}"
        );
    } else {
        let told = report.faults.len() + report.findings.len();
        assert!(told > 0, "{report}");
    }
}

/// A state is believed, but not to be of another tree than was signed; and nothing that is in it makes the
/// verifier fall over.
fn state(corpus: &Corpus, prng: &mut Prng) {
    let whole = corpus.state.as_bytes();
    let mut bytes = mutated(prng, whole, &[corpus.notes[0].clone()]);
    if prng.below(4) > 0 {
        // As who knows how the file is made.
        let mut lines = corpus.state.lines();
        let (head, _) = (lines.next().unwrap(), lines.next());
        let body = mutated(prng, lines.next().unwrap().as_bytes(), &corpus.lines);
        let hash = leaf_hash(&body).to_string();
        bytes = [head.as_bytes(), b"\n", hash.as_bytes(), b"\n", &body, b"\n"].concat();
    }
    let Ok(state) = State::decode(&bytes, keys(corpus)) else {
        assert!(bytes != whole, "the state itself is refused");
        return;
    };
    assert!(
        corpus
            .signed
            .iter()
            .any(|signed| signed.size == state.size())
    );
    let what = Audit {
        dir: &corpus.dir,
        disk: Arc::new(RealDisk),
        keys: keys(corpus),
        since: None,
        state: Some(&state),
    };
    let report = audit(&what, &mut |_| ());
    assert!(!report.to_string().is_empty());
    if bytes == whole {
        assert_eq!(report.outcome, Outcome::Proven, "{report}");
    }
}

/// The entries that a log is proven with, as leaves.
fn leaves_of(what: &Audit<'_>) -> Vec<Hash> {
    struct Seen(Vec<Hash>);
    impl Visitor for Seen {
        fn entry(&mut self, _: u64, entry: &[u8]) {
            self.0.push(leaf_hash(entry));
        }
    }
    let mut seen = Seen(Vec::new());
    let what = Verify {
        dir: what.dir,
        keys: what.keys,
        remembered: what.since,
        from: None,
        disk: Arc::new(RealDisk),
    };
    verify(&what, &mut seen).unwrap();
    seen.0
}
