//! What an entry of the log is.
//!
//! ```text
//!   Event + Timestamp ──▶ Entry ──▶ canonical JSON ──▶ the ledger
//!                           ▲              │
//!                           └── from_bytes ┘   (only the canonical form is read)
//! ```
//!
//! The names, times, limits and kinds that entries are made of, and their bytes. Whoever only
//! reads logs builds this crate and not the one that decides. Pure: no I/O, no clock, no
//! randomness.

mod conceal;
mod entry;
mod event;
mod facets;
mod ids;
mod limits;
mod resource;
mod session;
mod text;
mod time;

pub use conceal::{Commitment, Concealed, Field, SALT_BYTES};
pub use event::{
    AccountChange, ActionClosed, ActionDetail, Actor, ArchivingFault, Attempts, AttemptsSummarized,
    CLOSE_DISAGREES, ClockSource, ClosedBy, CredentialFault, DenialCause, ENTRY_BYTES_MAX,
    EndReason, Entry, EntryError, Event, LogArchivingFailed, LogPruned, LogTimestamped,
    RefusalCause, SigningFault, WallClock,
};
pub use facets::{Facets, Subjects};
pub use ids::{
    CredentialHash, CredentialId, EnvironmentName, ErasureId, IdError, PolicyDigest, ResourceName,
    RoleName, RuleId, SessionId, SubjectName,
};
pub use limits::{Aal, Deadline, DeadlineCause, Demands, Limits, RecordLevel};
pub use resource::{AccountClass, Plane, Resource, Verb};
pub use session::{
    Context, Credential, CredentialClass, Factor, LiveSession, Proof, SessionView, SessionsKept,
};
pub use text::{quoted, visible};
pub use time::{Span, Timestamp};
