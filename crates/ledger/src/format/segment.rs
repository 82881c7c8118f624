//! Segment files: the truth of the log.
//!
//! A segment is a file of zeros, made before it is needed, into which frames are written one after
//! the other, each starting on a 4 KiB block. Its name is the index of its first entry in 20
//! digits. A frame is one batch:
//!
//! | offset | bytes | what (integers little-endian) |
//! |---|---|---|
//! | 0 | 8 | magic `CURFEWF1` |
//! | 8 | 8 | epoch: grows by one each time the log is opened for writing |
//! | 16 | 8 | a number that only the holder of the log's key can tell for that epoch |
//! | 24 | 8 | index of the first entry |
//! | 32 | 8 | number of entries that were durable when the frame was written |
//! | 40 | 4 | number of entries, at least 1 |
//! | 44 | 4 | payload length |
//! | 48 | 32 | Merkle tree hash of the whole log after this batch |
//! | 80 | 4 | CRC32C of bytes 0..80 and the payload |
//! | 84 | n | payload: per entry its length in two bytes, big-endian, and its bytes |
//! | | | zeros up to the next block |
//!
//! The payload is encoded as in tlog-tiles bundles, so that making tiles is copying. The fifth
//! field tells a torn write from damage: a bad frame at index `i` is damage as soon as a later
//! frame says that more than `i` entries were durable. The third keeps an entry, of which a torn
//! write may leave any block, from passing for such a frame.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::format::ENTRY_BYTES_MAX;
use crate::format::error::{FileError, ReadError};
use crate::format::merkle::Hash;

/// Frames start on multiples of this, in bytes: the page size and the largest usual sector size.
pub const BLOCK_BYTES: u64 = 4096;

/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 84;

/// Longest payload, in bytes: the largest batch an option may ask for, 4 MiB, and one entry over
/// it (2 + 65,535).
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024 + 2 + ENTRY_BYTES_MAX;

/// Smallest segment, in bytes: three frames of the longest entry (72 KiB each), rounded up.
pub const SEGMENT_BYTES_MIN: u64 = 256 * 1024;

/// Largest segment, in bytes: 1 GiB, so that one is read in a few seconds.
pub const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Bytes read at once when walking a segment: enough to make the calls cheap.
const WINDOW_BYTES: usize = 1024 * 1024;

/// The same where all of a segment is read and nothing else goes on: so that few frames are read twice,
/// since they do not fit behind those before them.
pub(crate) const WIDE_WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// The same where others write to the disk meanwhile and must not wait long.
pub(crate) const POLITE_WINDOW_BYTES: usize = 256 * 1024;

const MAGIC: &[u8; 8] = b"CURFEWF1";

/// The folder of the segments in the directory of a log.
pub(crate) const FOLDER: &str = "segments";

/// Name of the segment that is being made ready, in the same folder.
pub(crate) const PREPARED: &str = "prepared-segment.tmp";

/// A segment holds something that no crash leaves behind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} at byte {offset} (entry {index}): {kind}", path.display())]
pub struct Corruption {
    /// The segment file.
    pub path: PathBuf,
    /// Byte offset in the file.
    pub offset: u64,
    /// Index of the first entry that cannot be trusted.
    pub index: u64,
    /// What is wrong.
    pub kind: CorruptionKind,
}

/// What is wrong with a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CorruptionKind {
    /// There is no frame where one must be.
    #[error("there is no frame here, although the log goes on after it")]
    NoFrame,
    /// The fields of the frame contradict each other or the file.
    #[error("the frame's header is damaged")]
    Header,
    /// The checksum does not fit.
    #[error("the frame's checksum does not fit its content")]
    Checksum,
    /// The frame starts at another entry.
    #[error("the frame starts at entry {found}")]
    Index {
        /// The index in the frame.
        found: u64,
    },
    /// The payload is not the number of entries the header gives.
    #[error("the frame's payload does not hold the entries it should")]
    Payload,
    /// The running root is not that of the entries.
    #[error("the frame's root is not that of the entries up to it")]
    Root,
    /// The epoch is lower than that of an earlier frame.
    #[error("the frame is of an earlier epoch than the one before it")]
    Epoch,
    /// The rest of the frame's last block is not zero.
    #[error("there are bytes between the frame and the next block")]
    Padding,
    /// A later segment exists, but the entries between are missing.
    #[error("the entries up to the next segment, {next}, are missing")]
    Gap {
        /// First index of the next segment.
        next: u64,
    },
    /// The segment starts inside another.
    #[error("the segment starts in the middle of another one")]
    Stray,
    /// The segment was left for the next one, and yet something follows its last frame.
    #[error("there are bytes after the last frame")]
    Trailing,
    /// A bundle does not hold as many entries as its name says, or something else besides.
    #[error("the bundle does not hold exactly {width} entries")]
    Count {
        /// As many as there must be.
        width: u16,
    },
    /// In a bundle: the entry is not the one of which its tile has the hash, or there are not 256.
    #[error("the bundle does not hold the entries that its tile of hashes is over")]
    Bundle,
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Grows by one each time the log is opened for writing.
    pub epoch: u64,
    /// A number that only the holder of the log's key can tell for that epoch.
    pub nonce: u64,
    /// Index of the first entry.
    pub first: u64,
    /// Number of entries that were durable when the frame was written.
    pub durable: u64,
    /// Number of entries.
    pub count: u32,
    /// Bytes of payload.
    pub payload_bytes: u32,
    /// Merkle tree hash after the batch.
    pub root: Hash,
}

