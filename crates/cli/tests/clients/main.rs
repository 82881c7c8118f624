//! Clients as people have them, unchanged, through the real program: they work, and when their
//! session ends they are told so in their own way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "in a test a panic is the message"
)]

mod chromium;
mod drivers;
mod export;
#[path = "../../../gateway/tests/shared/private.rs"]
mod private;
mod psql;
mod search;
#[allow(dead_code, reason = "the hostile tests use the rest")]
mod stage;
mod tool;
mod verify;
mod web;
