#![doc = "An append-only Merkle log of opaque bytes on local files, and its verification."]

pub mod disk;
mod error;
mod key;
pub mod merkle;
pub mod note;
pub mod read;
pub mod segment;
pub mod writer;

pub use disk::{Disk, RealDisk};
pub use error::{
    AppendError, CloseError, FileError, OpenError, PublishError, ReadError, WriteError,
};
pub use merkle::Hash;
pub use note::{Checkpoint, KeyError, LogKey, VerifierKey};
pub use read::LogReader;
pub use writer::{Observer, Options, Recovered, Space, TornTail, Writer};

/// Longest entry, in bytes: a tlog-tiles bundle gives the length in 16 bits.
pub const ENTRY_BYTES_MAX: usize = 65_535;
