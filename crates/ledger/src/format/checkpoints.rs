//! The file `checkpoints`: every signed checkpoint ever published, oldest first.
//!
//! Each is preceded by a line `checkpoint LENGTH`, where LENGTH is the number of bytes of the
//! signed note that follows, in decimal. No line of a note of ours starts with `checkpoint `, so a
//! reader finds its way from anywhere in the file.

use std::io;
use std::path::Path;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::format::error::FileError;
use crate::format::note::NOTE_BYTES_MAX;

/// Opens the line before each note.
const HEADER: &str = "checkpoint ";

/// Longest such line, in bytes: the word, 6 digits for 256 KiB, a newline.
const HEADER_BYTES_MAX: usize = HEADER.len() + 6 + 1;

/// Longest record, in bytes.
const RECORD_BYTES_MAX: u64 = (HEADER_BYTES_MAX + NOTE_BYTES_MAX) as u64;

/// The part of the file's end in which the last note is looked for: at least one whole record
/// after a torn one, rounded up.
const TAIL_BYTES: u64 = 3 * NOTE_BYTES_MAX as u64;

/// The bytes to append for a note.
pub(crate) fn record(note: &str) -> Vec<u8> {
    format!("{HEADER}{}\n{note}", note.len()).into_bytes()
}

/// What comes next in the file.
#[derive(Debug)]
pub(crate) enum Record {
    /// A note and the offset of its first byte.
    Note(u64, Vec<u8>),
    /// The file ends within a record, or a part of the last one is missing, as an interrupted
    /// append leaves it.
    Torn,
    /// Something else.
    Malformed,
    /// The end.
    End,
}

/// Reads records in order.
#[derive(Debug)]
pub(crate) struct Records {
    file: Box<dyn DiskFile>,
    /// Where the next record starts.
    pub(crate) offset: u64,
    /// The length when it was opened: what is appended later is not read.
    pub(crate) len_bytes: u64,
    path: std::path::PathBuf,
    /// The record before the last one, once [`Records::last`] has looked for it.
    pub(crate) before_last: Option<Vec<u8>>,
}

impl Records {
    /// Opens the file; `None` when there is none.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Option<Records>, FileError> {
        let file = match disk.open(path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::at("open", path)(error)),
        };
        let len_bytes = file.len_bytes().map_err(FileError::at("measure", path))?;
        Ok(Some(Records {
            file,
            offset: 0,
            len_bytes,
            path: path.to_path_buf(),
            before_last: None,
        }))
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, FileError> {
        let left = usize::try_from(self.len_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(left)];
        let read = self.file.read_exact_at(&mut bytes, offset);
        read.map_err(FileError::at("read", &self.path))?;
        Ok(bytes)
    }

    /// The next record.
    pub(crate) fn next(&mut self) -> Result<Record, FileError> {
        if self.offset == self.len_bytes {
            return Ok(Record::End);
        }
        let head = self.read(self.offset, HEADER_BYTES_MAX)?;
        let parsed = head.iter().position(|b| *b == b'\n').map(|line| {
            let len = parse_header(&head[..line]);
            (line, len)
        });
        let (line, len) = match parsed {
            Some((line, Some(len))) => (line, len),
            None if head.len() < HEADER_BYTES_MAX && is_header_prefix(&head) => {
                return Ok(Record::Torn);
            }
            _ if self.is_unarrived()? => return Ok(Record::Torn),
            _ => return Ok(Record::Malformed),
        };
        let start = self.offset + line as u64 + 1;
        if start + len as u64 > self.len_bytes {
            return Ok(Record::Torn);
        }
        let note = self.read(start, len)?;
        if note.contains(&0) && self.is_unarrived()? {
            return Ok(Record::Torn);
        }
        self.offset = start + len as u64;
        Ok(Record::Note(start, note))
    }

    /// Whether what follows is one record of which a part never reached the disk: a power cut
    /// leaves zeros there, in whatever sector they are. What is written later starts over, so no
    /// other record follows it.
    fn is_unarrived(&self) -> Result<bool, FileError> {
        if self.len_bytes - self.offset > RECORD_BYTES_MAX {
            return Ok(false);
        }
        let rest = self.read(self.offset, RECORD_BYTES_MAX as usize)?;
        let next = rest.windows(HEADER.len()).skip(1);
        Ok(rest.contains(&0) && !next.into_iter().any(|w| w == HEADER.as_bytes()))
    }

    /// The last whole record, `None` when there is none; `offset` is then where it ends.
    pub(crate) fn last(&mut self) -> Result<Result<Option<Vec<u8>>, u64>, FileError> {
        let tail_at = self.len_bytes.saturating_sub(TAIL_BYTES);
        if tail_at > 0 {
            let tail = self.read(tail_at, TAIL_BYTES as usize)?;
            let needle = format!("\n{HEADER}");
            let found = tail
                .windows(needle.len())
                .position(|w| w == needle.as_bytes());
            let Some(found) = found else {
                return Ok(Err(tail_at));
            };
            self.offset = tail_at + found as u64 + 1;
        }
        let mut last = None;
        loop {
            match self.next()? {
                Record::Note(_, note) => self.before_last = last.replace(note),
                Record::Torn | Record::End => return Ok(Ok(last)),
                Record::Malformed => return Ok(Err(self.offset)),
            }
        }
    }
}

fn is_header_prefix(head: &[u8]) -> bool {
    let word = HEADER.as_bytes();
    match head.strip_prefix(word) {
        Some(digits) => digits.iter().all(u8::is_ascii_digit),
        None => word.starts_with(head),
    }
}

fn parse_header(line: &[u8]) -> Option<usize> {
    let digits = std::str::from_utf8(line).ok()?.strip_prefix(HEADER)?;
    let len: usize = digits.parse().ok()?;
    // One length, one text; an empty note is none.
    (len.to_string() == digits && (1..=NOTE_BYTES_MAX).contains(&len)).then_some(len)
}
