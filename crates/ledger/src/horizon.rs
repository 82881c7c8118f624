//! Where a pruned log begins: what stands for entries that are no longer there.
//!
//! Of entries past their time the log keeps the hashes and gives up the text. The file `horizon` says
//! where what is left begins: at a signed checkpoint, with what it takes to go on computing hashes from
//! there, and with whatever its writer must know of the entries before. It is put in place, durably,
//! before the first bundle goes, so that a crash leaves either all entries or a horizon. All hash tiles
//! stay: proofs for what is left, and for what is not, go on working.
//!
//! Only what is sealed (see [`crate::seal`]) is pruned. The file is text: a line that names its form,
//! its size and the size of the horizon before it; a line with the [`Milestone`]; and then the writer's
//! bytes, which this crate does not look into.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::bundles::full;
use crate::checkpoints::{Record, Records};
use crate::disk::{Disk, OpenMode, parent, read_file, replace_file_durably};
use crate::entries::Entries;
use crate::error::FileError;
use crate::key_chain::KeyChain;
use crate::milestone::Milestone;
use crate::note::{Checkpoint, VerifierKey};
use crate::segment::list_segments;
use crate::tile::{TILE_WIDTH, TileKind};
use crate::write_error::PruneError;

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
    milestone: Milestone,
    /// The size of the horizon before this one: bundles between the two may not be gone yet.
    before: u64,
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

    /// Puts it in place, durably. What it stands for may go from then on; see [`Horizon::clear`].
    ///
    /// # Errors
    /// Whatever the disk reports. It may be in place all the same.
    pub fn put(&self, disk: &dyn Disk, dir: &Path) -> Result<(), FileError> {
        let path = dir.join(FILE);
        replace_file_durably(disk, &path, &self.encode()).map_err(FileError::at("replace", &path))
    }

    /// Removes the bundles of entries before it, and gives how many there were. What an interruption
    /// leaves, the next call removes.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn clear(&self, disk: &dyn Disk, dir: &Path) -> Result<u64, FileError> {
        let mut removed = 0;
        let width = u64::from(TILE_WIDTH);
        for n in self.before / width..self.size() / width {
            let path = dir.join(full(TileKind::Entries, n).to_string());
            match disk.remove_file(&path) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(FileError::at("remove", &path)(error)),
            }
            if n % 1000 == 999 {
                // Where something is left in it, it stays.
                let _ = disk.remove_dir(parent(&path));
            }
        }
        Ok(removed)
    }

    fn encode(&self) -> Vec<u8> {
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

/// A log that is to be pruned.
#[derive(Debug, Clone, Copy)]
pub struct Prunable<'a> {
    /// The directory of the log.
    pub dir: &'a Path,
    /// Where that is.
    pub disk: &'a Arc<dyn Disk>,
    /// The keys of the log, with all changes from one to the next.
    pub keys: &'a KeyChain,
    /// Its present horizon.
    pub horizon: Option<&'a Horizon>,
}

impl Prunable<'_> {
    /// The newest checkpoint at which at most `most` entries would go: only sealed ones. `None` where
    /// none would.
    ///
    /// # Errors
    /// When the log cannot be read, or the checkpoint is not rightly signed.
    pub fn checkpoint(&self, most: u64) -> Result<Option<Place>, PruneError> {
        let sealed = list_segments(&**self.disk, self.dir)?.first().copied();
        let most = most.min(sealed.unwrap_or_default());
        let start = self.horizon.map(|horizon| &horizon.milestone);
        let path = self.dir.join("checkpoints");
        let Some(mut records) = Records::open(&**self.disk, &path)? else {
            return Ok(None);
        };
        let mut before = start.map_or(0, |start| start.before);
        records.offset = start
            .map_or(0, |start| start.record_at)
            .min(records.len_bytes);
        let mut found = None;
        loop {
            let record_at = records.offset;
            let Record::Note(_, note) = records.next()? else {
                break;
            };
            // Which signature it has is looked at once it is the one.
            let Some(size) = unproven_size(&note).filter(|size| *size <= most) else {
                break;
            };
            found = Some((size, record_at, before, note));
            before += 1;
        }
        let had = start.map_or(0, Milestone::size);
        let Some((_, record_at, before, note)) = found.filter(|found| found.0 > had) else {
            return Ok(None);
        };
        Ok(Some(Place {
            checkpoint: self.keys.verify(&note)?,
            note,
            record_at,
            before,
        }))
    }

    /// Goes over the entries from the present horizon to `place`, which was found in the same state.
    /// `visit` sees each of them and may end it by saying no.
    ///
    /// # Errors
    /// When an entry cannot be read, the entries are not what was signed, or `visit` says no.
    pub fn advance(
        &self,
        place: &Place,
        mut visit: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<Milestone, PruneError> {
        let start = self
            .horizon
            .map(|horizon| horizon.milestone.builder.clone());
        let mut builder = start.unwrap_or_default();
        let size = place.checkpoint.size;
        let range = builder.size()..size;
        for next in Entries::new(self.disk.clone(), self.dir, range) {
            let (index, entry) = next?;
            builder.push(&entry, |_, _| {});
            if !visit(index, &entry) {
                return Err(PruneError::Refused { index });
            }
        }
        if builder.root() != place.checkpoint.root {
            return Err(PruneError::Root { size });
        }
        let signing = self.keys.at(size);
        let signed = |key: &&VerifierKey| {
            signing.len() == 1 || Checkpoint::verify(&place.note, &[(*key).clone()]).is_ok()
        };
        // It was verified by one of them.
        let signing = signing.iter().find(signed).cloned();
        let rotations = self.keys.rotations().iter();
        Ok(Milestone {
            note: place.note.clone(),
            signing: signing.ok_or(PruneError::Root { size })?,
            rotations: rotations.filter(|r| r.size < size).cloned().collect(),
            builder,
            // Frames before it are gone: any that follows is later.
            epoch: 0,
            record_at: place.record_at,
            before: place.before,
        })
    }
}

/// A signed checkpoint at which a log can be pruned.
#[derive(Debug, Clone)]
pub struct Place {
    checkpoint: Checkpoint,
    note: Vec<u8>,
    record_at: u64,
    before: u64,
}

impl Place {
    /// Number of entries before it.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.checkpoint.size
    }
}

fn unproven_size(note: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(note).ok()?;
    text.lines().nth(1)?.parse().ok()
}
