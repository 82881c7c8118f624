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
mod conceal;
mod deadlines;
mod entry;
mod event;
mod facets;
mod ids;
mod limits;
mod policy;
mod resource;
mod session;
mod spread;
mod text;
mod time;
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
pub use conceal::{Commitment, Concealed, Field, SALT_BYTES};
pub use event::{
    AccountChange, ActionClosed, ActionDetail, Actor, ArchivingFault, Attempts, AttemptsSummarized,
    ClockSource, ClosedBy, CredentialFault, DenialCause, ENTRY_BYTES_MAX, EndReason, Entry,
    EntryError, Event, LogArchivingFailed, LogPruned, LogTimestamped, RefusalCause, SigningFault,
    WallClock,
};
pub use facets::{Facets, Subjects};
pub use ids::{
    CredentialHash, CredentialId, EnvironmentName, ErasureId, IdError, PolicyDigest, ResourceName,
    RoleName, RuleId, SessionId, SubjectName,
};
pub use limits::{Aal, Deadline, DeadlineCause, Demands, Limits, RecordLevel};
pub use policy::{
    AppliedRule, Effect, Explanation, POLICY_BYTES_MAX, POLICY_RULES_MAX, Policy, PolicyError,
    Problem, Question, Ruling, SCHEMA, UnknownRole,
};
pub use resource::{AccountClass, Plane, Resource, Verb};
pub use session::{Context, Credential, CredentialClass, Factor, LiveSession, Proof, SessionView};
pub use text::{quoted, visible};
pub use time::{Span, Timestamp};
