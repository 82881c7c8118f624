//! What the real program does when it is killed, and when its disk fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "in a test a panic is the message"
)]

mod disk;
mod erase_kill;
mod forward_kill;
mod kill;
mod kit;
#[path = "../../../gateway/tests/shared/left_out.rs"]
mod left_out;
mod outage;
#[path = "../../../gateway/tests/shared/private.rs"]
mod private;
mod twins;
mod values;
