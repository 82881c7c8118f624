//! `[log]`, `[[forward]]` and `[archive]`: what the configuration says of the log after it is written.

mod archive;
mod forward;
mod log;

pub use archive::{Archive, problem as archive_problem};
pub(crate) use archive::{endpoint as archive_endpoint, place as archive_place};
pub use forward::{FORWARDS_MAX, Forward, ForwardKind, ForwardStart, problem as forward_problem};
pub use log::{Log, Retention, Timestamps, Witnesses};
