//! What can be asked of the authority, and what it answers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use curfew_entry::{
    Aal, AccountChange, AccountClass, ActionClosed, ActionDetail, Actor, AttemptsSummarized,
    ClockSource, Context, Credential, CredentialClass, CredentialHash, CredentialId, Deadline,
    DenialCause, EndReason, ErasureId, Event, Limits, LogArchivingFailed, LogPruned,
    LogTimestamped, Plane, Proof, RecordLevel, RefusalCause, Resource, RoleName, RuleId, SessionId,
    SigningFault, SubjectName, Timestamp, Verb, WallClock,
};

/// Everything that can change or question the state. There is no other way in.
#[derive(Clone, Debug)]
pub enum Command {
    /// Write the first entry of a new ledger.
    OpenLog {
        /// The origin line of its checkpoints.
        origin: String,
    },
    /// Take up work: sessions that ran out meanwhile end at their deadlines.
    StartGateway {
        /// Curfew's version.
        version: String,
        /// How ledger time was found.
        clock: ClockSource,
        /// The kernel's boot id.
        boot_id: String,
        /// The boot clock now, in microseconds.
        boot_us: u64,
        /// How the wall clock stands, where the kernel says so.
        wall: Option<WallClock>,
    },
    /// Stop work. Sessions live on; their deadlines keep running.
    StopGateway,
    /// Note that the wall clock was stepped.
    StepClock {
        /// Wall clock minus ledger time, in microseconds.
        wall_offset_us: i64,
    },
    /// Put a policy in force. It must have passed [`crate::Policy::parse`].
    LoadPolicy {
        /// The Cedar text.
        text: String,
    },
    /// Put the list of resources in force.
    LoadResources {
        /// All of them; `gateway` is added where it is missing.
        resources: Vec<Resource>,
    },
    /// Note a change of an account; ends its sessions where the change demands it.
    ChangeAccount {
        /// Whose account.
        subject: SubjectName,
        /// What changed.
        change: AccountChange,
        /// Who changed it.
        by: Actor,
    },
    /// Note a refused sign-in.
    RefuseSignIn {
        /// The account, where it exists.
        subject: Option<SubjectName>,
        /// Why.
        cause: RefusalCause,
        /// From where.
        address: IpAddr,
    },
    /// Begin a session after a verified authentication.
    StartSession {
        /// A fresh random name.
        session: SessionId,
        /// Who.
        subject: SubjectName,
        /// The roles the account holds.
        roles: BTreeSet<RoleName>,
        /// How it was proved.
        proof: Proof,
        /// From where.
        context: Context,
        /// The first credential.
        credential: Credential,
    },
    /// The person authenticated again. All cookies of the session are revoked, `credential` is new.
    Reauthenticate {
        /// Which session.
        session: SessionId,
        /// The new proof.
        proof: Proof,
        /// The cookie that replaces the old ones.
        credential: Credential,
    },
    /// Give a live session one more way to be presented.
    IssueCredential(NewCredential),
    /// Take one back.
    RevokeCredential {
        /// Which session.
        session: SessionId,
        /// Which credential.
        credential: CredentialId,
    },
    /// Note activity seen by a plane that had no entry of its own.
    Observe {
        /// Which session.
        session: SessionId,
        /// When it was last active. Ignored unless newer than what is known, and before the end.
        active_at: Timestamp,
    },
    /// May this be done?
    Ask(Ask),
    /// A connection or stream is over. Of a stream it is not known whether it was closed before: a
    /// permit is given back once.
    Close {
        /// How it ended.
        closed: ActionClosed,
        /// What was allowed.
        verb: Verb,
    },
    /// End a session.
    End {
        /// Which session.
        session: SessionId,
        /// Why, and by whom.
        cause: EndCause,
    },
    /// Time has passed: end those of these sessions that have run out.
    Expire(Vec<SessionId>),
    /// Say the new limits of those of these sessions whose limits changed without an entry of theirs.
    SayLimits(Vec<SessionId>),
    /// Note that the ledger could not take entries.
    FailRecording {
        /// Since when.
        since: Timestamp,
        /// What went wrong, without paths.
        cause: String,
    },
    /// Note that the ledger takes entries again.
    ResumeRecording {
        /// How many actions were refused meanwhile.
        refused: u64,
    },
    /// Note how many attempts by clients without a live session have no entries of their own.
    SummarizeAttempts(AttemptsSummarized),
    /// Note what there is to say of the log's witnesses.
    Witness(WitnessNews),
    /// Take a step of an erasure.
    Erasure(ErasureStep),
    /// Note what there is to say of the signing of checkpoints.
    Signing(SigningNews),
    /// Note what there is to say of timestamps over the log.
    Stamp(StampNews),
    /// Note what there is to say of the archive.
    Archive(ArchiveNews),
    /// How the wall clock stands. Recorded where that is not as it was.
    WatchClock(WallClock),
    /// Entries past their time are to be given up.
    Prune(LogPruned),
}

