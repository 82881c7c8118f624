//! What can go wrong while a log is opened, written, published or pruned.

use std::io;
use std::path::PathBuf;

use crate::format::error::{FileError, ReadError};
use crate::format::note::NoteError;
use crate::format::segment::{Corruption, FOLDER};
use crate::keys::signer::SignError;
use crate::write::guard::SwapError;

/// Why an entry was not taken. None of these leaves a trace in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue is at its bound: the disk is slower than the callers. Try again later.
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
    /// An entry has at least one byte.
    #[error("an entry may not be empty")]
    Empty,
    /// The disk is full and what is left is reserved (or used up).
    #[error("no space is left for the ledger")]
    NoSpace,
}

/// Why the writer failed. Nothing it did not acknowledge may be counted on.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A write, sync or rename failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The guard holds another checkpoint, or nobody can tell which: what was signed must be read
    /// again before anything else is.
    #[error("the last signed checkpoint cannot be relied on: {problem}")]
    Guard {
        /// What came of the swap.
        problem: String,
    },
    /// What must be durable before the entries could not be made so.
    #[error("what belongs to the entries cannot be kept: {problem}")]
    Companion {
        /// What went wrong.
        problem: String,
    },
    /// A thread of the writer ended without saying why.
    #[error("the ledger's {thread} thread ended unexpectedly")]
    ThreadEnded {
        /// Which one.
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
    /// There is something where a log was to be created.
    #[error("{} is already there: a ledger is never created over another", path.display())]
    AlreadyThere {
        /// What is in the way.
        path: PathBuf,
    },
    /// Where the log begins after pruning is not as it must be.
    #[error("{}: {problem}", path.display())]
    PrunePoint {
        /// The file that says where.
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
        /// Its value.
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
    /// The log has fewer entries than were signed.
    #[error(
        "the ledger has {size} entries, but {signed} were signed ({}): this is an older copy of the log",
        guard.display()
    )]
    OlderCopy {
        /// Entries found.
        size: u64,
        /// Entries signed.
        signed: u64,
        /// The file with the signed checkpoint.
        guard: PathBuf,
    },
    /// The log has other entries than were signed.
    #[error(
        "the first {signed} entries of the ledger are not the ones that were signed ({}): \
         this is another log, or it was changed",
        guard.display()
    )]
    Inconsistent {
        /// Entries signed.
        signed: u64,
        /// The file with the signed checkpoint.
        guard: PathBuf,
    },
    /// The guard file is gone.
    #[error(
        "{} is missing: without the last signed checkpoint an older copy of the log cannot be told \
         from the log; put the file back from where it was kept",
        path.display()
    )]
    GuardMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A file that should hold signed checkpoints of this log does not.
    #[error("{} at byte {offset}: {error}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Byte offset of the note in the file.
        offset: u64,
        /// What is wrong with it.
        error: NoteError,
    },
    /// Who signs for the log cannot be asked, or will not.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The operating system would not give a thread or random bytes.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
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

/// Why closing did not end as it should. Acknowledged entries are safe in any case.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The writer had failed; entries past the durable size were not written.
    #[error("the ledger's writer had failed: {0}")]
    Failed(std::sync::Arc<WriteError>),
    /// All entries are durable, but the last tiles or the last checkpoint could not be published.
    /// They are made up for at the next open.
    #[error("the last entries are durable, but not published: {0}")]
    NotPublished(PublishError),
}

/// Why tiles or a checkpoint could not be published. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is on disk is not what was written.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The guard did not take the checkpoint. Unless the one before still stands, the writer fails.
    #[error(transparent)]
    Guard(#[from] SwapError),
    /// Nobody signed the checkpoint.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The root computed from the disk differs from the one the committer computed.
    #[error("the entries on disk up to {size} do not give the root that was written with them")]
    Root {
        /// The size in question.
        size: u64,
    },
    /// The publisher's thread ended without saying why.
    #[error("the ledger's publisher thread ended unexpectedly")]
    ThreadEnded,
}

/// Why a log could not be pruned. Nothing is lost by it.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// An entry could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The checkpoint to prune at is malformed or not rightly signed.
    #[error("the checkpoint to prune at: {0}")]
    Note(#[from] NoteError),
    /// The entries are not what was signed.
    #[error("the first {size} entries do not give the root that was signed")]
    Root {
        /// How many they are.
        size: u64,
    },
    /// Whoever looked at the entries does not want them to go.
    #[error("entry {index} is not to go")]
    Refused {
        /// Which.
        index: u64,
    },
}
