//! Where a pruned log begins: what stands for entries that are no longer there.
//!
//! Of entries past their time the log keeps the hashes and gives up the text. The file `horizon` says
//! where what is left begins: at a signed checkpoint, with what it takes to go on computing hashes from
//! there, and with whatever its writer must know of the entries before. It is put in place, durably,
//! before the first bundle goes, so that a crash leaves either all entries or a horizon. All hash tiles
//! stay: proofs for what is left, and for what is not, go on working.
//!
//! The file is text: a line that names its form,
//! its size and the size of the horizon before it; a line with the [`Milestone`]; and then the writer's
//! bytes, which this crate does not look into.

use std::io::ErrorKind;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::disk::{Disk, OpenMode, read_file};
use crate::format::error::FileError;
use crate::read::milestone::Milestone;

/// The file in the directory of the log.
pub(crate) const FILE: &str = "horizon";

/// Begins its first line.
const HEAD: &str = "curfew horizon 1 ";

/// Longest first line, in bytes: the head, two numbers of up to 20 digits, a space, a newline.
const HEAD_BYTES_MAX: usize = HEAD.len() + 42;

/// The largest file that is read, in bytes: 256 MiB are some hundred thousand live sessions.
pub const HORIZON_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Where a pruned log begins.
#[derive(Debug, Clone)]
pub struct Horizon {
    pub(crate) milestone: Milestone,
    /// The size of the horizon before this one: bundles between the two may not be gone yet.
    pub(crate) before: u64,
    state: Vec<u8>,
}

impl Horizon {
    /// The horizon of the log in `dir`; `None` where nothing was pruned.
    ///
    /// # Errors
    /// When the file cannot be read or is not one.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Horizon>, FileError> {
        let path = dir.join(FILE);
        let bytes = match read_file(disk, &path, HORIZON_BYTES_MAX as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::at("read", &path)(error)),
        };
        match Horizon::decode(&bytes) {
            Some(horizon) => Ok(Some(horizon)),
            None => Err(malformed(&path)),
        }
    }

    /// How many entries the log in `dir` has given up; 0 where there are all.
    ///
    /// # Errors
    /// When the file cannot be read or is not one.
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

    /// The horizon at a milestone after `earlier`, with what the log's writer must know of the entries
    /// before it.
    #[must_use]
    pub fn new(milestone: Milestone, earlier: Option<&Horizon>, state: Vec<u8>) -> Horizon {
        Horizon {
            milestone,
            before: earlier.map_or(0, Horizon::size),
            state,
        }
    }

    /// Number of entries before it: the index of the first entry that is left.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.milestone.size()
    }

    /// Where verification goes on from.
    #[must_use]
    pub fn milestone(&self) -> &Milestone {
        &self.milestone
    }

    /// What the log's writer keeps of the entries before it.
    #[must_use]
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    /// SHA-256 of the whole file, in lower-case hexadecimal: what an entry after it is to name.
    #[must_use]
    pub fn digest(&self) -> String {
        let digest: [u8; 32] = Sha256::digest(self.encode()).into();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The whole file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let head = format!("{HEAD}{} {}\n", self.size(), self.before);
        let milestone = format!("{}\n", self.milestone.encode());
        [head.as_bytes(), milestone.as_bytes(), &self.state].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Horizon> {
        let (head, rest) = split_line(bytes)?;
        let (milestone, state) = split_line(rest)?;
        let (size, before) = parse_head(head)?;
        let milestone = Milestone::decode(std::str::from_utf8(milestone).ok()?).ok()?;
        (milestone.size() == size && before < size).then(|| Horizon {
            milestone,
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
    // One pair of sizes, one text.
    (format!("{HEAD}{} {}", sizes.0, sizes.1).as_bytes() == line).then_some(sizes)
}

fn malformed(path: &Path) -> FileError {
    let source = std::io::Error::new(ErrorKind::InvalidData, "this says no horizon of a log");
    FileError::at("make sense of", path)(source)
}
