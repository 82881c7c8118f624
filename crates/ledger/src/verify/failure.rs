//! What verification finds to be wrong, and where.

use std::fmt;
use std::path::PathBuf;

use crate::format::merkle::Hash;
use crate::format::note::NoteError;
use crate::format::segment::CorruptionKind;
use crate::keys::rotation::RotationError;

/// Where something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The file or directory.
    pub path: PathBuf,
    /// Byte offset in it, where that makes sense.
    pub offset: Option<u64>,
    /// Index of the first entry concerned, or the size of the log concerned.
    pub index: Option<u64>,
    /// What is wrong.
    pub kind: FailureKind,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        if let Some(index) = self.index {
            write!(f, " (entry {index})")?;
        }
        write!(f, ": {}", self.kind)
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FailureKind {
    /// A segment holds something that no crash leaves behind.
    #[error("{0}")]
    Segment(CorruptionKind),
    /// A file that must be there is not.
    #[error("the file is missing")]
    Missing,
    /// A file is there that nothing explains.
    #[error("nothing explains this file")]
    Unexpected,
    /// A tile is not what the entries make.
    #[error("the tile is not what the entries make")]
    Tile,
    /// A signed checkpoint is malformed, of another log, or not rightly signed.
    #[error("{0}")]
    Note(NoteError),
    /// The record around a signed checkpoint is malformed or cut off.
    #[error("the record of a checkpoint is malformed or cut off")]
    Record,
    /// A checkpoint is not larger than the one before it.
    #[error("the checkpoint of size {size} follows one of size {before}")]
    Order {
        /// The size of this one.
        size: u64,
        /// The size of the one before.
        before: u64,
    },
    /// The entries do not give the root that was signed.
    #[error("the entries give the root {computed}, but {signed} was signed for size {size}")]
    Root {
        /// The size signed.
        size: u64,
        /// The root signed.
        signed: Hash,
        /// The root of the entries that are there.
        computed: Hash,
    },
    /// Fewer entries than were signed.
    #[error("{signed} entries were signed, but only {size} are there")]
    TooSmall {
        /// The size signed.
        signed: u64,
        /// The entries found.
        size: u64,
    },
    /// `checkpoint` is not the newest of `checkpoints`, nor the one before, as an interruption leaves it.
    #[error("this is neither the last of the checkpoints published nor the one before")]
    NotNewest,
    /// A rotation of the log's key does not hold.
    #[error("{0}")]
    Rotation(RotationError),
    /// The log is whole, and another's.
    #[error("none of the keys that were given has ever signed this log")]
    ForeignKeys,
    /// What an earlier verification is said to have come to cannot be gone on from.
    #[error("{0}")]
    VerifiedState(String),
    /// Something cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}
