//! Prune points: where a pruned log begins, and what stands for the entries that are gone.
//!
//! When entries expire, the log drops their text and keeps their hashes. The file `horizon` holds the
//! prune point: a signed checkpoint, the state of the tree there, from which hashes of later entries can
//! be computed, and whatever the log's user needs to know of the entries before. It is durable before
//! the first bundle is removed, so that a crash leaves either all entries or a prune point. All hash
//! tiles stay, so proofs still work for the entries that are left and for those that are gone.
//!
//! The file is text: a line with the version of the format, the size at the prune point and the size at
//! the previous one; a line with the [`VerifiedState`]; then the user's bytes, opaque to this crate.

use std::io::ErrorKind;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::disk::{Disk, OpenMode, read_file};
use crate::format::error::FileError;
use crate::read::verified_state::VerifiedState;

/// Name of the file in the directory of the log; it is older than the term.
pub(crate) const FILE: &str = "horizon";

/// Start of the first line: the version of the format.
const HEAD: &str = "curfew horizon 1 ";

/// Longest first line, in bytes: the head, two numbers of up to 20 digits, a space, a newline.
const HEAD_BYTES_MAX: usize = HEAD.len() + 42;

/// Largest file that is read, in bytes: 256 MiB, some hundred thousand live sessions.
pub const PRUNE_POINT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The point at which a log was pruned; see the module text.
#[derive(Debug, Clone)]
pub struct PrunePoint {
    pub(crate) verified_state: VerifiedState,
    /// Size at the previous prune point, 0 if there is none: bundles between the two may still exist.
    pub(crate) before: u64,
    state: Vec<u8>,
}

impl PrunePoint {
    /// The prune point of the log in `dir`; `None` if nothing was pruned.
    ///
    /// # Errors
    /// When the file cannot be read or is malformed.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<PrunePoint>, FileError> {
        let path = dir.join(FILE);
        let bytes = match read_file(disk, &path, PRUNE_POINT_BYTES_MAX as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::at("read", &path)(error)),
        };
        match PrunePoint::decode(&bytes) {
            Some(prune_point) => Ok(Some(prune_point)),
            None => Err(malformed(&path)),
        }
    }

    /// Number of entries pruned from the log in `dir`; 0 if all are there.
    ///
    /// # Errors
    /// When the file cannot be read or is malformed.
    pub fn size_at(disk: &dyn Disk, dir: &Path) -> Result<u64, FileError> {
        let path = dir.join(FILE);
        let file = match disk.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(FileError::at("open", &path)(error)),
        };
        let mut head = [0; HEAD_BYTES_MAX];
        let read = file.read_at(&mut head, 0);
        let read = read.map_err(FileError::at("read", &path))?;
        let line = head[..read].split(|byte| *byte == b'\n').next();
        let sizes = line.and_then(parse_head);
        sizes.map(|(size, _)| size).ok_or_else(|| malformed(&path))
    }

    /// A prune point at `verified_state`, after the prune point `earlier`. `state` is what the log's user
    /// needs to know of the entries before it.
    #[must_use]
    pub fn new(
        verified_state: VerifiedState,
        earlier: Option<&PrunePoint>,
        state: Vec<u8>,
    ) -> PrunePoint {
        PrunePoint {
            verified_state,
            before: earlier.map_or(0, PrunePoint::size),
            state,
        }
    }

    /// Number of entries before it, which is the index of the first entry that is left.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.verified_state.size()
    }

    /// The point from which verification continues.
    #[must_use]
    pub fn verified_state(&self) -> &VerifiedState {
        &self.verified_state
    }

    /// What the log's user keeps of the entries before it, as it was given to [`PrunePoint::new`].
    #[must_use]
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    /// SHA-256 of the whole file, in lower-case hexadecimal. A later entry should name it, so that the
    /// log itself vouches for the prune point.
    #[must_use]
    pub fn digest(&self) -> String {
        let digest: [u8; 32] = Sha256::digest(self.encode()).into();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The content of the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let head = format!("{HEAD}{} {}\n", self.size(), self.before);
        let verified_state = format!("{}\n", self.verified_state.encode());
        [head.as_bytes(), verified_state.as_bytes(), &self.state].concat()
    }

    fn decode(bytes: &[u8]) -> Option<PrunePoint> {
        let (head, rest) = split_line(bytes)?;
        let (verified_state, state) = split_line(rest)?;
        let (size, before) = parse_head(head)?;
        let verified_state =
            VerifiedState::decode(std::str::from_utf8(verified_state).ok()?).ok()?;
        (verified_state.size() == size && before < size).then(|| PrunePoint {
            verified_state,
            before,
            state: state.to_vec(),
        })
    }
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn parse_head(line: &[u8]) -> Option<(u64, u64)> {
    let sizes = std::str::from_utf8(line).ok()?.strip_prefix(HEAD)?;
    let (size, before) = sizes.split_once(' ')?;
    let sizes = (size.parse().ok()?, before.parse().ok()?);
    // Only the canonical form is accepted.
    (format!("{HEAD}{} {}", sizes.0, sizes.1).as_bytes() == line).then_some(sizes)
}

fn malformed(path: &Path) -> FileError {
    let source = std::io::Error::new(
        ErrorKind::InvalidData,
        "this is not the prune point of a log",
    );
    FileError::at("make sense of", path)(source)
}
