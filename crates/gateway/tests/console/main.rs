//! The portal, through its real listener.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_types,
    reason = "a test starts the programs that it compares with, and says which it left out"
)]

mod device;
mod erasures;
mod export;
mod followers;
mod kit;
#[path = "../shared/left_out.rs"]
mod left_out;
mod pages;
mod search;
mod sessions;
mod sign_in;
mod state;
mod tabs;
mod tiles;
mod values;
