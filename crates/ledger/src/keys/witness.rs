//! A witness: cosigns checkpoints of logs, each only if it goes on from the last one it cosigned.
//!
//! Source: C2SP tlog-witness v1.0.0, with what the draft after it says of checkpoints that differ at
//! the same size (422). What is here knows no network and no clock: it takes the body of a request
//! and gives the body of the answer, or why there is none. In the directory of a witness:
//!
//! ```text
//! witness.key                    its keys, 0600
//! logs/<SHA-256 of an origin>    the keys of that log, those it had, and the last checkpoint cosigned
//! lock                           held by the process that serves
//! ```
//!
//! A log is known only by its file. One whose file is gone is unknown, not new: what was cosigned is
//! never forgotten by accident.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::disk::{Disk, DiskLock, read_file, replace_file_durably};
use crate::format::error::FileError;
use crate::format::merkle::{Hash, empty_root, verify_growth};
use crate::format::note::{Checkpoint, Note, NoteError, VerifierKey};
use crate::keys::cosignature::{COVERED_NAME_BYTES_MAX, Cosigner, CosignerKey};
use crate::keys::key::KeyError;
use crate::keys::witness_key;

/// Longest request, in bytes: 63 lines of proof take 2,835, a checkpoint with 16 signatures of the
/// longest known kind 56,000.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Most lines of proof in a request (C2SP tlog-witness).
pub const PROOF_LINES_MAX: usize = 63;

/// Longest answer that is read, in bytes: 16 cosignatures of the longest known kind.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The type of an answer that only tells a size.
pub const SIZE_TYPE: &str = "text/x.tlog.size";

/// Longest file about a log, in bytes: a note as large as a request, and 64 keys.
const STATE_BYTES_MAX: u64 = 128 * 1024;

/// Most keys of a log, those it had included: 64 lines of at most 320 bytes.
const KEYS_MAX: usize = 64;

/// First line of the file about a log; then a line for each key, an empty one, the note.
const HEADER: &str = "curfew-witness-log-1";

/// Opens a line with a key.
const KEY: &str = "key ";

/// Opens a line with a key that is trusted no longer. It may have signed the checkpoint that is kept.
const OLD_KEY: &str = "old ";

/// Why a witness could not be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// Its keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process works with the directory.
    #[error("another process is the witness in {}", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The file about a log is not what a witness writes.
    #[error("{}: {problem}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The origin of a log is longer than ML-DSA-44 cosignatures can cover.
    #[error("the name of a log has at most 255 bytes")]
    LongOrigin,
    /// A log has had more keys than its file holds.
    #[error("{0} has had {KEYS_MAX} keys already")]
    TooManyKeys(String),
    /// No log of that name has this key here.
    #[error("no such key is trusted for a log {0}")]
    NotTrusted(String),
    /// The only key of a log.
    #[error("it is the only key that {0} is known by: trust the one that takes its place first")]
    OnlyKey(String),
}

/// Why a checkpoint was not cosigned, each with a status of its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// 400: not a request, or the old size is above that of the checkpoint.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// 400: what follows the proof is not a checkpoint.
    #[error(transparent)]
    Note(NoteError),
    /// 404: no log of that origin.
    #[error("the log {0} is not known here")]
    UnknownLog(String),
    /// 403: no key that is known for the log has signed, or one that is known has signed something else.
    #[error(transparent)]
    Unsigned(NoteError),
    /// 403: the log is known, and nobody who is known has signed.
    #[error(
        "{0} is known here, but not by the key that signed: if it has a new one, this witness must be \
         told of it first"
    )]
    UnknownKey(String),
    /// 403: a key has signed that was withdrawn.
    #[error("signed by a key that {0} does not have any more")]
    OldKey(String),
    /// 409: the proof must go on from the last checkpoint that was cosigned.
    #[error("the last size cosigned is {size}")]
    Elsewhere {
        /// Number of entries in it.
        size: u64,
    },
    /// 422: it does not go on from what was cosigned.
    #[error("a checkpoint of {size} entries does not go on from the {cosigned} that were cosigned")]
    Inconsistent {
        /// Number of entries in the checkpoint.
        size: u64,
        /// Number of entries in the last checkpoint cosigned.
        cosigned: u64,
    },
    /// 500: what was cosigned could not be remembered, so it is not given away.
    #[error(transparent)]
    File(#[from] FileError),
    /// 500: the clock or the keys do not let it cosign.
    #[error("it cannot be cosigned: {0}")]
    Cosign(NoteError),
}

impl AddError {
    /// The HTTP status (C2SP tlog-witness).
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            AddError::Malformed(_) | AddError::Note(_) => 400,
            AddError::Unsigned(_) | AddError::UnknownKey(_) | AddError::OldKey(_) => 403,
            AddError::UnknownLog(_) => 404,
            AddError::Elsewhere { .. } => 409,
            AddError::Inconsistent { .. } => 422,
            AddError::File(_) | AddError::Cosign(_) => 500,
        }
    }
}