/// A step of the erasure of what entries only commit to.
#[derive(Clone, Debug)]
pub enum ErasureStep {
    /// Somebody asks for it, with a permit to do [`curfew_entry::Verb::LogErase`].
    Request {
        /// Who, by session.
        session: SessionId,
        /// A fresh random name for it.
        erasure: ErasureId,
        /// Whose values.
        subject: SubjectName,
    },
    /// Somebody else approves it, with such a permit too.
    Approve {
        /// Who, by session.
        session: SessionId,
        /// Which.
        erasure: ErasureId,
    },
    /// It is done: the keys are overwritten.
    Finish {
        /// Which.
        erasure: ErasureId,
        /// How many keys of the subject are gone.
        keys: u64,
        /// How many entries' values are gone with them.
        entries: u64,
        /// Values of entries from this one on are left: the index of its approval.
        before: u64,
    },
}

/// Why a step of an erasure cannot be taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ErasureRefusal {
    /// It was never asked for, nobody approved it in time, or it is done.
    #[error("there is no such erasure, or nobody approved it in time")]
    Unknown,
    /// The name was used before.
    #[error("the name of the erasure was used before")]
    Taken,
    /// The same is asked for already.
    #[error("the erasure of this subject was asked for already, as {0}")]
    Open(ErasureId),
    /// Too many wait for approval.
    #[error("too many erasures wait for approval")]
    TooMany,
    /// The values are those of the one who asks or approves.
    #[error("nobody can ask for or approve the erasure of their own values")]
    Own,
    /// Who asks cannot approve.
    #[error("somebody else than who asked for the erasure must approve it")]
    SamePerson,
    /// It is approved already.
    #[error("the erasure is approved already")]
    Approved,
    /// Nobody has approved it.
    #[error("nobody has approved the erasure")]
    NotApproved,
    /// There is no permit for it, or it was used, or is older than a minute.
    #[error("the permit for this step was used for another, or is too old; ask again")]
    NoPermit,
}

/// What there is to say of the signing of checkpoints.
#[derive(Clone, Copy, Debug)]
pub enum SigningNews {
    /// For too long none was signed. Recorded once until one is.
    Failed {
        /// When the first try failed.
        since: Timestamp,
        /// Number of entries in the newest checkpoint that is signed.
        size: u64,
        /// What stands in the way.
        cause: SigningFault,
    },
    /// They are signed again. Recorded where it was that none is.
    Resumed {
        /// Number of entries in the first checkpoint since.
        size: u64,
    },
}

/// What there is to say of timestamps over the log.
#[derive(Clone, Debug)]
pub enum StampNews {
    /// A token was verified and kept.
    Kept(LogTimestamped),
    /// For too long none has come. Recorded once until one comes again.
    Stopped {
        /// Since when one has been wanted.
        since: Timestamp,
        /// Number of entries in the newest checkpoint that has one.
        size: u64,
        /// What went wrong.
        cause: String,
    },
    /// They come again. Recorded where it was that they had stopped.
    Resumed {
        /// Number of entries in the checkpoint that has one now.
        size: u64,
    },
}

