//! A signing key that remembers what it signed, for a process apart from the one that writes the log.
//!
//! A guarded signer signs a checkpoint only if a consistency proof shows that it extends the last one it
//! signed, which it keeps in a file of its own. An attacker who has taken over the writer's process can
//! have new entries signed, but can have nothing rewritten, forked or cut off.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use crate::disk::{Disk, DiskLock, OpenMode, parent, read_file};
use crate::format::error::FileError;
use crate::format::merkle::{Hash, empty_root, verify_growth};
use crate::format::note::{Checkpoint, NOTE_BYTES_MAX, NoteError, VerifierKey};
use crate::keys::key::{LogKey, sign_note};
use crate::keys::key_file::{KeyFile, KeyFileError, replace_secret};
use crate::keys::signer::Signer as _;

/// Why a guarded signer could not be created or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardedSignerError {
    /// The file with the last checkpoint could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A rotation of the key that is under way could not be completed.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The file with the last checkpoint does not exist.
    #[error(
        "{} is missing: without it the signer does not know what it has signed, and would sign \
         another history",
        path.display()
    )]
    Missing {
        /// Where the file should be.
        path: PathBuf,
    },
    /// The file exists, and is never replaced by an empty one.
    #[error("{} is already there: what was signed is never forgotten", path.display())]
    AlreadyThere {
        /// The file.
        path: PathBuf,
    },
    /// Users other than the owner may read or change the file.
    #[error("{} is open to others (mode {mode:03o}); make it 600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits, lower nine.
        mode: u32,
    },
    /// Another process holds the lock on the file.
    #[error("another process signs by {}", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file does not hold a checkpoint signed by the key.
    #[error("{}: {error}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why its content was not accepted.
        error: NoteError,
    },
}

