//! The signing key where it lies, and how another takes its place without a moment in which no key
//! opens the log.
//!
//! ```text
//! KEY             the key that signs
//! KEY.next        the one that is to take its place, made beforehand
//! KEY.rotation    the newest statement that one took the place of another, signed by both
//! ```
//!
//! The order of a rotation, each step durable before the next:
//!
//! 1. [`KeyFile::prepare`] makes KEY.next. It has signed nothing, and can be made anew at any time.
//! 2. All of the log is signed by the old key. [`KeyFile::hand_over`] writes the statement over just
//!    that to KEY.rotation. From here on it goes forward only: the old key signs nothing more.
//! 3. The statement becomes the log's next entry, and the new key signs a checkpoint over it, which the
//!    guard and `checkpoints` take.
//! 4. [`KeyFile::finish`] gives KEY.next the name KEY. The old key is gone.
//!
//! Between 2 and 4 both keys are at hand ([`KeyFile::pending`]), so the log opens whatever its newest
//! checkpoint is signed by; and which key signs what follows from the statement alone: up to its size the old
//! one, later the new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use crate::disk::{Disk, OpenMode, parent, read_file, replace_file_durably};
use crate::format::error::FileError;
use crate::format::note::{Checkpoint, VerifierKey};
use crate::keys::key::{KEY_FILE_BYTES_MAX, KeyError, LogKey, read_secret, sign_note};
use crate::keys::rotation::{ROTATION_BYTES_MAX, Rotation, RotationError};
use crate::keys::signer::{Extends, SignError, Signer};

/// Why a key cannot be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Another file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file with the statement holds none that holds.
    #[error("{}: {error}", path.display())]
    Rotation {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: RotationError,
    },
    /// The statement is about other keys than lie beside it.
    #[error(
        "{} is not the key that {} says signs from {size} entries on: it is an older copy, or of \
         another log",
        key.display(), rotation.display()
    )]
    Retired {
        /// The key file.
        key: PathBuf,
        /// The file with the statement.
        rotation: PathBuf,
        /// Number of entries after which the key was to be changed.
        size: u64,
    },
    /// A rotation is under way.
    #[error("a key rotation after {size} entries is not finished yet")]
    Pending {
        /// Number of entries it goes on from.
        size: u64,
    },
    /// No new key was made.
    #[error("{} is missing: no new key was made", path.display())]
    NotPrepared {
        /// Where it should be.
        path: PathBuf,
    },
    /// The key lies in no file.
    #[error("the key lies in no file, so it cannot be changed")]
    NoFile,
}

/// A key, with the one before it while a rotation is not finished.
#[derive(Clone)]
pub struct KeyFile {
    place: Option<(Arc<dyn Disk>, PathBuf)>,
    key: LogKey,
    /// The key that signed until the rotation that is under way.
    before: Option<(LogKey, Rotation)>,
    /// The statement in KEY.rotation.
    statement: Option<String>,
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile({:?})", self.key)
    }
}

impl From<LogKey> for KeyFile {
    /// A key that lies in no file, and cannot be changed.
    fn from(key: LogKey) -> KeyFile {
        KeyFile {
            place: None,
            key,
            before: None,
            statement: None,
        }
    }
}

