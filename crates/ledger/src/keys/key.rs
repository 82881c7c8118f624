//! The log's signing key: one file, readable by its owner only.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::Zeroizing;

use crate::disk::{Disk, OpenMode, RealDisk, parent, read_file};
use crate::format::error::FileError;
use crate::format::note::{VerifierKey, check_name};

/// First line of a key file.
const HEADER: &str = "curfew-log-key-1";

/// Longest key file, in bytes: header 16, name 256, seed 44 in base64, three newlines; doubled.
pub(crate) const KEY_FILE_BYTES_MAX: u64 = 1024;

/// Why a key could not be created or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Others than the owner may read or change the file.
    #[error("{} is open to others (mode {mode:03o}); make it 600", path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not a key file.
    #[error("{} is not a key file: {problem}", path.display())]
    Malformed {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// The name cannot be that of a key.
    #[error("{name:?} cannot name a log: {problem}")]
    Name {
        /// The name asked for.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes: {0}")]
    Random(io::Error),
}

/// Writes a secret to a new file of mode 0600, durably.
pub(crate) fn write_secret(disk: &dyn Disk, path: &Path, text: &str) -> Result<(), FileError> {
    let file = disk
        .open(path, OpenMode::CreateSecret)
        .map_err(FileError::at("create", path))?;
    file.write_all_at(text.as_bytes(), 0)
        .map_err(FileError::at("write", path))?;
    file.sync_data().map_err(FileError::at("sync", path))?;
    disk.sync_dir(parent(path))
        .map_err(FileError::at("sync the directory of", path))
}

/// Reads a secret of at most `bytes_max` bytes, unless others than its owner may read or change it.
pub(crate) fn read_secret(
    disk: &dyn Disk,
    path: &Path,
    bytes_max: u64,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let mode = disk
        .permissions(path)
        .map_err(FileError::at("read", path))?;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed {
            path: path.to_path_buf(),
            mode,
        });
    }
    let bytes = read_file(disk, path, bytes_max).map_err(FileError::at("read", path))?;
    Ok(Zeroizing::new(bytes))
}

/// The secret key of a log with its name. The secret is wiped when dropped and never printed.
#[derive(Clone)]
pub struct LogKey {
    name: String,
    key: SigningKey,
}

impl LogKey {
    /// Makes a key for the log `name` and writes it to a new file of mode 0600.
    ///
    /// # Errors
    /// When the file exists, cannot be written, or the name is empty, longer than 256 bytes or has
    /// spaces, control characters or `+` in it.
    pub fn create(path: &Path, name: &str) -> Result<LogKey, KeyError> {
        LogKey::create_on(&RealDisk, path, name)
    }

    /// The same on another disk.
    ///
    /// # Errors
    /// As [`LogKey::create`].
    pub fn create_on(disk: &dyn Disk, path: &Path, name: &str) -> Result<LogKey, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|e| KeyError::Random(e.into()))?;
        let key = LogKey::from_seed(name, &seed)?;
        let text = Zeroizing::new(format!("{HEADER}\n{name}\n{}\n", STANDARD.encode(*seed)));
        write_secret(disk, path, &text)?;
        Ok(key)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// When it cannot be read, is malformed, or anybody but its owner may read or write it.
    pub fn load(path: &Path) -> Result<LogKey, KeyError> {
        LogKey::load_on(&RealDisk, path)
    }

    pub(crate) fn load_on(disk: &dyn Disk, path: &Path) -> Result<LogKey, KeyError> {
        let malformed = |problem| KeyError::Malformed {
            path: path.to_path_buf(),
            problem,
        };
        let bytes = read_secret(disk, path, KEY_FILE_BYTES_MAX)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed("not text"))?;
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Err(malformed("the first line is not curfew-log-key-1"));
        }
        let name = lines.next().ok_or_else(|| malformed("no name"))?;
        let seed = lines.next().ok_or_else(|| malformed("no key"))?;
        let seed = Zeroizing::new(STANDARD.decode(seed).map_err(|_| malformed("bad base64"))?);
        let seed: &[u8; 32] = seed
            .as_slice()
            .try_into()
            .map_err(|_| malformed("the key is not 32 bytes"))?;
        if lines.next().is_some() {
            return Err(malformed("more than three lines"));
        }
        LogKey::from_seed(name, seed)
    }

    /// A key from its 32 secret bytes (RFC 8032), for tests and for key stores of the caller's own.
    ///
    /// # Errors
    /// [`KeyError::Name`] when `name` cannot be that of a key.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<LogKey, KeyError> {
        check_name(name).map_err(|problem| KeyError::Name {
            name: name.to_owned(),
            problem,
        })?;
        Ok(LogKey {
            name: name.to_owned(),
            key: SigningKey::from_bytes(seed),
        })
    }

    /// The public half.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey::new(self.name.clone(), self.key.verifying_key())
    }

    /// The name of the log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number that marks the frames of an epoch: only the holder of the key can tell it, so no
    /// entry can pass for a frame, and recovery can check it (see [`crate::format::segment`]).
    pub(crate) fn frame_nonce(&self, epoch: u64) -> u64 {
        // The zero byte keeps this apart from notes, which have no control characters.
        let text = format!("\0curfew frame nonce {epoch}");
        let hash = crate::format::merkle::leaf_hash(&self.sign(text.as_bytes()));
        let mut nonce = [0; 8];
        nonce.copy_from_slice(&hash.0[..8]);
        u64::from_le_bytes(nonce)
    }

    pub(crate) fn sign(&self, text: &[u8]) -> [u8; 64] {
        self.key.sign(text).to_bytes()
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogKey({})", self.verifier())
    }
}

/// Signs `text`, which must end in a newline, with each of `keys`, and gives the whole note.
pub(crate) fn sign_note(text: &str, keys: &[&LogKey]) -> String {
    let mut note = format!("{text}\n");
    for key in keys {
        note.push_str(&key.verifier().signature_line(&key.sign(text.as_bytes())));
    }
    note
}
