//! What lies on disk, byte by byte.

pub(crate) mod checkpoints;
pub(crate) mod error;
pub(crate) mod leaves;
pub mod merkle;
pub mod note;
pub mod segment;
pub mod tile;
