//! Proves two things of a ledger in one pass:
//!
//! - *integrity*: every hash, tile, checkpoint and signature fits the entries that are there;
//! - *legitimacy*: the entries, replayed through the code that decided them, tell of no action
//!   outside a live session, no limit passed, no end that came late or never.
//!
//! Needs the ledger and its verifier key, and nothing else: no gateway, no trust in whoever keeps the
//! log. The ledger is a directory, or is read from whoever serves it as C2SP tlog-tiles over HTTP: only
//! `served` knows the network, and what comes from there is proven like any other bytes.

mod audit;
pub mod cli;
mod place;
pub mod receipt;
mod report;
mod rotations;
mod served;
mod state;
mod timestamps;
mod witnesses;

pub use audit::{Audit, Broken, FINDINGS_MAX, audit, audit_onward};
pub use curfew_ledger as ledger;
pub use curfew_ledger::verify::Progress;
pub use place::{Place, place_of};
pub use report::{Fault, Found, Outcome, Report, Sessions};
pub use state::{State, StateError};
pub use timestamps::{Refused, Stamp, Timestamps};
pub use witnesses::{Cosigned, Witnesses};
