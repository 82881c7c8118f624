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
mod client;
mod clock;
pub mod config;
mod console;
pub mod control;
pub mod data;
pub mod forward;
mod gateway;
pub mod handover;
mod listen;
mod oauth;
mod permit;
mod postgres;
mod recorder;
mod registrar;
mod replay;
mod retention;
pub mod rotation;
mod search;
pub mod secret;
pub mod signer;
mod signing;
pub mod stamps;
pub mod standing;
mod web;
pub mod witness;

pub use clock::Clock;
pub use gateway::{Core, Gateway, Running, StartError, start};
pub use listen::TlsError;
pub use permit::{Activity, Busy, Closing, Cut, CutCause, CutSignal, Permit};
pub use postgres::{DatabaseState, DatabaseStatus, rights, setup};
pub use recorder::{Durability, Unrecorded};
pub use registrar::{Record, Refusal, Registrar, Unavailable};
