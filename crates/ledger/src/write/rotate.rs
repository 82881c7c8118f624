//! Changing the key of a log that nobody writes to: first the key's holder hands over, then the log
//! tells of it. See [`crate::keys::key_file`] for the order and [`crate::Rotation`] for the statement.
//!
//! Both halves hold the log's lock while they work, so a running writer is never overtaken. Between
//! them, and whenever the second was cut short, the statement waits where the keys are, and [`complete`]
//! goes on from there.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::disk::Disk;
use crate::format::error::ReadError;
use crate::format::note::Checkpoint;
use crate::keys::rotation::{Rotation, RotationError};
use crate::keys::signer::SignError;
use crate::read::reader::LogReader;
use crate::write::error::{AppendError, CloseError, OpenError, PublishError, WriteError};
use crate::write::options::Options;
use crate::write::writer::{Observer, Writer, lock};

/// How long the disk and the signer may take to make an entry durable, and to publish a checkpoint. What
/// is slower than this is reported, and can be tried again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the entry for a statement, after the entry that comes before it.
pub type MakeEntry<'a> = dyn Fn(&str, Option<&[u8]>) -> Vec<u8> + 'a;

/// Why a key was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// The log could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log failed.
    #[error("the log took no more entries: {0}")]
    Failed(String),
    /// The entry was not taken.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// What is there could not be signed, or the checkpoint not be published.
    #[error("the log could not be signed: {0}")]
    NotSigned(String),
    /// The log could not be closed.
    #[error(transparent)]
    Close(#[from] CloseError),
    /// The holder of the key did not hand over.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// What the holder of the key stated does not hold.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// The log went on without the statement.
    #[error(
        "the key was to be changed after {size} entries, but entry {size} of this log is another: \
         this is not the log that the statement is about, or a copy of it that went on by itself"
    )]
    WentOn {
        /// Number of entries the statement goes on from.
        size: u64,
    },
    /// The log has no entry yet.
    #[error("the log is empty: let the gateway write its first entries before its key is changed")]
    Empty,
    /// Nothing came of it in time.
    #[error("the log did not answer within {} s", PATIENCE.as_secs())]
    TimedOut,
}

/// Has everything in the log signed, and then the holder of the key state that the one prepared takes
/// its place. Gives the statement. The signer of `options` must not be used any more.
///
/// # Errors
/// See [`RotateError`]; another process that writes to the log is [`OpenError::Locked`].
pub fn begin(options: Options, disk: Arc<dyn Disk>) -> Result<String, RotateError> {
    let signer = options.signer.clone();
    let heard = Arc::new(Heard::default());
    let (writer, recovered) = Writer::open(options, disk, heard.clone())?;
    if recovered.size == 0 {
        return Err(RotateError::Empty);
    }
    heard.wait(|state| (state.signed >= Some(recovered.size)).then_some(()))?;
    let note = writer.checkpoint().unwrap_or_default();
    let checkpoint = Checkpoint::verify(note.as_bytes(), &signer.verifiers())
        .map_err(|error| SignError::Wrong(error.to_string()))?;
    let stated = signer.rotate(&checkpoint)?;
    let rotation = Rotation::verify(stated.as_bytes())?;
    // Nobody wrote since, so that nothing is left to be signed.
    writer.close()?;
    if (rotation.size, rotation.root) != (checkpoint.size, checkpoint.root) {
        return Err(RotationError::Root {
            stated: rotation.root,
            found: checkpoint.root,
        }
        .into());
    }
    Ok(stated)
}

/// Makes the statement `note` the next entry of the log, unless it is there already, and has the new key
/// sign a checkpoint over it. The signer of `options` has the new key, and knows the old one's
/// signatures. `entry` makes the entry from the statement and the entry before it; `note_of` takes the
/// statement out of an entry again.
///
/// # Errors
/// See [`RotateError`]. It can be tried again, and goes on from where it was.
pub fn complete(
    options: Options,
    disk: Arc<dyn Disk>,
    note: &str,
    entry: &MakeEntry<'_>,
    note_of: &dyn Fn(&[u8]) -> Option<String>,
) -> Result<Rotation, RotateError> {
    let rotation = Rotation::verify(note.as_bytes())?;
    let size = rotation.size;
    let dir = options.dir.clone();
    let told = |found: u64| -> Result<bool, RotateError> {
        if found <= size {
            return Ok(false);
        }
        let entry = read(&dir, disk.clone(), size)?;
        if note_of(&entry).as_deref() == Some(note) {
            return Ok(true);
        }
        Err(RotateError::WentOn { size })
    };
    // Before anything can be signed by the new key.
    told(LogReader::open_on(&dir, disk.clone())?.size())?;
    let heard = Arc::new(Heard::default());
    let (writer, recovered) = Writer::open(options, disk.clone(), heard.clone())?;
    if !told(recovered.size)? {
        if recovered.size < size {
            return Err(RotateError::WentOn { size });
        }
        let before = match size.checked_sub(1) {
            Some(last) => Some(read(&dir, disk.clone(), last)?),
            None => None,
        };
        writer.append(entry(note, before.as_deref()))?;
        heard.wait(|state| (state.durable > size).then_some(()))?;
    }
    writer.close()?;
    Ok(rotation)
}

fn read(dir: &Path, disk: Arc<dyn Disk>, index: u64) -> Result<Vec<u8>, ReadError> {
    LogReader::open_on(dir, disk)?.entry(index)
}

/// What was heard of the writer.
#[derive(Debug, Default)]
struct Heard {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    durable: u64,
    /// The size of the newest checkpoint that is published everywhere.
    signed: Option<u64>,
    not_signed: Option<String>,
    failed: Option<String>,
}

impl Heard {
    fn hear(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }

    /// Waits until `done`, or until something goes wrong.
    fn wait<T>(&self, done: impl Fn(&State) -> Option<T>) -> Result<T, RotateError> {
        let state = lock(&self.state);
        let waits = |state: &mut State| {
            done(state).is_none() && state.failed.is_none() && state.not_signed.is_none()
        };
        let waited = self.changed.wait_timeout_while(state, PATIENCE, waits);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some(done) = done(&state) {
            return Ok(done);
        }
        if let Some(problem) = state.failed.clone() {
            return Err(RotateError::Failed(problem));
        }
        Err(match state.not_signed.clone() {
            Some(problem) => RotateError::NotSigned(problem),
            None => RotateError::TimedOut,
        })
    }
}

impl Observer for Heard {
    fn durable(&self, size: u64) {
        self.hear(|state| state.durable = size);
    }

    fn failed(&self, _size: u64, error: &WriteError) {
        self.hear(|state| state.failed = Some(error.to_string()));
    }

    fn published(&self, note: &str) {
        let size = note.split('\n').nth(1).and_then(|size| size.parse().ok());
        self.hear(|state| state.signed = state.signed.max(size));
    }

    fn up_to_date(&self, size: u64) {
        self.hear(|state| state.signed = state.signed.max(Some(size)));
    }

    fn publish_failed(&self, error: &PublishError) {
        self.hear(|state| state.not_signed = Some(error.to_string()));
    }
}
