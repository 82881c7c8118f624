//! Searches over real logs: what is found, what is never shown, and what becomes of the index.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod agree;
mod kit;
mod trust;
mod uses;
