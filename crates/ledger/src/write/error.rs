//! What can go wrong while a log is opened, written, published or pruned.

use std::io;
use std::path::PathBuf;

use crate::format::error::{FileError, ReadError};
use crate::format::note::NoteError;
use crate::format::segment::{Corruption, FOLDER};
use crate::keys::signer::SignError;
use crate::write::guard::SwapError;

/// Why an entry was not accepted. A refused entry leaves no trace in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue is full because the disk is slower than the callers. Try again later.
    #[error("the ledger's queue is full")]
    Full,
    /// The writer has failed (see [`crate::Observer::failed`]); open the log again.
    #[error("the ledger's writer has failed")]
    Failed,
    /// The writer was closed.
    #[error("the ledger's writer is closed")]
    Closed,
    /// Longer than [`crate::ENTRY_BYTES_MAX`].
    #[error("an entry may be at most 65535 bytes long")]
    TooLarge,
    /// The entry has no bytes; the shortest has one.
    #[error("an entry may not be empty")]
    Empty,
    /// The disk is full, and the space left is reserved or used up.
    #[error("no space is left for the ledger")]
    NoSpace,
}

/// Why the writer failed. Entries it did not acknowledge may or may not be in the log.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A write, sync or rename failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The guard holds another checkpoint, or it is unknown which one. The log must be opened again,
    /// which reads the guard, before anything more is signed.
    #[error("the last signed checkpoint cannot be relied on: {problem}")]
    Guard {
        /// Why the swap failed, as text.
        problem: String,
    },
    /// [`crate::Observer::writing`] failed: data that must be durable before the entries is not.
    #[error("what belongs to the entries cannot be kept: {problem}")]
    Companion {
        /// The observer's error.
        problem: String,
    },
    /// A thread of the writer panicked.
    #[error("the ledger's {thread} thread ended unexpectedly")]
    ThreadEnded {
        /// Name of the thread, such as `committer`.
        thread: &'static str,
    },
}

/// Why a log could not be opened or created.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no log in the directory.
    #[error("there is no ledger in {}", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds a log, or the guard file exists.
    #[error("{} is already there: a ledger is never created over another", path.display())]
    AlreadyThere {
        /// The file that is in the way.
        path: PathBuf,
    },
    /// The prune point does not fit the log.
    #[error("{}: {problem}", path.display())]
    PrunePoint {
        /// The file with the prune point.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Another process is writing to the log.
    #[error("another process is writing to the ledger in {}", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// An option is out of its range.
    #[error("option {option} is {value}, but must be {must}")]
    Option {
        /// The name of the option.
        option: &'static str,
        /// The value given, in the option's own unit.
        value: u64,
        /// The range it must be in.
        must: &'static str,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A segment holds something that no crash leaves behind.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The log has fewer entries than the newest signed checkpoint covers.
    #[error(
        "the ledger has {size} entries, but {signed} were signed ({}): this is an older copy of the log",
        guard.display()
    )]
    OlderCopy {
        /// Number of entries found.
        size: u64,
        /// Number of entries in the signed checkpoint.
        signed: u64,
        /// The file with the signed checkpoint.
        guard: PathBuf,
    },
    /// The entries do not give the root of a signed checkpoint.
    #[error(
        "the first {signed} entries of the ledger are not the ones that were signed ({}): \
         this is another log, or it was changed",
        guard.display()
    )]
    Inconsistent {
        /// Number of entries in the signed checkpoint.
        signed: u64,
        /// The file with the signed checkpoint.
        guard: PathBuf,
    },
    /// The guard file does not exist.
    #[error(
        "{} is missing: without the last signed checkpoint an older copy of the log cannot be told \
         from the log; put the file back from where it was kept",
        path.display()
    )]
    GuardMissing {
        /// Where the guard file should be.
        path: PathBuf,
    },
    /// A file holds something other than signed checkpoints of this log.
    #[error("{} at byte {offset}: {error}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Byte offset of the note in the file.
        offset: u64,
        /// Why the note was not accepted.
        error: NoteError,
    },
    /// The signer cannot be reached, or refuses.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The operating system refused to start a thread.
    #[error("cannot {doing}: {source}")]
    System {
        /// The operation, as a verb phrase: `start a thread`.
        doing: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> OpenError {
        match error {
            ReadError::File(error) => error.into(),
            ReadError::Corrupt(error) => error.into(),
            ReadError::Missing { dir } => OpenError::Missing { dir },
            ReadError::Pruned { index, first } => OpenError::PrunePoint {
                path: PathBuf::from(crate::read::prune_point::FILE),
                problem: format!("entry {index} is needed, and what is left begins at {first}"),
            },
            ReadError::PastEnd { index, size } => OpenError::File(FileError {
                doing: "read past the end of",
                path: PathBuf::from(FOLDER),
                source: io::Error::other(format!("entry {index} of {size}")),
            }),
        }
    }
}

/// Why closing did not complete. Acknowledged entries are durable in any case.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The writer had failed; entries past the durable size were not written.
    #[error("the ledger's writer had failed: {0}")]
    Failed(std::sync::Arc<WriteError>),
    /// All entries are durable, but the last tiles or the last checkpoint were not published. The next
    /// open publishes them.
    #[error("the last entries are durable, but not published: {0}")]
    NotPublished(PublishError),
}

/// Why tiles or a checkpoint could not be published. The publisher tries again.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The segments on disk do not hold what was written.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The guard did not accept the checkpoint. Unless it still holds the previous one, the writer
    /// fails.
    #[error(transparent)]
    Guard(#[from] SwapError),
    /// The signer did not sign the checkpoint.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The root computed from the disk differs from the one the committer computed.
    #[error("the entries on disk up to {size} do not give the root that was written with them")]
    Root {
        /// Size of the log at the root that differs, in entries.
        size: u64,
    },
    /// The publisher's thread panicked.
    #[error("the ledger's publisher thread ended unexpectedly")]
    ThreadEnded,
}

/// Why a log could not be pruned. No entry was removed.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// An entry could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The checkpoint to prune at is malformed, or its signature does not verify.
    #[error("the checkpoint to prune at: {0}")]
    Note(#[from] NoteError),
    /// The entries before the checkpoint do not give its root.
    #[error("the first {size} entries do not give the root that was signed")]
    Root {
        /// Number of entries before the checkpoint.
        size: u64,
    },
    /// The visitor refused to let an entry go.
    #[error("entry {index} is not to go")]
    Refused {
        /// Index of the entry.
        index: u64,
    },
}
