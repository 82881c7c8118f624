//! The bytes of a log: what lies on disk and in the hands of others, and how each piece is read.
//!
//! | module | piece |
//! |---|---|
//! | [`segment`] | frames of entries in preallocated files: the truth of the log |
//! | [`merkle`], `leaves` | the RFC 6962 tree: hashes, roots, proofs; many leaf hashes at once |
//! | [`tile`] | C2SP tlog-tiles: names of tiles, and the builder that makes them out of entries |
//! | [`note`] | C2SP signed notes, checkpoints and verifier keys |
//! | `checkpoints` | the file of all signed checkpoints |
//! | `error` | a file or an entry that cannot be read |
//!
//! A batch of entries becomes one frame of a segment. The leaf hashes of its entries extend the tree,
//! and the tree fills tiles. A checkpoint names the tree's size and root, and a note carries it with
//! its signatures. Every other folder builds on this one; it builds on the disk alone, and holds no
//! secret: keys appear only as their public halves.

pub(crate) mod checkpoints;
pub(crate) mod error;
pub(crate) mod leaves;
pub mod merkle;
pub mod note;
pub mod segment;
pub mod tile;

/// Longest entry, in bytes: a tlog-tiles bundle gives the length in 16 bits. The shortest has one.
pub const ENTRY_BYTES_MAX: usize = 65_535;
