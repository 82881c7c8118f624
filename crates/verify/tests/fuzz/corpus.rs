//! Honest inputs, which the fuzzer changes: a log as the authority and the writer make it, and what
//! can be carried away from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use curfew_authority::{Ask, Authority, Command, EndCause, Presenter};
use curfew_entry::{
    ActionClosed, ActionDetail, ClosedBy, EndReason, Entry, Field, SessionId, Span, Verb,
};
use curfew_ledger_faults::FaultyDisk;
use curfew_verify::ledger::cosignature::Algorithm;
use curfew_verify::ledger::merkle::leaf_hash;
use curfew_verify::ledger::{
    Checkpoint, Cosigner, Hash, LogKey, Options, Published, RealDisk, Receipt, Rotation,
    VerifierKey, Witness, Writer, witness,
};
use curfew_verify::{Audit, audit_onward};

#[path = "../kit/mod.rs"]
mod kit;

use kit::{BEGINNING, Silent, context, opening, sign_in};

const ORIGIN: &str = "fuzz.example/log";

/// The frozen examples of all kinds.
const GOLDEN: &str = include_str!("../../../entry/tests/golden/entries.jsonl");

const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("1h") @lifetime("8h")
permit (principal, action == Action::"session.start", resource);
@id("shop") @idle("10m")
permit (principal in Role::"clerk", action in [Action::"web.read", Action::"sql.connect"],
        resource in Environment::"production");
"#;

/// Sessions in the log: with some eleven entries each it goes on past one whole tile of 256.
const SESSIONS: u8 = 27;

/// Times the log is opened, each with frames of a new epoch and a checkpoint of its own.
const OPENINGS: usize = 3;

/// What the targets start from.
pub(crate) struct Corpus {
    _folder: tempfile::TempDir,
    /// The directory of the log.
    pub(crate) dir: PathBuf,
    /// Its files, and what is in them.
    pub(crate) files: Vec<(PathBuf, Vec<u8>)>,
    /// A copy of the log that has its checkpoint and tiles alone, and the files of that.
    pub(crate) tiles: PathBuf,
    pub(crate) tile_files: Vec<(PathBuf, Vec<u8>)>,
    /// What a verification kept before the last opening.
    pub(crate) state: String,
    /// The log's key.
    pub(crate) key: VerifierKey,
    /// The entries.
    pub(crate) entries: Vec<Entry>,
    /// All that the log has signed.
    pub(crate) signed: Vec<Checkpoint>,
    /// The same as notes: plain, cosigned, and the newest last.
    pub(crate) notes: Vec<Vec<u8>>,
    /// One of each algorithm.
    pub(crate) cosigners: Vec<Cosigner>,
    /// Keys as text.
    pub(crate) keys: Vec<Vec<u8>>,
    /// A policy on the cosigners.
    pub(crate) policy: Vec<u8>,
    /// Receipts of several entries.
    pub(crate) receipts: Vec<Vec<u8>>,
    /// Entries as bytes: the log's and the frozen ones.
    pub(crate) lines: Vec<Vec<u8>>,
    /// Leaves of the log.
    pub(crate) leaves: Vec<Hash>,
    /// A witness that has cosigned the first checkpoint with entries.
    pub(crate) witness: FaultyDisk,
    /// Requests to it.
    pub(crate) requests: Vec<Vec<u8>>,
    /// Statements on changes of the log's key, one after the other.
    pub(crate) rotations: Vec<Rotation>,
    /// Statements that the key's holder has signed nothing of.
    pub(crate) forged: Vec<Vec<u8>>,
}

fn session(number: u8) -> SessionId {
    SessionId::from_random([number; 12])
}

fn action(verb: Verb) -> ActionDetail {
    let web = verb == Verb::WebRead;
    let mut action = ActionDetail {
        method: web.then(|| "GET".into()),
        path: web.then(|| "/orders/\u{fc}ber".into()),
        client: (!web).then(|| "psql \"15\"\n".into()),
        ..ActionDetail::new(verb, if web { "shop" } else { "orders" }.parse().unwrap())
    };
    action.conceal(Field::Client, &[3; 32]);
    action
}

/// Carries out commands as the gateway does.
#[derive(Default)]
struct History {
    authority: Authority,
    entries: Vec<Entry>,
}

impl History {
    fn carry_out(&mut self, command: &Command) {
        let time = BEGINNING.saturating_add(Span::from_secs(self.entries.len() as u64));
        for event in self.authority.decide(command, time).events {
            let entry = Entry { time, event };
            self.authority.apply(&entry);
            self.entries.push(entry);
        }
    }

