//! Who may do what, until when.
//!
//! ```text
//!   Command ──▶ Authority::decide(&command, now) ──▶ Decision { events, verdict }
//!                                                        │
//!   Authority::apply(&Entry) ◀───── each event, once ────┘   (the only way state changes)
//!   Traffic::handle(input, now) ──▶ what is cut, what is to be recorded, and when to wake
//! ```
//!
//! Pure: no I/O, no clock, no randomness, no async, no iteration order that depends on a hash.
//! Time and random identifiers are inputs. Gateway, simulator and verifier run this same code,
//! so that `replay(entries) == state` and an auditor can judge every entry again.

mod audit;
mod authority;
mod command;
mod deadlines;
mod policy;
mod spread;
pub mod traffic;

pub use audit::{AUDITOR_FORM, Auditor, Finding, FindingKind, LATE_BOUND, RecallError};
pub use authority::{
    ADDED_ROLES_MAX, APPROVAL_TIME, Authority, CHECKPOINT_BYTES_MAX, CLIENT_BYTES_MAX,
    CREDENTIALS_LIVE_MAX, Erasure, PATH_BYTES_MAX, STATEMENT_BYTES_MAX, Started, TOMBSTONE_LIFE,
    marked,
};
pub use command::{
    ArchiveNews, Ask, Command, Decision, Denial, EndCause, ErasureRefusal, ErasureStep, Grant,
    NewCredential, Presenter, Refusal, SigningNews, StampNews, StepUp, Verdict, WitnessNews,
    Witnessed,
};
pub use policy::{
    AppliedRule, Effect, Explanation, POLICY_BYTES_MAX, POLICY_RULES_MAX, Policy, PolicyError,
    Problem, Question, Ruling, SCHEMA, UnknownRole,
};
