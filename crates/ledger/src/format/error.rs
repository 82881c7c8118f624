//! What can go wrong with a file or an entry of the log, and where.

use std::io;
use std::path::{Path, PathBuf};

use crate::format::segment::Corruption;

/// An operation on a file failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {source}", path.display())]
pub struct FileError {
    /// What was being done, as a verb: `read`, `write`, `sync`, …
    pub doing: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the disk said.
    pub source: io::Error,
}

impl FileError {
    pub(crate) fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
        let path = path.to_path_buf();
        move |source| FileError {
            doing,
            path,
            source,
        }
    }

    /// Whether the disk, or the quota on it, is full.
    #[must_use]
    pub fn is_full_disk(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

/// Why an entry could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A segment holds something that no crash leaves behind.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// There is no log in the directory.
    #[error("there is no ledger in {}", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// The entry was pruned: its hash is left, its text is not.
    #[error("entry {index} was pruned; the ledger begins at entry {first} now")]
    Pruned {
        /// The index asked for.
        index: u64,
        /// The first entry that is left.
        first: u64,
    },
    /// The log has no entry of that index (yet).
    #[error("entry {index} was asked for, but the ledger ends at {size}")]
    PastEnd {
        /// The index asked for.
        index: u64,
        /// The size of the log.
        size: u64,
    },
}