impl FrameHeader {
    fn encode(&self) -> [u8; 80] {
        let mut bytes = [0; 80];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.nonce.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.durable.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.count.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[48..].copy_from_slice(&self.root.0);
        bytes
    }

    /// Reads a header without looking at the checksum; `None` when it cannot be one.
    fn decode(bytes: &[u8]) -> Option<FrameHeader> {
        let (bytes, _) = bytes.split_first_chunk::<80>()?;
        let u64_at = |at: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(field)
        };
        let u32_at = |at: usize| {
            let mut field = [0; 4];
            field.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(field)
        };
        let mut root = [0; 32];
        root.copy_from_slice(&bytes[48..]);
        let header = FrameHeader {
            epoch: u64_at(8),
            nonce: u64_at(16),
            first: u64_at(24),
            durable: u64_at(32),
            count: u32_at(40),
            payload_bytes: u32_at(44),
            root: Hash(root),
        };
        let sensible = &bytes[..8] == MAGIC
            && header.count > 0
            && header.payload_bytes as usize <= PAYLOAD_BYTES_MAX
            && header.durable <= header.first
            && header.first.checked_add(header.count.into()).is_some();
        sensible.then_some(header)
    }

    /// Index after the last entry.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// Bytes a frame takes on disk, padding included.
#[must_use]
pub fn frame_bytes(payload_bytes: usize) -> u64 {
    (FRAME_HEADER_BYTES as u64 + payload_bytes as u64).next_multiple_of(BLOCK_BYTES)
}

/// Completes a frame in place: `buffer` holds room for the header and then the payload; the header
/// is filled in and zeros are added up to the next block. Gives the checksum.
pub(crate) fn seal_frame(buffer: &mut Vec<u8>, header: &FrameHeader) -> u32 {
    let fixed = header.encode();
    let payload_bytes = buffer.len() - FRAME_HEADER_BYTES;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&fixed), &buffer[FRAME_HEADER_BYTES..]);
    buffer[..80].copy_from_slice(&fixed);
    buffer[80..84].copy_from_slice(&crc.to_le_bytes());
    // At most one batch and a block, far below the address space.
    buffer.resize(frame_bytes(payload_bytes) as usize, 0);
    crc
}

/// The entries of a payload; ends early when it is malformed.
pub(crate) fn split_payload(mut payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = payload.split_first_chunk::<2>()?;
        let (entry, rest) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
        payload = rest;
        Some(entry)
    })
}

/// Whether a payload is exactly `count` entries, none of them empty.
pub(crate) fn payload_is(payload: &[u8], count: u32) -> bool {
    let (mut found, mut bytes) = (0_u64, 0);
    for entry in split_payload(payload) {
        if entry.is_empty() {
            return false;
        }
        found += 1;
        bytes += 2 + entry.len();
    }
    found == u64::from(count) && bytes == payload.len()
}

/// The path of the segment that starts at entry `first`.
pub(crate) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(FOLDER).join(format!("{first:020}.seg"))
}

/// The first index in the name of a segment; `None` for any other name.
pub(crate) fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let plain = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// First indexes of the segments there are, in order.
pub(crate) fn list_segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, ReadError> {
    let folder = dir.join(FOLDER);
    match disk.list(&folder) {
        Ok(names) => Ok(names
            .iter()
            .filter_map(|e| parse_segment_name(&e.name))
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ReadError::Missing {
            dir: dir.to_path_buf(),
        }),
        Err(error) => Err(FileError::at("list", &folder)(error).into()),
    }
}

/// What is at a place in a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found {
    /// A whole frame.
    Frame(FrameAt),
    /// A block of zeros, or the end of the file.
    Nothing,
    /// Neither.
    Bad(CorruptionKind),
}

/// A frame whose checksum and payload have been checked; its payload is in the segment's window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameAt {
    pub(crate) header: FrameHeader,
    /// Where it starts in its segment.
    pub(crate) offset: u64,
    /// Of header and payload.
    pub(crate) checksum: u32,
    /// Whether the bytes up to the next block are zero.
    pub(crate) padded: bool,
}

impl FrameAt {
    /// Where the next frame starts.
    pub(crate) fn end_offset(&self) -> u64 {
        self.offset + frame_bytes(self.header.payload_bytes as usize)
    }

    /// The entries in `payload`, which is that of this frame, with their indexes.
    pub(crate) fn entries<'a>(
        &self,
        payload: &'a [u8],
    ) -> impl Iterator<Item = (u64, &'a [u8])> + use<'a> {
        (self.header.first..).zip(split_payload(payload))
    }
}

