//! What the ledger promises, shown from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(unreachable_pub, missing_docs, clippy::wildcard_enum_match_arm)]

mod common;
mod cosignature;
mod crash;
mod faults;
mod flight;
mod guarded_signer;
mod matrix;
mod merkle;
mod note;
mod prune;
mod receipt;
mod rotation;
mod rotation_forged;
mod seal;
mod signer;
mod space;
mod tamper;
mod tiles_only;
mod trust;
mod vectors;
mod witness;
mod writer;