    fn live(&mut self, number: u8) {
        let subject = format!("user{}", number % 5);
        self.carry_out(&sign_in([number; 12], [number; 32], &subject, BEGINNING));
        let ask = |verb| {
            Command::Ask(Ask {
                presenter: Presenter::Session(session(number)),
                action: action(verb),
                context: context(),
            })
        };
        let connection = self.entries.len() as u64;
        self.carry_out(&ask(Verb::SqlConnect));
        for _ in 0..5 {
            self.carry_out(&ask(Verb::WebRead));
        }
        // Nothing permits it.
        self.carry_out(&ask(Verb::SqlDdl));
        let closed = ActionClosed {
            session: session(number),
            action: connection,
            by: ClosedBy::Client,
            deadline: None,
            closed: self
                .entries
                .last()
                .unwrap()
                .time
                .saturating_add(Span::from_secs(1)),
            late: None,
            bytes_in: 1,
            bytes_out: 2,
        };
        let verb = Verb::SqlConnect;
        self.carry_out(&Command::Close { closed, verb });
        let (reason, by) = (EndReason::SignedOut, None);
        self.carry_out(&Command::End {
            session: session(number),
            cause: EndCause { reason, by },
        });
    }

    fn honest() -> Vec<Entry> {
        let mut history = Self::default();
        for command in opening(ORIGIN, "shop", POLICY) {
            history.carry_out(&command);
        }
        for number in 1..=SESSIONS {
            history.live(number);
        }
        history.entries
    }
}

/// Writes the log, and gives the checkpoint of each opening.
fn write(options: &Options, entries: &[Entry]) -> (Vec<Vec<u8>>, String) {
    let mut notes = Vec::new();
    let mut state = String::new();
    for (at, part) in entries.chunks(entries.len().div_ceil(OPENINGS)).enumerate() {
        let (disk, observer) = (Arc::new(RealDisk), Arc::new(Silent));
        let (writer, _) = if at == 0 {
            Writer::create(options.clone(), disk, observer).unwrap()
        } else {
            Writer::open(options.clone(), disk, observer).unwrap()
        };
        for entry in part {
            writer.append(entry.to_bytes().unwrap()).unwrap();
        }
        writer.close().unwrap();
        notes.push(std::fs::read(options.dir.join("checkpoint")).unwrap());
        if at + 2 == OPENINGS {
            state = kept(&options.dir, &options.signer.verifiers());
        }
    }
    (notes, state)
}

/// What a verification of the log keeps.
fn kept(dir: &Path, keys: &[VerifierKey]) -> String {
    let what = Audit {
        dir,
        disk: Arc::new(RealDisk),
        keys,
        since: None,
        state: None,
    };
    let (report, state) = audit_onward(&what, &mut |_| ());
    let state = state.unwrap_or_else(|| panic!("{report}"));
    state.encode().unwrap()
}

/// Copies what is published of the log.
fn copy_tiles(files: &[(PathBuf, Vec<u8>)], dir: &Path, to: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut copied = Vec::new();
    for (path, bytes) in files {
        let name = path.strip_prefix(dir).unwrap();
        if name == Path::new("checkpoint") || name.starts_with("tile") {
            let path = to.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
            copied.push((path, bytes.clone()));
        }
    }
    copied
}

