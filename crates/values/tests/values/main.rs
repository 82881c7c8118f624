//! The store of values on a disk that fails, is cut off and is tampered with.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in a test a panic is the message"
)]

mod crash;
mod kit;
mod uses;
