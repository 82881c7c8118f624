//! What the ledger promises, shown from outside.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    missing_docs
)]

mod common;
mod crash;
mod faults;
mod merkle;
mod note;
mod space;
mod tamper;
mod writer;
