//! The postgres plane in front of a real PostgreSQL, with real clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod cut;
mod entrance;
mod kit;
mod statements;
