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
mod clock;
mod conditions;
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
pub mod problem;
mod recorder;
mod registrar;
pub mod reload;
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

pub use certificate::TlsError;
pub use clock::{Clock, is_clock_synced};
pub use gateway::{Core, Gateway, Running, StartError, start};
pub use permit::{Activity, Busy, Closing, Cut, CutCause, CutSignal, Permit};
pub use postgres::{DatabaseState, DatabaseStatus, rights, setup};
pub use recorder::{Durability, Unrecorded};
pub use registrar::{
    CredentialFound, LogState, NotCarriedOut, Record, Refusal, Registrar, SessionFound, Unavailable,
};
