//! The vocabulary of the ledger: what can be said in an entry, and its JSON form.
//!
//! One entry is one JSON object in a fixed field order: `v`, `time`, `kind`, then the fields of
//! the kind. An entry carries what a verifier cannot derive, and no more.

mod attempts;
mod causes;
mod closed;
mod notes;

use std::collections::BTreeSet;
use std::net::IpAddr;

use notes::is_default;
use serde::{Deserialize, Serialize};

use crate::conceal::Concealed;
use crate::ids::{
    CredentialId, ErasureId, PolicyDigest, ResourceName, RoleName, RuleId, SessionId, SubjectName,
};
use crate::limits::{Aal, Deadline, Demands, Limits};
use crate::resource::{AccountClass, Plane, Resource, Verb};
use crate::session::{Context, Credential, CredentialClass, Proof};
use crate::time::{Span, Timestamp};

pub use attempts::{Attempts, AttemptsSummarized};
pub use causes::{CredentialFault, DenialCause, EndReason, RefusalCause};
pub use closed::{ActionClosed, CLOSE_DISAGREES, ClosedBy};
pub use notes::{
    ArchivingFault, LogArchivingFailed, LogPruned, LogTimestamped, SigningFault, WallClock,
};

/// The largest entry in bytes: what a tlog-tiles bundle can carry (16-bit length).
pub const ENTRY_BYTES_MAX: usize = 65_535;

/// One entry: an event and the moment it was decided.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Ledger time of the decision.
    pub time: Timestamp,
    /// What happened.
    pub event: Event,
}

/// Why bytes are not an entry, or an entry does not fit.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Not the JSON form of an entry of version 1.
    #[error("not an entry: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The version is not one this program knows.
    #[error("entry version {0} is not known to this program")]
    Version(u64),
    /// The JSON is not the canonical form that `to_bytes` gives.
    #[error("not in canonical form")]
    NotCanonical,
    /// Larger than [`ENTRY_BYTES_MAX`].
    #[error("an entry of {0} bytes is over the limit of {ENTRY_BYTES_MAX}")]
    TooLarge(usize),
}

