//! The postgres plane in front of a real PostgreSQL, with real clients.

mod cut;
mod entrance;
mod kit;
mod statements;
