//! The key slots: one sector each, so that writing one never harms another.
//!
//! A slot says whose key it is and since which entry in a first part that never changes, so that
//! this can be read even if a crash tore the overwriting of the key:
//!
//! ```text
//! 0    magic "CURFEWK1", number (8), first entry (8), length of the name (1), name (64), CRC32C (4)
//! 128  state (1: live, 2: erased), key (32), CRC32C of these 33 (4)
//! ```

use std::path::Path;

use curfew_entry::SubjectName;
use curfew_ledger::disk::{Disk, DiskFile, OpenMode};
use zeroize::Zeroizing;

use crate::{ValuesError, number_at, word_at};

/// Bytes of a slot: what a disk writes at once.
pub(crate) const SLOT_BYTES: usize = 512;

const MAGIC: &[u8; 8] = b"CURFEWK1";
const NAME_AT: usize = 25;
const NAME_BYTES_MAX: usize = 64;
const NAME_CRC_AT: usize = NAME_AT + NAME_BYTES_MAX;
/// Where the part begins that is overwritten.
const KEY_AT: usize = 128;
const KEY_PART_BYTES: usize = 33;
const LIVE: u8 = 1;
const ERASED: u8 = 2;

/// Slots read at once: 64 KiB.
const READ_SLOTS: usize = 128;

/// A key that does not stay in memory once it is let go.
pub(crate) type Key = Zeroizing<[u8; 32]>;

/// What is in a slot.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) subject: SubjectName,
    /// No entry before this one uses the key.
    pub(crate) first: u64,
    pub(crate) state: State,
}

pub(crate) enum State {
    Live(Key),
    Erased,
    /// It cannot be read: damage, or a crash in the middle of an erasure.
    Damaged,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Live(_) => "Live",
            Self::Erased => "Erased",
            Self::Damaged => "Damaged",
        })
    }
}

impl Slot {
    /// Its bytes as number `number`.
    pub(crate) fn bytes(&self, number: u64) -> Zeroizing<[u8; SLOT_BYTES]> {
        let mut bytes = Zeroizing::new([0; SLOT_BYTES]);
        let name = self.subject.as_str().as_bytes();
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&number.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_be_bytes());
        // A subject's name has at most 64 bytes.
        bytes[24] = name.len() as u8;
        for (to, from) in bytes[NAME_AT..NAME_CRC_AT].iter_mut().zip(name) {
            *to = *from;
        }
        let crc = crc32c::crc32c(&bytes[..NAME_CRC_AT]);
        bytes[NAME_CRC_AT..NAME_CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
        let part = &mut bytes[KEY_AT..KEY_AT + KEY_PART_BYTES];
        match &self.state {
            State::Live(key) => {
                part[0] = LIVE;
                part[1..].copy_from_slice(&**key);
            }
            State::Erased | State::Damaged => part[0] = ERASED,
        }
        let crc = crc32c::crc32c(&bytes[KEY_AT..KEY_AT + KEY_PART_BYTES]);
        let end = KEY_AT + KEY_PART_BYTES;
        bytes[end..end + 4].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads slot `number`; `None` where nobody's key can be told from it.
    fn read(bytes: &[u8], number: u64) -> Option<Self> {
        let head = bytes.get(..NAME_CRC_AT)?;
        let right = head.starts_with(MAGIC)
            && number_at(bytes, 8) == Some(number)
            && word_at(bytes, NAME_CRC_AT) == Some(crc32c::crc32c(head));
        if !right {
            return None;
        }
        let length = usize::from(*bytes.get(24)?);
        let name = bytes.get(NAME_AT..NAME_AT + length)?;
        let part = bytes.get(KEY_AT..KEY_AT + KEY_PART_BYTES)?;
        let whole = word_at(bytes, KEY_AT + KEY_PART_BYTES) == Some(crc32c::crc32c(part));
        let key: [u8; 32] = *part.get(1..)?.first_chunk()?;
        let state = match *part.first()? {
            LIVE if whole => State::Live(Zeroizing::new(key)),
            ERASED if whole && key == [0; 32] => State::Erased,
            _ => State::Damaged,
        };
        Some(Self {
            subject: std::str::from_utf8(name).ok()?.parse().ok()?,
            first: number_at(bytes, 16)?,
            state,
        })
    }
}

/// Opens the file of slots for writing, made where it is missing.
pub(crate) fn file(disk: &dyn Disk, path: &Path) -> Result<Box<dyn DiskFile>, ValuesError> {
    match disk.open(path, OpenMode::CreateSecret) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            disk.open(path, OpenMode::Write)
        }
        opened => opened,
    }
    .map_err(ValuesError::at("open", path))
}

/// All slots, by number. A place that tells nothing is `None` and is never used again.
pub(crate) fn load(file: &dyn DiskFile, path: &Path) -> Result<Vec<Option<Slot>>, ValuesError> {
    let failed = |doing| ValuesError::at(doing, path);
    let length = file.len_bytes().map_err(failed("look at"))?;
    let mut slots = Vec::new();
    let mut buffer = Zeroizing::new(vec![0; READ_SLOTS * SLOT_BYTES]);
    let mut offset = 0;
    while offset < length {
        let left = usize::try_from(length - offset).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let chunk = buffer.get_mut(..wanted).unwrap_or_default();
        file.read_exact_at(chunk, offset).map_err(failed("read"))?;
        for slot in chunk.chunks(SLOT_BYTES) {
            let number = slots.len() as u64;
            slots.push(Slot::read(slot, number));
        }
        offset += wanted as u64;
    }
    Ok(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_read_as_written_and_tells_whose_it_was_after_any_tear() {
        let mut slot = Slot {
            subject: "ada@example.com".parse().unwrap(),
            first: 7,
            state: State::Live(Zeroizing::new([9; 32])),
        };
        let live = slot.bytes(3);
        let read = Slot::read(&*live, 3).unwrap();
        assert!(matches!(read.state, State::Live(key) if *key == [9; 32]));
        assert!(Slot::read(&*live, 4).is_none(), "of another place");
        slot.state = State::Erased;
        let erased = slot.bytes(3);
        assert!(!erased.windows(4).any(|bytes| bytes == [9; 4]));
        for cut in 0..=SLOT_BYTES {
            let mut torn = erased.to_vec();
            torn[cut..].copy_from_slice(&live[cut..]);
            let read = Slot::read(&torn, 3).unwrap();
            assert_eq!(read.subject.as_str(), "ada@example.com");
            if torn == *live {
                assert!(matches!(read.state, State::Live(_)));
            } else if torn == *erased {
                assert!(matches!(read.state, State::Erased));
            } else {
                assert!(matches!(read.state, State::Damaged), "{cut}");
            }
        }
    }
}
