//! Writing a log.

pub(crate) mod commit;
pub(crate) mod error;
pub(crate) mod guard;
pub(crate) mod hashed;
pub(crate) mod lanes;
pub mod options;
pub(crate) mod prepare;
pub(crate) mod prune;
pub(crate) mod publish;
pub(crate) mod publisher;
pub(crate) mod queue;
pub mod recover;
pub mod rotate;
pub(crate) mod seal;
pub(crate) mod tile_file;
pub mod writer;