/// Why a guarded signer refused to sign.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignRefusal {
    /// The text is not a checkpoint of this log.
    #[error(transparent)]
    Checkpoint(#[from] NoteError),
    /// The proof starts at another size than the last one signed. The caller can ask again with a
    /// proof from this size.
    #[error("the last size signed is {size}")]
    Elsewhere {
        /// Number of entries in the last checkpoint it signed.
        size: u64,
    },
    /// The checkpoint covers fewer entries than the last one signed.
    #[error("it covers {size} entries, but {signed} were signed")]
    Shorter {
        /// Number of entries in the checkpoint to be signed.
        size: u64,
        /// Number of entries in the last checkpoint signed.
        signed: u64,
    },
    /// The proof does not show that the checkpoint extends the last one signed.
    #[error("it does not go on from the {signed} entries that were signed")]
    Fork {
        /// Number of entries in the last checkpoint signed.
        signed: u64,
    },
    /// A rotation was asked for after another checkpoint than the last one signed.
    #[error("the key can be changed after the {signed} entries that were signed, and no others")]
    NotLast {
        /// Number of entries in the last checkpoint signed.
        signed: u64,
    },
    /// The key could not be rotated.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The signed checkpoint could not be stored, so it is not returned.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A log's key together with the last checkpoint it signed; see the module text.
pub struct GuardedSigner {
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

impl fmt::Debug for GuardedSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedSigner")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl GuardedSigner {
    /// Creates the file `path` (mode 0600) with `from`, the newest checkpoint the key has signed, or
    /// with a checkpoint of no entries for a key that has signed none.
    ///
    /// # Errors
    /// When the file exists or cannot be written, or `from` is not signed by the key.
    pub fn create(
        disk: &dyn Disk,
        path: &Path,
        key: &LogKey,
        from: Option<&[u8]>,
    ) -> Result<(), GuardedSignerError> {
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
                return Err(GuardedSignerError::AlreadyThere {
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

    /// Opens the file `path`, locks it, and continues from the checkpoint in it.
    ///
    /// # Errors
    /// When the file is missing, readable by others, locked, or not signed by the key.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        key: impl Into<KeyFile>,
    ) -> Result<GuardedSigner, GuardedSignerError> {
        let mut key = key.into();
        let mode = match disk.permissions(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(GuardedSignerError::Missing {
                    path: path.to_path_buf(),
                });
            }
            mode => mode.map_err(FileError::at("read", path))?,
        };
        if mode & 0o077 != 0 {
            return Err(GuardedSignerError::Exposed {
                path: path.to_path_buf(),
                mode,
            });
        }
        let mut lock = path.as_os_str().to_os_string();
        lock.push(".lock");
        let taken = disk.try_lock(Path::new(&lock));
        let taken = taken.map_err(FileError::at("lock", Path::new(&lock)))?;
        let lock = taken.ok_or_else(|| GuardedSignerError::Locked {
            path: path.to_path_buf(),
        })?;
        let note =
            read_file(&*disk, path, NOTE_BYTES_MAX as u64).map_err(FileError::at("read", path))?;
        let last = check(&key.verifiers(), &note, path)?;
        if key.pending().is_some_and(|r| last.size > r.size) {
            key.finish()?;
        }
        Ok(GuardedSigner {
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

    /// The newest rotation statement of the key, complete or under way, as a signed note.
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

    /// Signs the statement that the prepared key replaces this one after the checkpoint `text`, which
    /// must be the last one signed. Asking again returns the same statement. See [`KeyFile`].
    ///
    /// # Errors
    /// See [`SignRefusal`]. After a file error the statement may have been stored all the same.
    pub fn rotate(&self, text: &str) -> Result<String, SignRefusal> {
        let checkpoint = self.parse(text)?;
        let mut held = self.held();
        let signed = held.last.size;
        // Once the new key has signed, `rotation` returns the statement.
        if checkpoint != held.last {
            return Err(SignRefusal::NotLast { signed });
        }
        Ok(held.key.hand_over(&checkpoint)?)
    }

    /// Parses a checkpoint of this log, without extension lines.
    fn parse(&self, text: &str) -> Result<Checkpoint, SignRefusal> {
        let checkpoint = Checkpoint::parse(text)?;
        // Extension lines would be signed without being looked at.
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

    /// Signs the checkpoint `text`, given the consistency `proof` from the last one signed, of `old`
    /// entries. The checkpoint is durable here before its signature is returned.
    ///
    /// # Errors
    /// See [`SignRefusal`]; nothing was signed.
    pub fn sign(&self, text: &str, old: u64, proof: &[Hash]) -> Result<String, SignRefusal> {
        let checkpoint = self.parse(text)?;
        let mut held = self.held();
        let Held { key, last } = &mut *held;
        let signed = last.size;
        if checkpoint.size < signed {
            return Err(SignRefusal::Shorter {
                size: checkpoint.size,
                signed,
            });
        }
        if old != signed {
            return Err(SignRefusal::Elsewhere { size: signed });
        }
        verify_growth(signed, checkpoint.size, proof, &last.root, &checkpoint.root)
            .map_err(|_| SignRefusal::Fork { signed })?;
        let by_next = key.pending().is_some_and(|r| checkpoint.size > r.size);
        if by_next {
            key.settle()?;
        }
        let note = key.sign(text, checkpoint.size);
        if checkpoint != *last {
            // If this fails, the file may have been replaced all the same. What it then holds extends
            // `last`, and asking again with the same checkpoint continues from either.
            let replaced = replace_secret(&*self.disk, &self.path, note.as_bytes());
            replaced.map_err(FileError::at("replace", &self.path))?;
            *last = checkpoint;
        }
        if by_next {
            // The signed checkpoint covers the statement. If this fails, the next open completes it.
            key.finish()?;
        }
        Ok(note)
    }
}

fn check(keys: &[VerifierKey], note: &[u8], path: &Path) -> Result<Checkpoint, GuardedSignerError> {
    Checkpoint::verify(note, keys).map_err(|error| GuardedSignerError::Checkpoint {
        path: path.to_path_buf(),
        error,
    })
}