/// The keys of a witness, and the last checkpoint it cosigned of each log.
pub struct Witness {
    disk: Arc<dyn Disk>,
    cosigners: Vec<Cosigner>,
    /// By origin.
    logs: BTreeMap<String, Log>,
    _lock: Box<dyn DiskLock>,
}

/// One log.
struct Log {
    path: PathBuf,
    keys: Vec<VerifierKey>,
    /// Trusted no longer.
    old_keys: Vec<VerifierKey>,
    last: Mutex<Last>,
}

/// The last checkpoint cosigned, with its note; of nothing, where there is none yet.
struct Last {
    size: u64,
    root: Hash,
    note: String,
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness")
            .field("cosigners", &self.cosigners)
            .finish_non_exhaustive()
    }
}

impl Witness {
    /// Makes a witness in `dir`, with new keys of this name. It knows no log yet.
    ///
    /// # Errors
    /// When there is one already, the name is none, or the disk refuses.
    pub fn create(
        disk: &dyn Disk,
        dir: &Path,
        name: &str,
    ) -> Result<Vec<CosignerKey>, WitnessError> {
        let logs = dir.join("logs");
        disk.create_dir_all(&logs)
            .map_err(FileError::at("create", &logs))?;
        let cosigners = witness_key::create(disk, &dir.join("witness.key"), name)?;
        Ok(cosigners.iter().map(|c| c.verifier().clone()).collect())
    }

    /// Has the witness in `dir` cosign for the log of this key from now on: from its first entry if
    /// it is new, and otherwise as an additional key of that log. Gives whether the key is new.
    ///
    /// # Errors
    /// When the witness serves at the moment, or the disk refuses.
    pub fn trust(disk: &dyn Disk, dir: &Path, key: &VerifierKey) -> Result<bool, WitnessError> {
        let _lock = lock(disk, dir)?;
        if key.name().len() > COVERED_NAME_BYTES_MAX {
            return Err(WitnessError::LongOrigin);
        }
        let mut log = Log::load(disk, dir, key)?.unwrap_or_else(|| Log {
            path: path_of(dir, key),
            keys: Vec::new(),
            old_keys: Vec::new(),
            last: Mutex::new(Last::nothing()),
        });
        if log.keys.contains(key) {
            return Ok(false);
        }
        log.old_keys.retain(|old| old != key);
        if log.keys.len() + log.old_keys.len() == KEYS_MAX {
            return Err(WitnessError::TooManyKeys(key.name().to_owned()));
        }
        log.keys.push(key.clone());
        let note = log.last().note.clone();
        log.write(disk, &note)?;
        Ok(true)
    }

    /// Has the witness in `dir` cosign nothing more that only this key of a log has signed. What it
    /// cosigned stays so, and further keys of the log go on from there. Gives whether it was trusted
    /// until now.
    ///
    /// # Errors
    /// When the log has no other key, never had this one, the witness serves at the moment, or the disk
    /// refuses.
    pub fn distrust(disk: &dyn Disk, dir: &Path, key: &VerifierKey) -> Result<bool, WitnessError> {
        let _lock = lock(disk, dir)?;
        let name = || key.name().to_owned();
        let log = Log::load(disk, dir, key)?;
        let mut log = log.ok_or_else(|| WitnessError::NotTrusted(name()))?;
        if log.old_keys.contains(key) {
            return Ok(false);
        }
        if !log.keys.contains(key) {
            return Err(WitnessError::NotTrusted(name()));
        }
        log.keys.retain(|known| known != key);
        if log.keys.is_empty() {
            return Err(WitnessError::OnlyKey(name()));
        }
        log.old_keys.push(key.clone());
        let note = log.last().note.clone();
        log.write(disk, &note)?;
        Ok(true)
    }