/// An open segment and a window onto it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) first: u64,
    pub(crate) len_bytes: u64,
    window: Vec<u8>,
    window_at: u64,
    /// Bytes read at once.
    window_bytes: usize,
}

impl Segment {
    /// Opens the segment that starts at entry `first`; `None` when there is none.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        first: u64,
        mode: OpenMode,
    ) -> Result<Option<Segment>, FileError> {
        let path = segment_path(dir, first);
        let file = match disk.open(&path, mode) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::at("open", &path)(error)),
        };
        let len_bytes = file.len_bytes().map_err(FileError::at("measure", &path))?;
        Ok(Some(Segment {
            file,
            path,
            first,
            len_bytes,
            window: Vec::new(),
            window_at: 0,
            window_bytes: WINDOW_BYTES,
        }))
    }

    /// Reads so many bytes at once from here on, past the page cache if asked.
    pub(crate) fn read_in(
        &mut self,
        disk: &dyn Disk,
        window_bytes: usize,
        direct: bool,
    ) -> Result<(), FileError> {
        if direct {
            let opened = disk.open_direct(&self.path, OpenMode::Read);
            self.file = opened.map_err(FileError::at("open", &self.path))?;
        }
        self.window_bytes = window_bytes;
        Ok(())
    }

    /// Forgets what was read, so that newer content is seen.
    pub(crate) fn forget_window(&mut self) {
        self.window.clear();
    }

    /// Up to `len` bytes at `offset`; fewer only at the end of the file.
    fn bytes_at(&mut self, offset: u64, len: usize) -> Result<&[u8], FileError> {
        let left = self.len_bytes.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(len);
        let held = self.window_at + self.window.len() as u64;
        if offset < self.window_at || offset + len as u64 > held {
            let want = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(len.max(self.window_bytes));
            self.window.resize(want, 0);
            let read = self.file.read_exact_at(&mut self.window, offset);
            if read.is_err() {
                self.window.clear();
            }
            read.map_err(FileError::at("read", &self.path))?;
            self.window_at = offset;
        }
        // Within the window, which is in memory.
        let start = (offset - self.window_at) as usize;
        Ok(&self.window[start..start + len])
    }

    /// The header at `offset`, not checked against its checksum; `None` when there is none.
    pub(crate) fn header_at(&self, offset: u64) -> Result<Option<FrameHeader>, FileError> {
        if offset + FRAME_HEADER_BYTES as u64 > self.len_bytes {
            return Ok(None);
        }
        // Past the window, since a hop needs only these bytes.
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let read = self.file.read_exact_at(&mut bytes, offset);
        read.map_err(FileError::at("read", &self.path))?;
        Ok(FrameHeader::decode(&bytes))
    }

    /// What is at `offset`, a multiple of the block size.
    pub(crate) fn find(&mut self, offset: u64) -> Result<Found, FileError> {
        let len_bytes = self.len_bytes;
        let block = self.bytes_at(offset, BLOCK_BYTES as usize)?;
        if block.iter().all(|b| *b == 0) {
            return Ok(Found::Nothing);
        }
        let Some(header) = FrameHeader::decode(block) else {
            return Ok(Found::Bad(CorruptionKind::Header));
        };
        let total = frame_bytes(header.payload_bytes as usize);
        if offset + total > len_bytes {
            return Ok(Found::Bad(CorruptionKind::Header));
        }
        let bytes = self.bytes_at(offset, total as usize)?;
        let end = FRAME_HEADER_BYTES + header.payload_bytes as usize;
        let payload = &bytes[FRAME_HEADER_BYTES..end];
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..80]), payload);
        if bytes[80..84] != crc.to_le_bytes() {
            return Ok(Found::Bad(CorruptionKind::Checksum));
        }
        if !payload_is(payload, header.count) {
            return Ok(Found::Bad(CorruptionKind::Payload));
        }
        let padded = bytes[end..].iter().all(|b| *b == 0);
        Ok(Found::Frame(FrameAt {
            header,
            offset,
            checksum: crc,
            padded,
        }))
    }

    /// The payload of a frame that [`Segment::find`] has just found.
    pub(crate) fn payload(&mut self, frame: &FrameAt) -> Result<&[u8], FileError> {
        let at = frame.offset + FRAME_HEADER_BYTES as u64;
        self.bytes_at(at, frame.header.payload_bytes as usize)
    }

    /// Offset after the last byte at or past `offset` that is not zero; `None` when all are.
    pub(crate) fn last_used(&mut self, offset: u64) -> Result<Option<u64>, FileError> {
        let (mut at, mut last) = (offset, None);
        while at < self.len_bytes {
            let bytes = self.bytes_at(at, WINDOW_BYTES)?;
            if let Some(found) = bytes.iter().rposition(|b| *b != 0) {
                last = Some(at + found as u64 + 1);
            }
            at += bytes.len() as u64;
        }
        Ok(last)
    }

    pub(crate) fn corruption(&self, offset: u64, index: u64, kind: CorruptionKind) -> Corruption {
        Corruption {
            path: self.path.clone(),
            offset,
            index,
            kind,
        }
    }
}
