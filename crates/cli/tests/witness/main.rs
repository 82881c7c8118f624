//! A log and its witnesses as their operators run them: what they keep from whoever holds key and disk,
//! and how the log changes its key under their eyes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_types,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    unreachable_pub
)]

#[path = "../../../gateway/tests/shared/address.rs"]
mod address;
mod kit;
mod new_key;
#[path = "../../../gateway/tests/shared/private.rs"]
mod private;
mod rewritten;
#[allow(dead_code, reason = "it only does here as it should")]
#[path = "../../../gateway/tests/shared/tsa.rs"]
mod tsa;
