//! The gate: the one path by which anything is permitted, and the only crate that can make a permit,
//! append an entry or change state.
//!
//! ```text
//!   plane ──ask──▶ registrar ──▶ authority (pure) ──▶ entry ──▶ ledger
//!     ▲                                                           │ durable
//!     └───────────────────────── Permit ◀─────────────────────────┘
//! ```
//!
//! Planes depend on this crate and `curfew-entry` alone, and cannot reach the ledger or the state.
//! Beside the path lies what every plane needs: who the client is (`clients`), where Curfew is reached
//! (`site`), the secrets it makes (`secret`), whom it trusts (`tls`), one sign-in for many hosts
//! (`handover`).

pub mod clients;
pub mod clock;
pub mod conditions;
pub mod handover;
pub mod permit;
pub mod problem;
pub mod recorder;
pub mod registrar;
pub mod replay;
pub mod secret;
pub mod settings;
pub mod signing;
pub mod site;
pub mod tls;

pub use curfew_authority::{
    Ask, CLIENT_BYTES_MAX, Command, Denial, EndCause, ErasureRefusal, ErasureStep, Grant,
    NewCredential, PATH_BYTES_MAX, Presenter, Refusal as NotDone, StepUp, Verdict, marked,
};

pub use clock::{Clock, is_clock_synced};
pub use permit::{Activity, Busy, Closing, Cut, CutCause, CutSignal, Permit};
pub use recorder::{Durability, Unrecorded};
pub use registrar::{
    CredentialFound, LogState, NotCarriedOut, Record, Refusal, Registrar, SessionFound, Unavailable,
};