/// What there is to say of the log's archive.
#[derive(Clone, Copy, Debug)]
pub enum ArchiveNews {
    /// For too long the log could not be archived. Recorded once until it is again.
    Failed(LogArchivingFailed),
    /// It is archived again. Recorded where it was that it is not.
    Resumed {
        /// Number of entries that the archive covers now.
        size: u64,
    },
}

/// What there is to say of the log's witnesses.
#[derive(Clone, Debug)]
pub enum WitnessNews {
    /// A quorum of them has cosigned a checkpoint.
    Cosigned(Witnessed),
    /// For too long no quorum has. Recorded once until it is met again.
    QuorumLost {
        /// When the first checkpoint came that they have not cosigned.
        since: Timestamp,
        /// Number of entries in the newest checkpoint that they have.
        size: u64,
        /// Who has not cosigned.
        missing: Vec<String>,
    },
    /// A quorum cosigns again. Recorded where it was that none did.
    QuorumMet {
        /// Number of entries in the checkpoint that they have cosigned.
        size: u64,
    },
}

/// A checkpoint that a quorum of witnesses has cosigned.
#[derive(Clone, Debug)]
pub struct Witnessed {
    /// Number of entries it covers.
    pub size: u64,
    /// Who has cosigned it.
    pub witnesses: Vec<String>,
    /// The checkpoint with its signatures, as a signed note.
    pub checkpoint: String,
    /// How the wall clock stands, where the kernel says so.
    pub wall: Option<WallClock>,
}

/// A credential for a session that already lives.
#[derive(Clone, Debug)]
pub struct NewCredential {
    /// Which session.
    pub session: SessionId,
    /// The credential.
    pub credential: Credential,
}

/// Why a session is ended on request.
#[derive(Clone, Debug)]
pub struct EndCause {
    /// The reason the entry gives.
    pub reason: EndReason,
    /// Who asked, where it was not the session itself.
    pub by: Option<Actor>,
}

/// A question: may this be done?
#[derive(Clone, Debug)]
pub struct Ask {
    /// How the session was presented.
    pub presenter: Presenter,
    /// What is to be done.
    pub action: ActionDetail,
    /// From where, now.
    pub context: Context,
}

/// How a session is presented with an action.
#[derive(Clone, Debug)]
pub enum Presenter {
    /// By a credential of this class with this hash of its secret.
    Credential {
        /// What it claims to be.
        class: CredentialClass,
        /// SHA-256 of the secret that was shown.
        hash: CredentialHash,
        /// On which plane.
        plane: Plane,
    },
    /// Through a connection that an allowed action of this session opened.
    Session(SessionId),
}

/// The events of a command, to be applied and recorded in this order, and the answer.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct Decision {
    /// What happened. Empty where nothing did.
    pub events: Vec<Event>,
    /// The answer.
    pub verdict: Verdict,
}

/// The answer to a command.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use = "a command that was refused has done nothing"]
pub enum Verdict {
    /// Done; nothing was asked.
    Done,
    /// Allowed.
    Allow(Grant),
    /// Fresh or stronger authentication first.
    StepUp(StepUp),
    /// Refused; the session goes on.
    Deny(Denial),
    /// The session is over.
    Ended {
        /// Which session.
        session: SessionId,
        /// Why.
        reason: EndReason,
    },
    /// No session: the credential was never issued, is revoked, has expired or is of another class.
    Unauthenticated,
    /// The command cannot be carried out as it stands. Nothing happened, nothing is recorded.
    Refused(Refusal),
}

