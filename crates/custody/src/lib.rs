//! What happens to the log after it is written: signed, sent on, copied, cosigned, stamped, and given up
//! when its time has passed. Nothing here permits anything.
//!
//! Each follower is a task of its own that nothing waits for, and tells how far it has come
//! ([`progress`]). What goes wrong for long becomes an entry, by the registrar like all others.

pub mod archive;
mod causes;
mod client;
pub mod config;
pub mod forward;
pub mod progress;
pub mod retention;
pub mod signer;
pub mod signing;
pub mod stamps;
pub mod standing;
pub mod witness;