/// What can happen. A closed list; the JSON `kind` is the serde name.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind")]
pub enum Event {
    /// The first entry of a ledger.
    #[serde(rename = "log.opened")]
    LogOpened {
        /// The origin line of its checkpoints.
        origin: String,
    },
    /// The gateway took up its work. Sessions that ran out meanwhile end right after this.
    #[serde(rename = "gateway.started")]
    GatewayStarted {
        /// Curfew's version.
        version: String,
        /// How ledger time was carried on.
        clock: ClockSource,
        /// The kernel's boot id, to recognise a restart without a reboot.
        boot_id: String,
        /// The boot clock at this entry's time, in microseconds.
        boot_us: u64,
        /// How the wall clock stood, as far as the kernel knows.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        wall: Option<WallClock>,
    },
    /// The gateway was told to stop and did.
    #[serde(rename = "gateway.stopped")]
    GatewayStopped {},
    /// The wall clock was stepped; ledger time was not.
    #[serde(rename = "clock.stepped")]
    ClockStepped {
        /// Wall clock minus ledger time, in microseconds, after the step.
        wall_offset_us: i64,
    },
    /// The wall clock is kept in step with others from here on, or no longer is.
    #[serde(rename = "clock.sync_changed")]
    ClockSyncChanged {
        /// How it stands now.
        wall: WallClock,
    },
    /// This policy is in force from here on.
    #[serde(rename = "policy.loaded")]
    PolicyLoaded {
        /// SHA-256 of the text.
        digest: PolicyDigest,
        /// The whole Cedar text.
        text: String,
    },
    /// These are the protected resources from here on.
    #[serde(rename = "resources.loaded")]
    ResourcesLoaded {
        /// All of them, in order of name.
        resources: Vec<Resource>,
    },
    /// An account was changed.
    #[serde(rename = "account.changed")]
    AccountChanged {
        /// Whose account.
        subject: SubjectName,
        /// What changed.
        change: AccountChange,
        /// Who changed it.
        by: Actor,
    },
    /// Somebody tried to sign in and was refused.
    #[serde(rename = "sign_in.refused")]
    SignInRefused {
        /// The account, where it exists. An unknown name is not kept: people type passwords there.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        subject: Option<SubjectName>,
        /// Why.
        cause: RefusalCause,
        /// From where.
        address: IpAddr,
    },
    /// A session began.
    #[serde(rename = "session.started")]
    SessionStarted {
        /// Its public name.
        session: SessionId,
        /// Who.
        subject: SubjectName,
        /// The roles held.
        roles: BTreeSet<RoleName>,
        /// How it was proved.
        proof: Proof,
        /// From where.
        context: Context,
        /// The gateway's limits for it.
        limits: Limits,
        /// The rules that allowed it and set the limits.
        rules: Vec<RuleId>,
    },
    /// The person authenticated again: `authenticated_at` and `active_at` move.
    /// All cookies of the session stop working; new ones are issued.
    #[serde(rename = "session.reauthenticated")]
    SessionReauthenticated {
        /// Which session.
        session: SessionId,
        /// The new proof.
        proof: Proof,
    },
    /// Activity that had no entry of its own, noted when a timer asked.
    #[serde(rename = "session.active")]
    SessionActive {
        /// Which session.
        session: SessionId,
        /// When it was last active.
        active_at: Timestamp,
    },
    /// A new policy gave a live session other limits.
    #[serde(rename = "session.limited")]
    SessionLimited {
        /// Which session.
        session: SessionId,
        /// The limits from here on.
        limits: Limits,
        /// The rules that set them.
        rules: Vec<RuleId>,
    },
    /// A session is over. Exactly one for each that started.
    #[serde(rename = "session.ended")]
    SessionEnded {
        /// Which session.
        session: SessionId,
        /// Why.
        reason: EndReason,
        /// When it had to end, where a clock ended it.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        deadline: Option<Timestamp>,
        /// When the end took effect: every permit of the session had been cut.
        effective: Timestamp,
        /// `effective` minus `deadline`.
        #[serde(rename = "late_us", skip_serializing_if = "Option::is_none", default)]
        late: Option<Span>,
        /// Who ended it, where somebody did.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        by: Option<Actor>,
    },
    /// A credential of an ended session was presented.
    #[serde(rename = "session.used_after_end")]
    SessionUsedAfterEnd {
        /// Which session.
        session: SessionId,
        /// Which credential.
        credential: CredentialId,
        /// On which plane.
        plane: Plane,
        /// From where.
        address: IpAddr,
    },
    /// A live session got a new way to be presented.
    #[serde(rename = "credential.issued")]
    CredentialIssued {
        /// Which session.
        session: SessionId,
        /// The credential, without its secret.
        #[serde(flatten)]
        credential: Credential,
    },
    /// A credential stopped working before its session ended.
    #[serde(rename = "credential.revoked")]
    CredentialRevoked {
        /// Which session.
        session: SessionId,
        /// Which credential.
        credential: CredentialId,
    },
    /// Something was presented that Curfew never issued, or that it has long forgotten.
    #[serde(rename = "credential.unknown")]
    CredentialUnknown {
        /// On which plane.
        plane: Plane,
        /// What it claimed to be.
        class: CredentialClass,
        /// From where.
        address: IpAddr,
    },
    /// A credential of a live session was presented where or when it opens nothing.
    #[serde(rename = "credential.refused")]
    CredentialRefused {
        /// Which session.
        session: SessionId,
        /// Which credential.
        credential: CredentialId,
        /// Why it opens nothing.
        cause: CredentialFault,
        /// What it was presented for.
        resource: ResourceName,
        /// On which plane.
        plane: Plane,
        /// From where.
        address: IpAddr,
    },
    /// Attempts by clients without a live session that have no entries of their own: how many of
    /// each kind. Written while there are any, at intervals and when the gateway stops.
    #[serde(rename = "attempts.summarized")]
    AttemptsSummarized(AttemptsSummarized),
    /// An action was allowed. The entry's index is the action's name from here on.
    #[serde(rename = "action.allowed")]
    ActionAllowed {
        /// Which session.
        session: SessionId,
        /// What is asked to be done, and to what.
        #[serde(flatten)]
        action: ActionDetail,
        /// The rules that allowed it.
        rules: Vec<RuleId>,
        /// The demands of those rules, together.
        #[serde(default, skip_serializing_if = "is_default")]
        demands: Demands,
    },
    /// An action needs fresh or stronger authentication first.
    #[serde(rename = "action.stepped_up")]
    ActionSteppedUp {
        /// Which session.
        session: SessionId,
        /// What is asked to be done, and to what.
        #[serde(flatten)]
        action: ActionDetail,
        /// The rules that would allow it.
        rules: Vec<RuleId>,
        /// Which of the resource's limits has run out, if one has.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        passed: Option<Deadline>,
        /// The assurance level needed, if the session's is too low.
        #[serde(rename = "need_aal", skip_serializing_if = "Option::is_none", default)]
        assurance: Option<Aal>,
    },
    /// An action was refused.
    #[serde(rename = "action.denied")]
    ActionDenied {
        /// Which session.
        session: SessionId,
        /// What is asked to be done, and to what.
        #[serde(flatten)]
        action: ActionDetail,
        /// Why.
        cause: DenialCause,
        /// The rules that forbade it; empty where no rule permitted it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        rules: Vec<RuleId>,
    },
    /// A connection or stream that an allowed action had opened is over.
    #[serde(rename = "action.closed")]
    ActionClosed(ActionClosed),
    /// The ledger could not take entries for a while.
    #[serde(rename = "recording.failed")]
    RecordingFailed {
        /// Since when nothing new was admitted.
        since: Timestamp,
        /// What went wrong, without paths.
        cause: String,
    },
    /// The ledger takes entries again.
    #[serde(rename = "recording.resumed")]
    RecordingResumed {
        /// How many actions were refused meanwhile.
        refused: u64,
    },
    /// Somebody asked that a subject's values, which entries only commit to, be erased.
    #[serde(rename = "erasure.requested")]
    ErasureRequested {
        /// Who asked, by session.
        session: SessionId,
        /// The erasure's name from here on.
        erasure: ErasureId,
        /// Whose values.
        subject: SubjectName,
    },
    /// Somebody else approved it. From here on the values cannot be read.
    #[serde(rename = "erasure.approved")]
    ErasureApproved {
        /// Who approved, by session.
        session: SessionId,
        /// Which erasure.
        erasure: ErasureId,
    },
    /// The subject's keys are overwritten: what stands in place of the values.
    #[serde(rename = "erasure.done")]
    ErasureDone {
        /// Which erasure.
        erasure: ErasureId,
        /// Whose values.
        subject: SubjectName,
        /// How many of the subject's keys are gone, by this and earlier erasures.
        keys: u64,
        /// How many entries' values are gone with them.
        entries: u64,
        /// Values of entries from this one on are left: the index of its approval.
        before: u64,
    },
    /// A quorum of witnesses has cosigned a checkpoint of this log. Not every one is noted.
    #[serde(rename = "log.witnessed")]
    LogWitnessed {
        /// Number of entries that the checkpoint covers.
        size: u64,
        /// Who has cosigned it, by their names in the policy on witnesses.
        witnesses: Vec<String>,
        /// The checkpoint with the signatures of log and witnesses, as a signed note. The longest
        /// signatures are left out where not all fit.
        checkpoint: String,
        /// How the wall clock stood, as far as the kernel knows.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        wall: Option<WallClock>,
    },
    /// For too long no checkpoint has been cosigned by a quorum of witnesses.
    #[serde(rename = "log.quorum_lost")]
    LogQuorumLost {
        /// When the first checkpoint came that they have not cosigned.
        since: Timestamp,
        /// Number of entries in the newest checkpoint that they have.
        size: u64,
        /// Who of them has not cosigned, by their names in the policy on witnesses.
        missing: Vec<String>,
    },
    /// A quorum of witnesses cosigns again.
    #[serde(rename = "log.quorum_met")]
    LogQuorumMet {
        /// Number of entries in the checkpoint that they have cosigned.
        size: u64,
    },
    /// For too long no checkpoint could be signed and published. Entries are durable all the same.
    #[serde(rename = "log.signing_failed")]
    LogSigningFailed {
        /// When the first try failed.
        since: Timestamp,
        /// Number of entries in the newest checkpoint that is signed.
        size: u64,
        /// What stands in the way.
        cause: SigningFault,
    },
    /// Checkpoints are signed and published again.
    #[serde(rename = "log.signing_resumed")]
    LogSigningResumed {
        /// Number of entries in the first checkpoint since: between the size that
        /// `log.signing_failed` names and this one nothing was signed.
        size: u64,
    },
    /// A timestamping authority (RFC 3161) has said when a checkpoint of this log existed. Its token
    /// was verified and is kept beside the log.
    #[serde(rename = "log.timestamped")]
    LogTimestamped(LogTimestamped),
    /// For too long no token has come that holds.
    #[serde(rename = "log.timestamps_stopped")]
    LogTimestampsStopped {
        /// Since when one has been wanted.
        since: Timestamp,
        /// Number of entries in the newest checkpoint that has one.
        size: u64,
        /// What went wrong the last time.
        cause: String,
    },
    /// Tokens come again.
    #[serde(rename = "log.timestamps_resumed")]
    LogTimestampsResumed {
        /// Number of entries in the checkpoint that has one now.
        size: u64,
    },
    /// For too long the log could not be archived. It is whole where it is.
    #[serde(rename = "log.archiving_failed")]
    LogArchivingFailed(LogArchivingFailed),
    /// It is archived again, up to its newest checkpoint.
    #[serde(rename = "log.archiving_resumed")]
    LogArchivingResumed {
        /// Number of entries that the archive covers now.
        size: u64,
    },
    /// Entries past their time are given up; their hashes stay.
    #[serde(rename = "log.pruned")]
    LogPruned(LogPruned),
    /// Another key signs from here on. Written while no gateway runs, at the time of the entry before.
    #[serde(rename = "log.key_rotated")]
    LogKeyRotated {
        /// When, by the wall clock.
        at: Timestamp,
        /// The statement on it, a note signed by both keys that names the entries before and their root.
        note: String,
    },
}