impl KeyFile {
    /// Takes up the key in `path`, and with it a rotation that is not finished.
    ///
    /// # Errors
    /// When a file cannot be read, is open to others than its owner, or they do not belong together.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<KeyFile, KeyFileError> {
        let key = LogKey::load_on(&*disk, path)?;
        let aside = beside(path, ".rotation");
        let Some((statement, rotation)) = read_statement(&*disk, &aside)? else {
            return Ok(KeyFile {
                place: Some((disk, path.to_path_buf())),
                ..key.into()
            });
        };
        let (before, key) = if rotation.new == key.verifier() {
            (None, key)
        } else {
            let next = beside(path, ".next");
            let retired = || KeyFileError::Retired {
                key: path.to_path_buf(),
                rotation: aside.clone(),
                size: rotation.size,
            };
            if rotation.old != key.verifier() || !exists(&*disk, &next) {
                return Err(retired());
            }
            let next = LogKey::load_on(&*disk, &next)?;
            if next.verifier() != rotation.new {
                return Err(retired());
            }
            (Some((key, rotation)), next)
        };
        Ok(KeyFile {
            place: Some((disk, path.to_path_buf())),
            key,
            before,
            statement: Some(statement),
        })
    }

    /// The name of the log.
    #[must_use]
    pub fn name(&self) -> &str {
        self.key.name()
    }

    /// The public half of the key that signs from now on.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        self.key.verifier()
    }

    /// The rotation that is under way: stated, and not finished.
    #[must_use]
    pub fn pending(&self) -> Option<&Rotation> {
        self.before.as_ref().map(|(_, rotation)| rotation)
    }

    /// The newest statement on a rotation, finished or not, as the signed note it is.
    #[must_use]
    pub fn statement(&self) -> Option<&str> {
        self.statement.as_deref()
    }

    /// The key that is to take this one's place, where one was made.
    ///
    /// # Errors
    /// When its file cannot be used.
    pub fn prepared(&self) -> Result<Option<VerifierKey>, KeyFileError> {
        let (disk, path) = self.place()?;
        let next = beside(path, ".next");
        if !exists(disk, &next) {
            return Ok(None);
        }
        Ok(Some(LogKey::load_on(disk, &next)?.verifier()))
    }

    /// Makes the key that is to take this one's place, and gives its public half. One that was made
    /// before and has not taken it is replaced.
    ///
    /// # Errors
    /// When a rotation is under way, or a file cannot be written.
    pub fn prepare(&self) -> Result<VerifierKey, KeyFileError> {
        let (disk, path) = self.place()?;
        if let Some(rotation) = self.pending() {
            let size = rotation.size;
            return Err(KeyFileError::Pending { size });
        }
        let next = beside(path, ".next");
        remove(disk, &next)?;
        Ok(LogKey::create_on(disk, &next, self.name())?.verifier())
    }

    /// States that the prepared key takes this one's place after `checkpoint`, which covers all of the
    /// log and is the newest that this key has signed. Gives the statement. From then on this key must
    /// sign nothing more, even where an error leaves it open whether the statement is there.
    ///
    /// # Errors
    /// When no key is prepared, another rotation is under way, or a file cannot be written.
    pub fn hand_over(&mut self, checkpoint: &Checkpoint) -> Result<String, KeyFileError> {
        if let Some(rotation) = self.pending() {
            let same = (rotation.size, rotation.root) == (checkpoint.size, checkpoint.root);
            let size = rotation.size;
            let stated = self.statement.clone().filter(|_| same);
            return stated.ok_or(KeyFileError::Pending { size });
        }
        let (disk, path) = self.place()?;
        let next_path = beside(path, ".next");
        if !exists(disk, &next_path) {
            return Err(KeyFileError::NotPrepared { path: next_path });
        }
        let next = LogKey::load_on(disk, &next_path)?;
        // Whoever made it may have been told that it is not durable, or nobody may have been told.
        let bytes = read_secret(disk, &next_path, KEY_FILE_BYTES_MAX)?;
        replace_secret(disk, &next_path, &bytes).map_err(FileError::at("write", &next_path))?;
        let aside = beside(path, ".rotation");
        let wrong = |error| KeyFileError::Rotation {
            path: aside.clone(),
            error,
        };
        let note = Rotation::sign(checkpoint, &self.key, &next).map_err(wrong)?;
        let rotation = Rotation::verify(note.as_bytes()).map_err(wrong)?;
        // Whatever comes of the write: what may be stated binds this key.
        let replaced = replace_file_durably(disk, &aside, note.as_bytes());
        let old = std::mem::replace(&mut self.key, next);
        self.before = Some((old, rotation));
        self.statement = Some(note.clone());
        replaced.map_err(FileError::at("write", &aside))?;
        Ok(note)
    }

    /// Makes the statement of a rotation under way survive a crash, whoever was told that it does: what
    /// was found may only have been in the cache.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn settle(&self) -> Result<(), KeyFileError> {
        let (Some(statement), Some(_)) = (&self.statement, &self.before) else {
            return Ok(());
        };
        let (disk, path) = self.place()?;
        let aside = beside(path, ".rotation");
        let replaced = replace_file_durably(disk, &aside, statement.as_bytes());
        Ok(replaced.map_err(FileError::at("write", &aside))?)
    }

    /// Ends a rotation whose statement is in the log, under a checkpoint of the new key that the guard
    /// and `checkpoints` have: that key takes the place of the old one, which is gone. Without a
    /// rotation under way it does nothing.
    ///
    /// # Errors
    /// When a file cannot be renamed; it can be tried again.
    pub fn finish(&mut self) -> Result<(), KeyFileError> {
        if self.before.is_none() {
            return Ok(());
        }
        let (disk, path) = self.place()?;
        let next = beside(path, ".next");
        match disk.rename(&next, path) {
            // It has the name already, from a try that then failed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let same = LogKey::load_on(disk, path)?.verifier() == self.verifier();
                if !same {
                    return Err(FileError::at("rename", &next)(error).into());
                }
            }
            named => named.map_err(FileError::at("rename", &next))?,
        }
        let synced = disk.sync_dir(parent(path));
        synced.map_err(FileError::at("sync the directory of", path))?;
        self.before = None;
        Ok(())
    }

    /// The number that marks the frames of an epoch, by the key that signs from now on.
    pub(crate) fn frame_nonce(&self, epoch: u64) -> u64 {
        self.key.frame_nonce(epoch)
    }

    /// Signs the text of a checkpoint of `size` entries by the key whose turn it is.
    pub(crate) fn sign(&self, text: &str, size: u64) -> String {
        let key = match &self.before {
            Some((old, rotation)) if size <= rotation.size => old,
            _ => &self.key,
        };
        sign_note(text, &[key])
    }

    fn place(&self) -> Result<(&dyn Disk, &Path), KeyFileError> {
        let (disk, path) = self.place.as_ref().ok_or(KeyFileError::NoFile)?;
        Ok((&**disk, path))
    }
}

