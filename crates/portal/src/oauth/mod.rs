//! Curfew as an OAuth 2 authorization server for its own CLI: the device grant (RFC 8628),
//! revocation (RFC 7009) and metadata (RFC 8414). The page on which a person approves a device
//! belongs to the console; nothing here knows of pages.

mod codes;
mod endpoints;
mod problem;

pub(crate) use codes::{Choice, DeviceCodes, UserCode};
pub(crate) use endpoints::router;
pub(crate) use problem::{OUTAGE_RETRY_SECS, Problem, denial_text, end_text, outage_text};
