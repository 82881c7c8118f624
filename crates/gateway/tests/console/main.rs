//! The portal, through its real listener.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod device;
mod kit;
mod pages;
mod search;
mod sessions;
mod sign_in;
mod tiles;
