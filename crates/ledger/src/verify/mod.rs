//! Verifying a log, or one entry of it.

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