impl Signer for KeyFile {
    fn name(&self) -> &str {
        KeyFile::name(self)
    }

    fn verifiers(&self) -> Vec<VerifierKey> {
        let before = self.before.iter().map(|(old, _)| old.verifier());
        std::iter::once(self.verifier()).chain(before).collect()
    }

    fn sign_checkpoint(
        &self,
        checkpoint: &Checkpoint,
        _extends: &dyn Extends,
    ) -> Result<String, SignError> {
        Ok(self.sign(&checkpoint.to_string(), checkpoint.size))
    }

    fn frame_nonces(&self, epoch: u64) -> Result<Vec<u64>, SignError> {
        let before = self.before.iter().map(|(old, _)| old.frame_nonce(epoch));
        Ok(std::iter::once(self.frame_nonce(epoch))
            .chain(before)
            .collect())
    }

    fn rotate(&self, checkpoint: &Checkpoint) -> Result<String, SignError> {
        let mut handing = self.clone();
        let stated = handing.hand_over(checkpoint);
        stated.map_err(|error| SignError::Refused(error.to_string()))
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(ending);
    name.into()
}

fn exists(disk: &dyn Disk, path: &Path) -> bool {
    disk.permissions(path).is_ok()
}

fn remove(disk: &dyn Disk, path: &Path) -> Result<(), FileError> {
    match disk.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::at("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn read_statement(
    disk: &dyn Disk,
    path: &Path,
) -> Result<Option<(String, Rotation)>, KeyFileError> {
    let bytes = match read_file(disk, path, ROTATION_BYTES_MAX as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::at("read", path)(error).into()),
    };
    let wrong = |error| KeyFileError::Rotation {
        path: path.to_path_buf(),
        error,
    };
    let rotation = Rotation::verify(&bytes).map_err(wrong)?;
    let note =
        String::from_utf8(bytes).map_err(|_| wrong(RotationError::Malformed("not UTF-8")))?;
    Ok(Some((note, rotation)))
}

/// As [`crate::disk::replace_file_durably`], but the file is its owner's alone.
pub(crate) fn replace_secret(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = beside(path, ".tmp");
    match disk.remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.open(&temporary, OpenMode::CreateSecret)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(parent(path))
}
