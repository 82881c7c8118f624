//! Writing a log: one writer, its threads, and what is done to a log by whoever holds its lock.
//!
//! | module | part |
//! |---|---|
//! | `writer` | [`Writer`], its threads and what they share; [`Observer`] |
//! | [`options`] | how a log is opened |
//! | `recover` | opening: what is on disk becomes what is counted on |
//! | `queue`, `commit`, `in_flight` | entries gather in batches, become frames, and are written and synced |
//! | `prepare` | segments of zeros, made before they are needed |
//! | `publisher`, `publish` | tiles and checkpoints out of what is durable; when that is done |
//! | `hashed` | hashes the committer computed, kept for the publisher |
//! | `guard` | the last signed checkpoint, kept apart from the log, changed by compare-and-swap |
//! | `tile_file` | tiles put in their places |
//! | `seal` | segments give way to the bundles made from them |
//! | `prune` | bundles past their time give way to a prune point |
//! | [`rotate`] | another key takes over |
//! | `error` | why any of this does not work |
//!
//! An entry goes from `queue` through `commit` to `in_flight`, and is durable from then on. All else
//! follows at its own pace: `publisher` makes it provable within a second, `seal` removes the segment
//! once tiles hold everything in it, and `prune` removes the text once it need not be kept. Each step
//! is durable before the next begins, so that a crash between two leaves work to be done again and
//! nothing to be missed.
//!
//! Builds on `format/`, `keys/` and `read/`; nothing but the crate's root builds on it.

mod commit;
mod error;
mod guard;
mod hashed;
mod in_flight;
pub mod options;
mod prepare;
mod prune;
mod publish;
mod publisher;
mod queue;
mod recover;
pub mod rotate;
mod seal;
mod tile_file;
mod writer;

pub use error::{AppendError, CloseError, OpenError, PruneError, PublishError, WriteError};
pub use guard::SwapError;
pub use options::Options;
pub use prune::{Place, Prunable};
pub use queue::{QUEUE_BATCHES_MAX, RESERVE_BYTES};
pub use writer::{Observer, Recovered, Space, TornTail, Writer};
