//! The signing key with a memory of its own, for a process apart from the one that keeps the log.
//!
//! A keeper signs only what goes on from what it signed before, by proof, and knows that from a
//! file of its own. Whoever has taken over the log's process can have new entries signed, but can
//! have nothing rewritten, forked or cut off.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskLock, OpenMode, parent, read_file};
use crate::format::error::FileError;
use crate::format::merkle::{Hash, empty_root, verify_growth};
use crate::format::note::{Checkpoint, NOTE_BYTES_MAX, NoteError, VerifierKey};
use crate::keys::key::{LogKey, sign_note};
use crate::keys::key_file::{KeyFile, KeyFileError, replace_secret};
use crate::keys::signer::Signer as _;

/// Why a keeper could not be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// Its file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A rotation of the key could not be ended.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// There is no file yet, or it is gone.
    #[error(
        "{} is missing: without it the signer does not know what it has signed, and would sign \
         another history",
        path.display()
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// There is a file already.
    #[error("{} is already there: what was signed is never forgotten", path.display())]
    AlreadyThere {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read or change the file.
    #[error("{} is open to others (mode {mode:03o}); make it 600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another process works with the file.
    #[error("another process signs by {}", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It does not hold a checkpoint that the key has signed.
    #[error("{}: {error}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: NoteError,
    },
}

