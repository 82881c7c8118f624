//! The postgres plane in front of a real PostgreSQL, with real clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tests start PostgreSQL and psql, and may wait"
)]

mod accounts;
mod corpus;
mod cut;
mod entrance;
mod kit;
mod rights;
mod statements;
