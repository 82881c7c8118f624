//! Verifying a log from what it has published, or one entry of it from its receipt.
//!
//! | module | part |
//! |---|---|
//! | `check` | [`verify()`] itself: what is verified, against which keys, and the report |
//! | `begin` | where to begin: at the first entry, at the prune point, or where an earlier run had come to |
//! | `walk`, `bundles` | the pass over the entries: out of segments and bundles; out of tiles alone |
//! | `signed` | the pass over the signed checkpoints, alongside |
//! | `tiles` | the comparison of tiles with what the entries make |
//! | `failure` | what is wrong, and where |
//! | [`receipt`] | the proof that one entry is in the log (C2SP tlog-proof) |
//!
//! One pass goes over the entries in order. It recomputes the tree, stops at the size of each signed
//! checkpoint to compare roots, and compares every tile as it fills. Failures are collected, not
//! thrown, so that a report names all places and not only the first.
//!
//! Builds on `read/` and on what that builds on. With the writer it shares the formats and no code of
//! `write/`.

mod begin;
mod bundles;
mod check;
mod failure;
pub mod receipt;
mod signed;
mod tiles;
mod walk;

pub use check::{FAILURES_MAX, Progress, Report, Verify, Visitor, verify};
pub use failure::{Failure, FailureKind};
