//! The shell around authority and ledger: the registrar, permits, listeners and the planes.
//!
//! ```text
//!   plane ──ask──▶ registrar ──▶ authority (pure) ──▶ entry ──▶ ledger
//!     ▲                                                           │ durable
//!     └───────────────────────── Permit ◀─────────────────────────┘
//! ```
//!
//! Planes (`web`, `postgres`, `console`) never name each other; what they share lies here.

pub mod archive;
mod causes;
pub mod certificate;
mod client;
pub mod config;
mod console;
pub mod control;
pub mod data;
pub mod forward;
mod gateway;
mod listen;
mod oauth;
mod postgres;
pub mod reload;
mod retention;
pub mod rotation;
mod search;
pub mod signer;
mod signing;
pub mod stamps;
pub mod standing;
mod web;
pub mod witness;

pub use gateway::{Core, Gateway, Running, StartError, start};
pub use postgres::{DatabaseState, DatabaseStatus, rights, setup};
