//! What entries only commit to: the values themselves, beside the ledger, until they are erased.
//!
//! ```text
//! keys                one slot of 512 bytes for each key: a random key of one subject
//! <20 digits>.val     records in the order of the log, named after the first entry in it
//! ```
//!
//! A record holds the concealed values of one entry with their salts, encrypted under a key of the
//! subject. To erase a subject is to overwrite its key slots in place: whatever is encrypted under
//! them, here and in every copy of the records, is then gone. The entries keep their commitments, so
//! every hash still verifies.
//!
//! Invariants, each held by a test:
//!
//! 1. [`Store::flush`] comes back only once everything staged before it survives any crash. The
//!    ledger calls it before it writes the entries.
//! 2. What is open at an entry count holds nothing of entries past it: their indexes are used again.
//! 3. Once [`Store::wipe`] has come back, no crash brings a key back.
//! 4. Everything on disk goes through [`curfew_ledger::Disk`].

mod files;
mod keys;
mod record;
mod store;

use std::io;
use std::path::{Path, PathBuf};

pub use record::Record;
pub use store::{Condemned, Fields, Held, Kept, Reader, Shown, Store, Wiped, told};

/// Why values cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum ValuesError {
    /// A file cannot be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was being done, as a verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// A value that cannot be encrypted, or a record that holds more than one can.
    #[error("a value does not fit a record")]
    TooLarge,
    /// After an error nothing is known of what was written; the store must be opened anew.
    #[error("the store of values has failed and must be opened anew")]
    Failed,
}

impl ValuesError {
    fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }
}

fn number_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_be_bytes(*bytes))
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes))
}