/// All files below `dir`, with what is in them.
fn read_all(dir: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    let mut paths: Vec<_> = dir.read_dir().unwrap().map(|f| f.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read_all(&path, found);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
}

impl Corpus {
    /// Makes all of it, always the same but for the file system's own.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("ledger");
        let key = LogKey::from_seed(ORIGIN, &[1; 32]).unwrap();
        let vkey = key.verifier();
        let mut options = Options::new(&dir, folder.path().join("guard"), key);
        options.segment_bytes = 256 * 1024;
        let entries = History::honest();
        let (plain, state) = write(&options, &entries);
        let keys = [vkey.clone()];
        let signed: Vec<_> = plain
            .iter()
            .map(|note| Checkpoint::verify(note, &keys).unwrap())
            .collect();
        let cosigners: Vec<_> = [(Algorithm::Ed25519, 2), (Algorithm::MlDsa44, 3)]
            .into_iter()
            .map(|(by, seed)| Cosigner::from_seed("north.example", by, &[seed; 32]).unwrap())
            .collect();
        let notes = with_cosigned(&plain, &signed, &cosigners);
        let published = Published::new(&dir);
        let receipts = [0, 255, 256, entries.len() - 1].map(|at| {
            let bytes = entries[at].to_bytes().unwrap();
            let receipt = published.receipt(at as u64, &bytes).unwrap().1.unwrap();
            Receipt::to_string(&receipt).into_bytes()
        });
        let own: Vec<_> = entries.iter().map(|e| e.to_bytes().unwrap()).collect();
        let leaves = own.iter().map(|bytes| leaf_hash(bytes)).collect();
        let golden = GOLDEN.lines().map(|line| line.as_bytes().to_vec());
        let lines = golden.chain(own.into_iter().take(20)).collect();
        let (rotations, forged) = rotations(&signed);
        let (witness, requests) = witnessing(&vkey, &plain, &signed, &published);
        let names = cosigners.iter().map(|c| c.verifier().to_string());
        let key_texts: Vec<String> = names.chain([vkey.to_string()]).collect();
        let mut files = Vec::new();
        read_all(&dir, &mut files);
        // The lock is empty, and what is made for later holds nothing yet.
        files.retain(|(path, bytes)| !bytes.is_empty() && !path.ends_with("prepared-segment.tmp"));
        let tiles = folder.path().join("tiles");
        let tile_files = copy_tiles(&files, &dir, &tiles);
        Self {
            _folder: folder,
            dir,
            files,
            tiles,
            tile_files,
            state,
            key: vkey,
            entries,
            signed,
            notes,
            policy: policy(&key_texts).into_bytes(),
            keys: key_texts.into_iter().map(String::into_bytes).collect(),
            cosigners,
            receipts: receipts.to_vec(),
            lines,
            leaves,
            witness,
            requests,
            rotations,
            forged,
        }
    }
}

/// The notes without and with cosignatures.
fn with_cosigned(plain: &[Vec<u8>], signed: &[Checkpoint], by: &[Cosigner]) -> Vec<Vec<u8>> {
    let mut notes = plain.to_vec();
    for (note, checkpoint) in plain.iter().zip(signed) {
        let mut note = note.clone();
        for cosigner in by {
            let line = cosigner.cosign(&checkpoint.to_string(), 1_764_000_000);
            note.extend_from_slice(line.unwrap().as_bytes());
        }
        notes.push(note);
    }
    notes
}

/// The log's key and those that take its place, each after another checkpoint; and statements that go
/// from them to a stranger's key, which has signed what its holder has not.
fn rotations(signed: &[Checkpoint]) -> (Vec<Rotation>, Vec<Vec<u8>>) {
    let key = |seed| LogKey::from_seed(ORIGIN, &[seed; 32]).unwrap();
    let (mut honest, mut forged) = (Vec::new(), Vec::new());
    for (checkpoint, seed) in signed.iter().zip(1..) {
        // The first is the log's own.
        let old = key(if seed == 1 { 1 } else { 10 + seed });
        let sign = |new: &LogKey| Rotation::sign(checkpoint, &old, new).unwrap();
        let (note, stolen) = (sign(&key(11 + seed)), sign(&key(99)));
        let line = |note: &str| note.lines().nth(7).unwrap().to_owned();
        forged.push(stolen.replace(&line(&stolen), &line(&note)).into_bytes());
        honest.push(Rotation::verify(note.as_bytes()).unwrap());
    }
    (honest, forged)
}

fn policy(keys: &[String]) -> String {
    let [ed25519, ml_dsa, log] = keys else {
        panic!("three keys");
    };
    format!(
        "# both\nlog {log}\nwitness north {ed25519}\nwitness pq {ml_dsa}\n\
         group both 2 north pq\nquorum both\n"
    )
}

/// A witness that has cosigned the first checkpoint, and requests for the next ones.
fn witnessing(
    key: &VerifierKey,
    notes: &[Vec<u8>],
    signed: &[Checkpoint],
    published: &Published,
) -> (FaultyDisk, Vec<Vec<u8>>) {
    let (disk, dir) = (FaultyDisk::new(), Path::new("/w"));
    Witness::create(&disk, dir, "south.example").unwrap();
    Witness::trust(&disk, dir, key).unwrap();
    let request = |from: u64, at: usize| {
        let proof = published.consistency_proof(from, signed[at].size).unwrap();
        let note = std::str::from_utf8(&notes[at]).unwrap();
        witness::request(from, &proof, note).into_bytes()
    };
    let open = Witness::open(Arc::new(disk.copy()), dir);
    drop(open.unwrap());
    let witness = Witness::open(Arc::new(disk.clone()), dir).unwrap();
    witness.add_checkpoint(&request(0, 0), 1).unwrap();
    drop(witness);
    let first = signed[0].size;
    let requests = vec![request(0, 0), request(first, 1), request(first, 2)];
    (disk, requests)
}