    /// Opens the witness in `dir`.
    ///
    /// # Errors
    /// When its keys or a file about a log cannot be used, or another process works with them.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Witness, WitnessError> {
        let lock = lock(&*disk, dir)?;
        let cosigners = witness_key::load(&*disk, &dir.join("witness.key"))?;
        let folder = dir.join("logs");
        let names = disk.list(&folder).map_err(FileError::at("list", &folder))?;
        let mut logs = BTreeMap::new();
        // What an interrupted write left beside a file counts for nothing.
        for entry in names.iter().filter(|entry| !entry.name.contains('.')) {
            let path = folder.join(&entry.name);
            let bytes = read_file(&*disk, &path, STATE_BYTES_MAX);
            let log = Log::parse(&path, &bytes.map_err(FileError::at("read", &path))?)?;
            logs.insert(log.keys[0].name().to_owned(), log);
        }
        Ok(Witness {
            disk,
            cosigners,
            logs,
            _lock: lock,
        })
    }

    /// The public halves of its keys.
    pub fn keys(&self) -> impl Iterator<Item = &CosignerKey> {
        self.cosigners.iter().map(Cosigner::verifier)
    }

    /// The logs it cosigns for, each with the last size it cosigned.
    pub fn logs(&self) -> impl Iterator<Item = (&str, u64)> {
        let logs = self.logs.iter();
        logs.map(|(origin, log)| (origin.as_str(), log.last().size))
    }

    /// Answers the body of an `add-checkpoint` request at `seconds` since 1970 with the cosignatures,
    /// which were remembered durably before.
    ///
    /// # Errors
    /// See [`AddError`]. Nothing is cosigned then.
    pub fn add_checkpoint(&self, body: &[u8], seconds: u64) -> Result<String, AddError> {
        let request = Request::parse(body)?;
        let note = Note::parse(request.note).map_err(AddError::Note)?;
        let checkpoint = Checkpoint::parse(note.text()).map_err(AddError::Note)?;
        let log = self
            .logs
            .get(&checkpoint.origin)
            .ok_or_else(|| AddError::UnknownLog(checkpoint.origin.clone()))?;
        let signed = Checkpoint::verify(request.note, &log.keys);
        signed.map_err(|error| log.unsigned(error, request.note))?;
        if request.old > checkpoint.size {
            return Err(AddError::Malformed("the old size is above the new one"));
        }
        // Held until it is remembered: comparing and replacing are one step.
        let mut last = log.last();
        if request.old != last.size {
            return Err(AddError::Elsewhere { size: last.size });
        }
        let (old, new) = (last.size, checkpoint.size);
        verify_growth(old, new, &request.proof, &last.root, &checkpoint.root).map_err(|_| {
            AddError::Inconsistent {
                size: new,
                cosigned: old,
            }
        })?;
        let mut answer = String::new();
        for cosigner in &self.cosigners {
            let line = cosigner.cosign(note.text(), seconds);
            answer.push_str(&line.map_err(AddError::Cosign)?);
        }
        let own: String = log.keys.iter().map(|key| key.lines(&note)).collect();
        let kept = format!("{}\n{own}{answer}", note.text());
        // Where this fails it may have happened all the same. What is then on disk was given to
        // nobody, and goes on from what is remembered here.
        log.write(&*self.disk, &kept)?;
        *last = Last {
            size: new,
            root: checkpoint.root,
            note: kept,
        };
        Ok(answer)
    }

    /// The last checkpoint it cosigned of the log whose origin has this SHA-256 in hex, with the
    /// cosignatures, for monitors.
    #[must_use]
    pub fn checkpoint(&self, origin_hash: &str) -> Option<String> {
        let logs = self.logs.values();
        let mut logs = logs.filter(|log| log.path.file_name().is_some_and(|n| n == origin_hash));
        let note = logs.next()?.last().note.clone();
        (!note.is_empty()).then_some(note)
    }
}

impl Last {
    fn nothing() -> Last {
        Last {
            size: 0,
            root: empty_root(),
            note: String::new(),
        }
    }
}

