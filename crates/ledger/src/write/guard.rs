//! The guard: the last signed checkpoint, in a small store apart from the data.
//!
//! It is changed by compare-and-swap alone: who wants to sign a new checkpoint names the one it goes
//! on from. So of two writers that stand on copies of one disk, the second to sign finds that the
//! log has gone on without it, and stops. A swap of which nobody can tell whether it took place is
//! not tried again: the log is opened anew, which reads what the guard really holds.
//!
//! Here the store is a file. One that swaps by itself (a row of a database, an object with
//! `If-Match`) takes the place of [`Guard`] with the same two operations.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, parent, read_file, replace_file_steps};
use crate::format::error::FileError;
use crate::format::note::NOTE_BYTES_MAX;

/// Why a checkpoint was not put in the place of the one before it.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// The one before still stands: the swap can be tried again.
    #[error(transparent)]
    NotSwapped(FileError),
    /// The guard holds another checkpoint than this writer left there.
    #[error(
        "{} was changed by another writer: two copies of this log are in use; stop the other one, \
         and go on with the copy whose checkpoint the file holds",
        path.display()
    )]
    Conflict {
        /// The guard file.
        path: PathBuf,
    },
    /// Nobody can tell which of the two it holds after a crash.
    #[error("it is uncertain which checkpoint is kept: {0}")]
    Uncertain(FileError),
}

/// See the module text.
#[derive(Debug)]
pub(crate) struct Guard {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// What this writer knows it to hold.
    held: Vec<u8>,
}

impl Guard {
    /// A guard that was read to hold the note `held`.
    pub(crate) fn new(disk: Arc<dyn Disk>, path: &Path, held: &str) -> Guard {
        Guard {
            disk,
            path: path.to_path_buf(),
            held: held.as_bytes().to_vec(),
        }
    }

    /// Puts `note` in the place of the one it is known to hold, durably.
    pub(crate) fn swap(&mut self, note: &str) -> Result<(), SwapError> {
        let disk = &*self.disk;
        let failed = |doing| {
            let path = self.path.clone();
            move |error| FileError::at(doing, &path)(error)
        };
        let lock = lock_path(&self.path);
        let locked = disk.try_lock(&lock).map_err(FileError::at("lock", &lock));
        let Some(_locked) = locked.map_err(SwapError::NotSwapped)? else {
            let busy = ErrorKind::WouldBlock.into();
            return Err(SwapError::NotSwapped(failed("lock")(busy)));
        };
        let found = read_file(disk, &self.path, NOTE_BYTES_MAX as u64);
        let found = found.map_err(|error| SwapError::NotSwapped(failed("read")(error)))?;
        if found != self.held {
            let path = self.path.clone();
            return Err(SwapError::Conflict { path });
        }
        replace_file_steps(disk, &self.path, note.as_bytes()).map_err(|(named, error)| {
            let error = failed("replace")(error);
            if named {
                SwapError::Uncertain(error)
            } else {
                SwapError::NotSwapped(error)
            }
        })?;
        self.held = note.as_bytes().to_vec();
        Ok(())
    }
}

/// Makes what the guard was read to hold survive a crash: a swap that was uncertain may have left it
/// to the cache, and a second sync of what failed proves nothing, so it is written anew. On a full
/// disk its name is all that can be seen to; `checkpoints` then still has what it lists.
pub(crate) fn settle(disk: &dyn Disk, path: &Path, held: &str) -> Result<(), FileError> {
    let outcome = match replace_file_steps(disk, path, held.as_bytes()) {
        Err((false, error)) if is_full(&error) => disk.sync_dir(parent(path)),
        outcome => outcome.map_err(|(_, error)| error),
    };
    outcome.map_err(FileError::at("settle", path))
}

fn is_full(error: &std::io::Error) -> bool {
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
    full.contains(&error.kind())
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".lock");
    name.into()
}