/// What an action is, with the attributes that policy saw.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ActionDetail {
    /// What is done.
    pub verb: Verb,
    /// To what. `gateway` is Curfew itself.
    pub resource: ResourceName,
    /// From where, where that differs from the session's own context.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub context: Option<Context>,
    /// The index of the `action.allowed` entry of the connection it came through, if it did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub connection: Option<u64>,
    /// Of a database connection: the class of the account it uses there. Policy permits all that
    /// such an account can do, and the connection is held to the limits of all of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub account: Option<AccountClass>,
    /// The HTTP method.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<String>,
    /// The path without its query, cut to 1,024 bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// The statement with its literals replaced by `$n`, cut to 2,048 bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub statement: Option<String>,
    /// The statement's fingerprint, the same whatever its literals.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fingerprint: Option<String>,
    /// The statement was only read and planned by the database, or described: it has not run.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub prepares: bool,
    /// The name the client gives itself, cut to 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<String>,
    /// What a search of the log asked for, cut to 1,024 bytes. Words that were looked for are given
    /// by their number and a hash: people look for what must not stand in the log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub search: Option<String>,
    /// The session an administrative action is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<SessionId>,
    /// Not activity: a route marked passive, a probe. It does not move `active_at`.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub passive: bool,
    /// What it only commits to. A field stands here or above, never in both.
    #[serde(skip_serializing_if = "Concealed::is_empty", default)]
    pub concealed: Concealed,
}