impl Log {
    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log of this key, where there is one.
    fn load(disk: &dyn Disk, dir: &Path, key: &VerifierKey) -> Result<Option<Log>, WitnessError> {
        let path = path_of(dir, key);
        match read_file(disk, &path, STATE_BYTES_MAX) {
            Ok(bytes) => Log::parse(&path, &bytes).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::at("read", &path)(error).into()),
        }
    }

    /// Why a note is not signed by a key of the log.
    fn unsigned(&self, error: NoteError, note: &[u8]) -> AddError {
        let origin = || self.keys.first().map_or("", VerifierKey::name).to_owned();
        if Checkpoint::verify(note, &self.old_keys).is_ok() {
            return AddError::OldKey(origin());
        }
        if matches!(error, NoteError::Unsigned { .. }) {
            return AddError::UnknownKey(origin());
        }
        AddError::Unsigned(error)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Log, WitnessError> {
        let fail = |problem: &dyn fmt::Display| WitnessError::State {
            path: path.to_path_buf(),
            problem: problem.to_string(),
        };
        let text = std::str::from_utf8(bytes).map_err(|e| fail(&e))?;
        let (head, note) = text
            .split_once("\n\n")
            .ok_or_else(|| fail(&"no empty line"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(HEADER) {
            return Err(fail(&"the first line is not curfew-witness-log-1"));
        }
        let (mut keys, mut old_keys) = (Vec::new(), Vec::new());
        for line in lines {
            let (kind, text) = match line.strip_prefix(OLD_KEY) {
                Some(text) => (&mut old_keys, text),
                None => (&mut keys, line.strip_prefix(KEY).unwrap_or_default()),
            };
            kind.push(VerifierKey::parse(text).map_err(|error| fail(&error))?);
        }
        let origin = keys.first().ok_or_else(|| fail(&"no key"))?.name();
        let all: Vec<VerifierKey> = keys.iter().chain(&old_keys).cloned().collect();
        let one = all.iter().all(|key| key.name() == origin);
        if !one
            || path
                .file_name()
                .is_none_or(|n| n != file_name(origin).as_str())
        {
            return Err(fail(&"it is about another log than its name says"));
        }
        let last = if note.is_empty() {
            Last::nothing()
        } else {
            let signed = Checkpoint::verify(note.as_bytes(), &all).map_err(|e| fail(&e))?;
            Last {
                size: signed.size,
                root: signed.root,
                note: note.to_owned(),
            }
        };
        Ok(Log {
            path: path.to_path_buf(),
            keys,
            old_keys,
            last: Mutex::new(last),
        })
    }

    fn write(&self, disk: &dyn Disk, note: &str) -> Result<(), FileError> {
        let mut text = format!("{HEADER}\n");
        let keys = self.keys.iter().map(|key| (KEY, key));
        for (kind, key) in keys.chain(self.old_keys.iter().map(|key| (OLD_KEY, key))) {
            text.push_str(&format!("{kind}{key}\n"));
        }
        text.push('\n');
        text.push_str(note);
        let replaced = replace_file_durably(disk, &self.path, text.as_bytes());
        replaced.map_err(FileError::at("replace", &self.path))
    }
}

/// The file about the log of a key.
fn path_of(dir: &Path, key: &VerifierKey) -> PathBuf {
    dir.join("logs").join(file_name(key.name()))
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn DiskLock>, WitnessError> {
    let path = dir.join("lock");
    let taken = disk.try_lock(&path).map_err(FileError::at("lock", &path))?;
    taken.ok_or_else(|| WitnessError::Locked {
        dir: dir.to_path_buf(),
    })
}

/// The SHA-256 of the origin in hex, by which monitors ask.
#[must_use]
pub fn file_name(origin: &str) -> String {
    Hash(Sha256::digest(origin.as_bytes()).into()).to_string()
}

/// The body of an `add-checkpoint` request.
struct Request<'a> {
    old: u64,
    proof: Vec<Hash>,
    note: &'a [u8],
}

impl Request<'_> {
    fn parse(body: &[u8]) -> Result<Request<'_>, AddError> {
        let fail = AddError::Malformed;
        if body.len() > REQUEST_BYTES_MAX {
            return Err(fail("longer than 64 KiB"));
        }
        let end = body.windows(2).position(|w| w == b"\n\n");
        let end = end.ok_or(fail("no empty line"))?;
        let head = std::str::from_utf8(&body[..end]).map_err(|_| fail("not text"))?;
        let mut lines = head.split('\n');
        let digits = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .ok_or(fail("the first line does not tell the old size"))?;
        let old = decimal(digits).ok_or(fail("the old size is not a number"))?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() == PROOF_LINES_MAX {
                return Err(fail("more than 63 lines of proof"));
            }
            let hash = STANDARD.decode(line).ok();
            let hash = hash.and_then(|hash| hash.try_into().ok());
            proof.push(Hash(hash.ok_or(fail("a line of proof is no hash"))?));
        }
        Ok(Request {
            old,
            proof,
            note: &body[end + 2..],
        })
    }
}

/// The body of the request to cosign `note`, which `proof` shows to go on from `old` entries.
#[must_use]
pub fn request(old: u64, proof: &[Hash], note: &str) -> String {
    let mut body = format!("old {old}\n");
    for hash in proof {
        // Writing to a string does not fail.
        let _ = writeln!(body, "{}", STANDARD.encode(hash.0));
    }
    body.push('\n');
    body.push_str(note);
    body
}

/// The size in an answer of the type [`SIZE_TYPE`].
#[must_use]
pub fn told_size(body: &[u8]) -> Option<u64> {
    decimal(std::str::from_utf8(body).ok()?.strip_suffix('\n')?)
}

/// What `key` says in a witness's answer about `note`: its lines, checked, and its time in seconds
/// since 1970. Lines of other keys are passed over.
///
/// # Errors
/// When it has not cosigned, or wrongly, or the answer is not one of signature lines.
pub fn cosigned(key: &CosignerKey, note: &str, answer: &str) -> Result<(String, u64), NoteError> {
    let whole = format!("{note}{answer}");
    let whole = Note::parse(whole.as_bytes())?;
    let seconds = key.verify(&whole)?;
    Ok((key.lines(&whole), seconds))
}

/// One number, one text: neither `007` nor `+7`.
fn decimal(digits: &str) -> Option<u64> {
    let number: u64 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}
