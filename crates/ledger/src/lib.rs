//! An append-only Merkle log of opaque bytes on local files, and its verification.
//!
//! ```text
//! append ─▶ queue ─▶ committer ─▶ frame writers: one write, one sync per batch ─▶ Observer::durable(size)
//!                        │ segments/: the truth
//!                        ▼
//!                    publisher: tile/, guard, checkpoints, checkpoint ─▶ within a second
//! ```
//!
//! The code is in five folders over the disk, each with a page of its own. They form an order: a folder
//! uses those to its left and no others; `xtask/tests/tidy` checks that.
//!
//! ```text
//! disk ◀── format ◀── keys ◀── read ◀─┬─ verify
//!                                     └─ write
//! ```
//!
//! - `format/`: the bytes of a log, and how each piece is read.
//! - `keys/`: who signs, and whose signatures count.
//! - `read/`: entries and proofs out of a log.
//! - [`verify`]: is a log whole, and the one that was signed?
//! - `write/`: the one writer, and what it does to a log.
//!
//! The log knows nothing of what its entries mean. Invariants, each held by a test:
//!
//! 1. What [`Observer::durable`] has named survives any crash; it is named in index order.
//! 2. What recovery counts is durable before it is counted (`write/recover.rs`).
//! 3. Nothing is retried as if a failed write or sync had not happened: the writer is over.
//! 4. Every signed checkpoint is a prefix of the next; the guard holds it before anybody sees it.
//! 5. Tiles and checkpoints can be made again from the segments by the code that makes them. A segment
//!    goes only when the tiles over it are compared and durable.
//! 6. [`disk`] is the only road to the file system.
//! 7. Nothing waits for a [`Signer`] but the next checkpoint.
//!
//! On disk, in the directory of a log:
//!
//! ```text
//! segments/<20 digits>.seg              frames, see `segment`
//! tile/<L>/<N>[.p/<W>]                  C2SP tlog-tiles: hashes
//! tile/entries/<N>[.p/<W>]              C2SP tlog-tiles: entries
//! checkpoint                            the newest signed checkpoint (C2SP)
//! checkpoints                           all of them, see `format/checkpoints.rs`
//! witnessed                             the newest that a quorum of witnesses has cosigned
//! timestamps/<size>.tsr, .checkpoint    RFC 3161 responses, and the checkpoints they are over
//! horizon                               the prune point of a pruned log: where it begins
//! lock                                  held by the one writer
//! ```

pub mod disk;
mod format;
mod keys;
mod read;
pub mod verify;
mod write;

pub use disk::{Disk, RealDisk};
pub use format::error::{FileError, ReadError};
pub use format::merkle::Hash;
pub use format::note::{Checkpoint, VerifierKey};
pub use format::{ENTRY_BYTES_MAX, merkle, note, segment, tile};
pub use keys::cosignature::{Cosigner, CosignerKey};
pub use keys::guarded_signer::GuardedSigner;
pub use keys::key::{KeyError, LogKey};
pub use keys::key_chain::KeyChain;
pub use keys::key_file::KeyFile;
pub use keys::rotation::{Rotation, RotationError};
pub use keys::signer::{SignError, Signer};
pub use keys::trust::TrustPolicy;
pub use keys::witness::Witness;
pub use keys::{cosignature, guarded_signer, key_file, signer, trust, witness};
pub use read::entries::Entries;
pub use read::fetch::Fetch;
pub use read::prune_point::{PRUNE_POINT_BYTES_MAX, PrunePoint};
pub use read::published::{Published, Stamped};
pub use read::reader::LogReader;
pub use read::verified_state::{VerifiedState, VerifiedStateError};
pub use verify::receipt::{Reached, Receipt};
pub use write::{
    AppendError, CloseError, Observer, OpenError, Options, Place, Prunable, PruneError,
    PublishError, QUEUE_BATCHES_MAX, RESERVE_BYTES, Recovered, Space, SwapError, TornTail,
    WriteError, Writer, options, rotate,
};