impl ActionDetail {
    /// An action of which nothing but this is to be told.
    #[must_use]
    pub fn new(verb: Verb, resource: ResourceName) -> Self {
        Self {
            verb,
            resource,
            context: None,
            connection: None,
            account: None,
            method: None,
            path: None,
            statement: None,
            fingerprint: None,
            prepares: false,
            client: None,
            search: None,
            target: None,
            passive: false,
            concealed: Concealed::default(),
        }
    }

    /// Opening a connection to a database, with an account of this class where there are several.
    #[must_use]
    pub fn connecting(resource: ResourceName, account: Option<AccountClass>) -> Self {
        Self {
            account,
            ..Self::new(Verb::SqlConnect, resource)
        }
    }
}

/// How ledger time was found at start.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockSource {
    /// From the wall clock.
    Wall,
    /// From the boot clock, since the machine has not rebooted since the last entry.
    Boot,
    /// From the last entry, since the wall clock stands before it.
    LastEntry,
}

/// Who did something administrative.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// Somebody with a shell on the gateway's host, by user name or number.
    Host(String),
    /// A session.
    Session(SessionId),
}

/// What changed about an account.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountChange {
    /// It was added, with these roles.
    Added(BTreeSet<RoleName>),
    /// It was disabled: its sessions end.
    Disabled,
    /// It was enabled again.
    Enabled,
    /// Its password was set: its sessions end.
    PasswordSet,
    /// Its TOTP secret was set: its sessions end.
    TotpSet,
}