/// Why a command cannot be carried out. A fault of the caller or of what it was given, never of
/// the person at the other end.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[must_use = "what was refused has not happened"]
pub enum Refusal {
    /// The ledger was opened before.
    #[error("the ledger is already open")]
    AlreadyOpen,
    /// No session of this name, or one that ended long ago.
    #[error("there is no session {0}")]
    UnknownSession(SessionId),
    /// The session has no such credential that still works.
    #[error("the session has no live credential {0}")]
    UnknownCredential(CredentialId),
    /// A session of this name exists or ended lately.
    #[error("the session name {0} was used before")]
    SessionTaken(SessionId),
    /// A credential of this name or with this secret exists.
    #[error("the credential {0} or its secret was used before")]
    CredentialTaken(CredentialId),
    /// The session has as many live credentials as it may have.
    #[error("the session has {0} live credentials, the most it may have")]
    TooManyCredentials(usize),
    /// A session cannot be ended for this reason on request: a clock gives it.
    #[error("{0:?} is a reason that only a clock gives")]
    ClockReason(EndReason),
    /// The policy text does not pass its checks; one problem per line.
    #[error("{0}")]
    Policy(String),
    /// Two resources have the same name.
    #[error("two resources are called {0}")]
    ResourceTaken(curfew_entry::ResourceName),
    /// What the action came through, or what is to be closed, is not open in this session.
    #[error("entry {0} opened nothing that is open in this session")]
    NotOpen(u64),
    /// It contradicts the entries so far, or itself.
    #[error("it contradicts what is recorded: {0}")]
    Contradiction(&'static str),
    /// A step of an erasure that cannot be taken.
    #[error(transparent)]
    Erasure(#[from] ErasureRefusal),
    /// An account is to have more roles than an entry can name.
    #[error("{0} roles are more than the {max} that one account may have", max = crate::ADDED_ROLES_MAX)]
    TooManyRoles(usize),
    /// Attempts that cannot be summarized so.
    #[error("a summary of attempts that cannot be: {0}")]
    Attempts(&'static str),
    /// What is to be recorded does not fit in an entry.
    #[error("{what} of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        max: usize,
    },
}

/// What an allowed action may rely on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// Which session.
    pub session: SessionId,
    /// Who.
    pub subject: SubjectName,
    /// The roles held.
    pub roles: BTreeSet<RoleName>,
    /// The newest authentication.
    pub proof: Proof,
    /// The session's limits tightened by the action's demands: what a permit is held to.
    pub limits: Limits,
    /// When these run out unless something happens before.
    pub deadline: Deadline,
    /// The rules that allowed it.
    pub rules: Vec<RuleId>,
    /// How far its entry must have come before it takes effect, beyond being durable.
    pub record: Option<RecordLevel>,
    /// The class of database account that it opens a connection with.
    pub account: Option<AccountClass>,
}

impl Grant {
    /// What both may rely on together: the strictest of their limits, deadlines and demands. Both
    /// are of one session.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.limits = self.limits.and(other.limits);
        self.deadline = self.deadline.min(other.deadline);
        self.record = self.record.max(other.record);
        for rule in &other.rules {
            if !self.rules.contains(rule) {
                self.rules.push(rule.clone());
            }
        }
        self
    }
}

/// What is missing for an action.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StepUp {
    /// Which session.
    pub session: SessionId,
    /// Which of the resource's limits has run out, if one has.
    pub passed: Option<Deadline>,
    /// The assurance level needed, if the session's is too low.
    pub assurance: Option<Aal>,
    /// The longest age of authentication the action accepts (RFC 9470 `max_age`), if it says so.
    pub max_age: Option<curfew_entry::Span>,
    /// The rules that would allow it.
    pub rules: Vec<RuleId>,
    /// What the policy says for people about these rules (`@reason`), each text once.
    pub reasons: Vec<String>,
}

/// A refusal that fresh authentication would not change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    /// Which session; none where a new one was refused.
    pub session: Option<SessionId>,
    /// Why.
    pub cause: DenialCause,
    /// The rules that forbade it.
    pub rules: Vec<RuleId>,
    /// What the policy says for people about these rules (`@reason`), each text once.
    pub reasons: Vec<String>,
}

impl Denial {
    /// The policy's own words on the refusal, for the person who is refused; none where its rules
    /// have none.
    pub fn reason(&self) -> Option<String> {
        joined(&self.reasons)
    }
}

impl StepUp {
    /// The policy's own words on what it demands, for the person who is asked to authenticate; none
    /// where its rules have none.
    pub fn reason(&self) -> Option<String> {
        joined(&self.reasons)
    }
}

fn joined(reasons: &[String]) -> Option<String> {
    (!reasons.is_empty()).then(|| reasons.join(" "))
}
