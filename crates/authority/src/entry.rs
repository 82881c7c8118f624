//! The bytes of an entry: one canonical JSON object, `v`, `time`, `kind`, then the kind's fields.

use serde::Deserialize;

use crate::event::{ENTRY_BYTES_MAX, Entry, EntryError, Event};
use crate::time::Timestamp;

/// The version of the entries this program writes and reads.
const VERSION: u64 = 1;

impl Entry {
    /// The canonical JSON form, without a line end.
    ///
    /// # Errors
    ///
    /// [`EntryError::TooLarge`] where it exceeds [`ENTRY_BYTES_MAX`]; what
    /// [`crate::Authority::decide`] gives never does.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EntryError> {
        let mut bytes = Vec::with_capacity(512);
        self.write(&mut bytes)?;
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), EntryError> {
        bytes.extend_from_slice(b"{\"v\":1,\"time\":");
        serde_json::to_writer(&mut *bytes, &self.time)?;
        let brace = bytes.len();
        serde_json::to_writer(&mut *bytes, &self.event)?;
        // The event is an object of its own: its opening brace becomes the comma.
        if let Some(byte) = bytes.get_mut(brace) {
            *byte = b',';
        }
        Ok(())
    }

    /// Reads the canonical form and no other.
    ///
    /// # Errors
    ///
    /// See [`EntryError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge(bytes.len()));
        }
        let entry = Self::read(bytes)?;
        let mut again = Vec::with_capacity(bytes.len());
        entry.write(&mut again)?;
        // This also refuses unknown and repeated fields, other orders, other spellings.
        if again != bytes {
            return Err(EntryError::NotCanonical);
        }
        Ok(entry)
    }

    fn read(bytes: &[u8]) -> Result<Self, EntryError> {
        #[derive(Deserialize)]
        struct Head {
            v: u64,
        }
        #[derive(Deserialize)]
        struct Whole {
            time: Timestamp,
            #[serde(flatten)]
            event: Event,
        }
        let head: Head = serde_json::from_slice(bytes)?;
        if head.v != VERSION {
            return Err(EntryError::Version(head.v));
        }
        let whole: Whole = serde_json::from_slice(bytes)?;
        Ok(Self {
            time: whole.time,
            event: whole.event,
        })
    }
}
