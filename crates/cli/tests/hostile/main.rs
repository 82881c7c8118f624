//! Bytes that no honest client sends, to the real program: it refuses them clearly, goes on
//! serving everybody else, never panics, and holds no more memory than it says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "in a test a panic is the message"
)]

mod http1;
mod http2;
mod kit;
mod postgres;
#[path = "../../../gateway/tests/shared/private.rs"]
mod private;
mod slow;
#[path = "../clients/stage.rs"]
#[allow(dead_code, reason = "the clients' tests use the rest")]
mod stage;
mod websocket;