/// Why a keeper did not sign.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// Not a checkpoint of this log.
    #[error(transparent)]
    Checkpoint(#[from] NoteError),
    /// It has signed another size than the one that was taken for its last: the proof must go on
    /// from there.
    #[error("the last size signed is {size}")]
    Elsewhere {
        /// Number of entries in the last checkpoint it signed.
        size: u64,
    },
    /// It covers less than was signed before.
    #[error("it covers {size} entries, but {signed} were signed")]
    Shorter {
        /// Entries it covers.
        size: u64,
        /// Entries signed.
        signed: u64,
    },
    /// It does not go on from what was signed before.
    #[error("it does not go on from the {signed} entries that were signed")]
    Fork {
        /// Entries signed.
        signed: u64,
    },
    /// The key is to be changed after a checkpoint that is not the last one it signed.
    #[error("the key can be changed after the {signed} entries that were signed, and no others")]
    NotLast {
        /// Entries signed.
        signed: u64,
    },
    /// The key could not be changed.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// What was signed could not be remembered, so it is not given away.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A key, and the last checkpoint it has signed.
pub struct Keeper {
    name: String,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    held: Mutex<Held>,
    _lock: Box<dyn DiskLock>,
}

struct Held {
    key: KeyFile,
    last: Checkpoint,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// Begins to remember in the new file `path`, 0600: from `from`, the newest checkpoint the key
    /// has signed, or from nothing, for a key that has signed none.
    ///
    /// # Errors
    /// When the file exists or cannot be made, or `from` is not signed by the key.
    pub fn create(
        disk: &dyn Disk,
        path: &Path,
        key: &LogKey,
        from: Option<&[u8]>,
    ) -> Result<(), KeeperError> {
        let note = match from {
            Some(note) => {
                check(&[key.verifier()], note, path)?;
                note.to_vec()
            }
            None => {
                let empty = Checkpoint {
                    origin: key.name().to_owned(),
                    size: 0,
                    root: empty_root(),
                };
                sign_note(&empty.to_string(), &[key]).into_bytes()
            }
        };
        let file = match disk.open(path, OpenMode::CreateSecret) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(KeeperError::AlreadyThere {
                    path: path.to_path_buf(),
                });
            }
            opened => opened.map_err(FileError::at("create", path))?,
        };
        file.write_all_at(&note, 0)
            .map_err(FileError::at("write", path))?;
        file.sync_data().map_err(FileError::at("sync", path))?;
        disk.sync_dir(parent(path))
            .map_err(FileError::at("sync the directory of", path))?;
        Ok(())
    }

    /// Goes on from what the file says.
    ///
    /// # Errors
    /// When it is missing, open to others, in use, or not what the key has signed.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        key: impl Into<KeyFile>,
    ) -> Result<Keeper, KeeperError> {
        let mut key = key.into();
        let mode = match disk.permissions(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeeperError::Missing {
                    path: path.to_path_buf(),
                });
            }
            mode => mode.map_err(FileError::at("read", path))?,
        };
        if mode & 0o077 != 0 {
            return Err(KeeperError::Exposed {
                path: path.to_path_buf(),
                mode,
            });
        }
        let mut lock = path.as_os_str().to_os_string();
        lock.push(".lock");
        let taken = disk.try_lock(Path::new(&lock));
        let taken = taken.map_err(FileError::at("lock", Path::new(&lock)))?;
        let lock = taken.ok_or_else(|| KeeperError::Locked {
            path: path.to_path_buf(),
        })?;
        let note =
            read_file(&*disk, path, NOTE_BYTES_MAX as u64).map_err(FileError::at("read", path))?;
        let last = check(&key.verifiers(), &note, path)?;
        if key.pending().is_some_and(|r| last.size > r.size) {
            key.finish()?;
        }
        Ok(Keeper {
            name: key.name().to_owned(),
            disk,
            path: path.to_path_buf(),
            held: Mutex::new(Held { key, last }),
            _lock: lock,
        })
    }

    /// The name of the log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public half of the key that signs from now on.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        self.held().key.verifier()
    }

    /// The newest statement that the key took the place of another, or takes it after so many entries,
    /// as a signed note.
    #[must_use]
    pub fn rotation(&self) -> Option<String> {
        self.held().key.statement().map(str::to_owned)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of entries in the last checkpoint it signed.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.held().last.size
    }

    /// The number that marks frames of an epoch, see [`crate::Signer::frame_nonces`].
    #[must_use]
    pub fn frame_nonce(&self, epoch: u64) -> u64 {
        self.held().key.frame_nonce(epoch)
    }

    /// States that the key prepared beside this one takes its place after the checkpoint `text`, which
    /// must be the last one that was signed. Asked again, it states the same. See [`KeyFile`].
    ///
    /// # Errors
    /// See [`KeepError`]. Nothing is stated then, unless a file may have been written all the same.
    pub fn rotate(&self, text: &str) -> Result<String, KeepError> {
        let checkpoint = self.parse(text)?;
        let mut held = self.held();
        let signed = held.last.size;
        // Once the new key has signed, the question is answered by `rotation`.
        if checkpoint != held.last {
            return Err(KeepError::NotLast { signed });
        }
        Ok(held.key.hand_over(&checkpoint)?)
    }

    /// Reads a checkpoint of this log, and nothing else.
    fn parse(&self, text: &str) -> Result<Checkpoint, KeepError> {
        let checkpoint = Checkpoint::parse(text)?;
        // Extension lines would be signed unread.
        if checkpoint.to_string() != text {
            return Err(NoteError::Checkpoint("more than origin, size and root").into());
        }
        if checkpoint.origin != self.name {
            return Err(NoteError::Origin {
                found: checkpoint.origin,
                expected: self.name.clone(),
            }
            .into());
        }
        Ok(checkpoint)
    }

    /// Signs the checkpoint `text`, which `proof` shows to go on from the last one, of `old`
    /// entries. It is remembered durably before it is given away.
    ///
    /// # Errors
    /// See [`KeepError`]. Nothing is signed then.
    pub fn sign(&self, text: &str, old: u64, proof: &[Hash]) -> Result<String, KeepError> {
        let checkpoint = self.parse(text)?;
        let mut held = self.held();
        let Held { key, last } = &mut *held;
        let signed = last.size;
        if checkpoint.size < signed {
            return Err(KeepError::Shorter {
                size: checkpoint.size,
                signed,
            });
        }
        if old != signed {
            return Err(KeepError::Elsewhere { size: signed });
        }
        verify_growth(signed, checkpoint.size, proof, &last.root, &checkpoint.root)
            .map_err(|_| KeepError::Fork { signed })?;
        let by_next = key.pending().is_some_and(|r| checkpoint.size > r.size);
        if by_next {
            key.settle()?;
        }
        let note = key.sign(text, checkpoint.size);
        if checkpoint != *last {
            // Where this fails it may have happened all the same; what it then remembers goes on
            // from what it knows, and the same question later leads on.
            let replaced = replace_secret(&*self.disk, &self.path, note.as_bytes());
            replaced.map_err(FileError::at("replace", &self.path))?;
            *last = checkpoint;
        }
        if by_next {
            // The statement is in what was signed. What fails here is made up for at the next start.
            key.finish()?;
        }
        Ok(note)
    }
}

fn check(keys: &[VerifierKey], note: &[u8], path: &Path) -> Result<Checkpoint, KeeperError> {
    Checkpoint::verify(note, keys).map_err(|error| KeeperError::Checkpoint {
        path: path.to_path_buf(),
        error,
    })
}
