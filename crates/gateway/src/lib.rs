//! The shell around authority and ledger: the registrar, permits, listeners and the planes.
//!
//! ```text
//!   plane ──ask──▶ registrar ──▶ authority (pure) ──▶ entry ──▶ ledger
//!     ▲                                                           │ durable
//!     └───────────────────────── Permit ◀─────────────────────────┘
//! ```
//!
//! Planes (`web`, `postgres`, `console`) never name each other; what they share lies here.

pub mod certificate;
pub mod config;
pub mod control;
pub mod data;
mod gateway;
mod listen;
pub mod reload;
pub mod rotation;
#[cfg(test)]
mod wire;

pub use gateway::{Core, Gateway, Running, StartError, start};
