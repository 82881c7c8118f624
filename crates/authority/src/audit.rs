//! The auditor: replays entries and judges each by the same code that made it.
//!
//! For each entry it asks what command must have caused it, and whether the authority, as the
//! entries before left it, would have answered so. Entries that follow from another (the ends
//! after an account was disabled, the limits after a policy was loaded) are expected right after
//! it, one by one. What no entry says is found as well: an end that never came.

mod actions;
mod changes;
mod erasures;
mod memory;
mod sessions;
mod trace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use curfew_entry::{Entry, ErasureId, Event, SessionId, Span, Timestamp};
use serde::{Deserialize, Serialize};
use trace::Trace;

use crate::authority::Authority;
use crate::deadlines::Deadlines;
use crate::spread::SpreadMap;

pub use memory::{AUDITOR_FORM, RecallError};

/// How late an end or a cut may come: the promise is one second (NIST AC-12, SC-10).
pub const LATE_BOUND: Span = Span::from_secs(1);

/// How long after a session's end what it had opened may still be reported closed: everything was
/// cut at the end, so its entries come within moments; ten minutes leave room for a full queue.
const CLOSING_LIFE: Span = Span::from_secs(600);

/// How long after its cause what concerns many sessions may still be told: a policy, a start or a
/// change of an account, whose consequences come in pieces. From the cause on these sessions can do
/// nothing but what it leaves them, so none of this lengthens one. A million entries at 10,000 a
/// second are 100 s; this leaves room for three times as many.
const CATCH_UP: Span = Span::from_secs(300);

/// Replays a ledger and finds what should not be there, or is missing.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Auditor {
    authority: Authority,
    bound: Span,
    /// The index of the newest entry.
    index: u64,
    /// The latest time of any entry, be it right or not.
    newest: Timestamp,
    /// What must follow right after the newest entry, at this time.
    expected: VecDeque<Event>,
    expected_at: Timestamp,
    traces: SpreadMap<SessionId, Trace>,
    /// Ended sessions whose traces are still kept, in order of their ends.
    ended: VecDeque<(Timestamp, SessionId)>,
    /// When the sessions run out. Made again from the authority where an auditor is kept.
    #[serde(skip)]
    deadlines: Deadlines,
    /// Sessions reported as overdue and taken as ended since.
    presumed: BTreeSet<SessionId>,
    /// Since when the ledger could take no entries, while what happened meanwhile is caught up.
    outage: Option<Timestamp>,
    /// As earlier forms kept them; the authority knows them now.
    #[serde(skip_serializing, default)]
    erase_permits: BTreeMap<SessionId, Timestamp>,
    /// Where erasures were approved that are not done.
    erasures_approved: BTreeMap<ErasureId, u64>,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// The entry it is about; for what is missing, the entry at which that showed.
    pub index: u64,
    /// What is wrong.
    pub kind: FindingKind,
    /// The session it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// In a sentence.
    pub detail: String,
}

/// The kinds of finding. A closed list; the JSON name is [`FindingKind::as_str`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The first entry does not open the log.
    LogNotOpened,
    /// The log is opened a second time.
    LogOpenedTwice,
    /// An entry is older than the one before it.
    TimeRunsBack,
    /// A policy's digest is not that of its text.
    PolicyDigestWrong,
    /// A policy that came into force does not pass the checks.
    PolicyUnreadable,
    /// A list of resources is not in its form, or changes nothing.
    ResourcesWrong,
    /// An entry about a session that never started or has ended.
    OutsideSession,
    /// An entry about a session past its limits.
    PastLimits,
    /// An action was allowed without a rule that permits it, or against its demands.
    NotPermitted,
    /// An action's outcome, rules or demands are not what the policy in force gives.
    WrongRuling,
    /// A text is longer than a gateway writes.
    TextTooLong,
    /// An action came through a connection that was not open.
    ConnectionWrong,
    /// A session started twice.
    StartedTwice,
    /// A session started or was renewed though no rule permits it.
    SessionNotPermitted,
    /// A session started for a disabled account.
    AccountDisabled,
    /// A session's limits are not what the policy in force gives.
    LimitsWrong,
    /// A session ended twice.
    EndedTwice,
    /// A session ended that never started.
    EndWithoutStart,
    /// An end's reason, deadline, moment or lateness is wrong.
    EndWrong,
    /// An end came later than the bound.
    EndLate,
    /// An end did not come.
    EndMissing,
    /// Activity outside the time in which it could be.
    ActivityWrong,
    /// A credential was issued twice, revoked without being live, or refused without cause.
    CredentialWrong,
    /// A summary of attempts counts nothing, or what was counted before.
    AttemptsWrong,
    /// A revocation that had to follow did not come.
    RevocationMissing,
    /// Something closed that was not open in this session.
    CloseWithoutOpen,
    /// Something closed twice.
    ClosedTwice,
    /// A close contradicts itself.
    CloseWrong,
    /// A connection was closed later than the bound.
    CloseLate,
    /// A value is concealed that is told as well.
    ConcealedWrong,
    /// Something was erased, or approved, against the rule of two persons.
    ErasureWrong,
    /// Witnesses are said to have cosigned what was not there yet.
    WitnessedWrong,
    /// What is said of the signing of checkpoints contradicts the entries before it.
    SigningWrong,
    /// A timestamp is said to be over what was not there yet.
    TimestampedWrong,
    /// What is said of the archive contradicts the entries before it.
    ArchivingWrong,
    /// Entries are said to be given up that were not there yet, or were given up before.
    PrunedWrong,
}

impl FindingKind {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LogNotOpened => "log_not_opened",
            Self::LogOpenedTwice => "log_opened_twice",
            Self::TimeRunsBack => "time_runs_back",
            Self::PolicyDigestWrong => "policy_digest_wrong",
            Self::PolicyUnreadable => "policy_unreadable",
            Self::ResourcesWrong => "resources_wrong",
            Self::OutsideSession => "outside_session",
            Self::PastLimits => "past_limits",
            Self::NotPermitted => "not_permitted",
            Self::WrongRuling => "wrong_ruling",
            Self::TextTooLong => "text_too_long",
            Self::ConnectionWrong => "connection_wrong",
            Self::StartedTwice => "started_twice",
            Self::SessionNotPermitted => "session_not_permitted",
            Self::AccountDisabled => "account_disabled",
            Self::LimitsWrong => "limits_wrong",
            Self::EndedTwice => "ended_twice",
            Self::EndWithoutStart => "end_without_start",
            Self::EndWrong => "end_wrong",
            Self::EndLate => "end_late",
            Self::EndMissing => "end_missing",
            Self::ActivityWrong => "activity_wrong",
            Self::CredentialWrong => "credential_wrong",
            Self::AttemptsWrong => "attempts_wrong",
            Self::RevocationMissing => "revocation_missing",
            Self::CloseWithoutOpen => "close_without_open",
            Self::ClosedTwice => "closed_twice",
            Self::CloseWrong => "close_wrong",
            Self::CloseLate => "close_late",
            Self::ConcealedWrong => "concealed_wrong",
            Self::ErasureWrong => "erasure_wrong",
            Self::WitnessedWrong => "witnessed_wrong",
            Self::SigningWrong => "signing_wrong",
            Self::TimestampedWrong => "timestamped_wrong",
            Self::ArchivingWrong => "archiving_wrong",
            Self::PrunedWrong => "pruned_wrong",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Default for Auditor {
    fn default() -> Self {
        Self::new()
    }
}

/// A finding before it is known at which entry.
type Found = (FindingKind, Option<SessionId>, String);

fn found(kind: FindingKind, session: &SessionId, detail: impl Into<String>) -> Found {
    (kind, Some(session.clone()), detail.into())
}

impl Auditor {
    /// An auditor that allows ends and cuts to be late by [`LATE_BOUND`].
    pub fn new() -> Self {
        Self::with_bound(LATE_BOUND)
    }

    /// An auditor that allows ends and cuts to be late by `bound`.
    pub fn with_bound(bound: Span) -> Self {
        Self {
            authority: Authority::new(),
            bound,
            index: 0,
            newest: Timestamp::default(),
            expected: VecDeque::new(),
            expected_at: Timestamp::default(),
            traces: SpreadMap::default(),
            ended: VecDeque::new(),
            deadlines: Deadlines::default(),
            presumed: BTreeSet::new(),
            outage: None,
            erase_permits: BTreeMap::new(),
            erasures_approved: BTreeMap::new(),
        }
    }

    /// The state that the entries so far lead to.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The same, for whoever goes on with it alone.
    pub fn into_authority(self) -> Authority {
        self.authority
    }

    /// The erasures that were approved and are not done, with the indexes of their approvals.
    pub fn erasures_approved(&self) -> &BTreeMap<ErasureId, u64> {
        &self.erasures_approved
    }

    /// Judges the next entry. `index` is its place in the ledger.
    pub fn check(&mut self, index: u64, entry: &Entry) -> Vec<Finding> {
        self.index = index;
        let mut out = Vec::new();
        if !self.authority.is_open() && !matches!(entry.event, Event::LogOpened { .. }) {
            // Said once: replaying goes on as if it had been opened.
            let opened = Event::LogOpened {
                origin: String::new(),
            };
            let time = entry.time;
            self.authority.apply_at(
                index,
                &Entry {
                    time,
                    event: opened,
                },
            );
            let detail = "the first entry does not open the log".to_owned();
            out.push((FindingKind::LogNotOpened, None, detail));
        }
        if entry.time < self.newest {
            let detail = format!("{} after {}", entry.time, self.newest);
            out.push((FindingKind::TimeRunsBack, None, detail));
        }
        self.newest = self.newest.max(entry.time);
        if !self.follows(entry, &mut out) {
            self.sweep_limits(entry, &mut out);
            self.sweep(entry.time, Some(&entry.event), &mut out);
            if self.stand_alone(entry, &mut out) {
                self.apply(entry);
            }
        }
        out.into_iter()
            .map(|(kind, session, detail)| Finding {
                index,
                kind,
                session,
                detail,
            })
            .collect()
    }

    /// What is missing at the end of the ledger, when it is `last_time`.
    pub fn finish(&mut self, last_time: Timestamp) -> Vec<Finding> {
        let mut out = Vec::new();
        if last_time > self.expected_at.saturating_add(self.bound) {
            self.miss_all(&mut out);
        }
        self.miss_limits(last_time, &mut out);
        self.sweep(last_time, None, &mut out);
        let index = self.index;
        out.into_iter()
            .map(|(kind, session, detail)| Finding {
                index,
                kind,
                session,
                detail,
            })
            .collect()
    }

    fn apply(&mut self, entry: &Entry) {
        if let Event::SessionEnded { session, .. } = &entry.event
            && self.traces.contains_key(session)
        {
            self.ended.push_back((entry.time, session.clone()));
        }
        self.authority.apply_at(self.index, entry);
        self.deadlines.follow(&entry.event, &self.authority);
        // While nothing can be recorded, closes are put off.
        while let Some((ended, session)) = self.ended.front()
            && self.outage.is_none()
            && entry.time.saturating_since(*ended) >= CLOSING_LIFE
        {
            self.traces.remove(session);
            self.ended.pop_front();
        }
    }

    /// Sessions that ran out longer than the bound before `now`, and whose end nobody recorded.
    fn sweep(&mut self, now: Timestamp, event: Option<&Event>, out: &mut Vec<Found>) {
        // While nothing ran nothing could flow: these end right after the start. Those that were
        // cut while nothing could be recorded end before the resumption is recorded.
        let resumed = matches!(event, Some(Event::RecordingResumed { .. }));
        if matches!(event, Some(Event::GatewayStarted { .. }))
            || (self.outage.is_some() && event.is_some() && !resumed)
        {
            return;
        }
        let now = match event {
            Some(Event::RecordingFailed { since, .. }) => now.min(*since),
            _ => now,
        };
        let bound = self.bound.as_micros();
        let Some(limit) = now.as_micros().checked_sub(bound.saturating_add(1)) else {
            return;
        };
        let limit = Timestamp::from_micros(limit);
        while let Some((deadline, session)) = self.next_overdue(limit) {
            // An end that comes now is judged as late.
            if matches!(event, Some(Event::SessionEnded { session: ending, .. }) if *ending == session)
            {
                continue;
            }
            let detail = format!("it ran out at {deadline} and had not ended at {now}");
            out.push(found(FindingKind::EndMissing, &session, detail));
            self.presume(&session, now);
        }
    }

    fn next_overdue(&mut self, limit: Timestamp) -> Option<(Timestamp, SessionId)> {
        let authority = &self.authority;
        let started = authority.started_at();
        let due_by = |session: &SessionId| {
            let held = authority.held(session)?;
            Some(held.due_by(started, CATCH_UP))
        };
        self.deadlines.take_due(limit, due_by)
    }

    /// A session's new limits come before anything else of it, and in time.
    fn sweep_limits(&mut self, entry: &Entry, out: &mut Vec<Found>) {
        if !self.authority.has_unsaid() {
            return;
        }
        if !matches!(entry.event, Event::GatewayStarted { .. }) {
            self.miss_limits(entry.time, out);
        }
        let session = entry.event.facets().session.cloned();
        if let Some(session) = session
            && !matches!(entry.event, Event::SessionLimited { .. })
        {
            self.miss_limited(&session, out);
        }
    }

    /// New limits that had to be said by now.
    fn miss_limits(&mut self, now: Timestamp, out: &mut Vec<Found>) {
        let Some(since) = self.authority.unsaid_since() else {
            return;
        };
        let caused = since.max(self.authority.started_at());
        let until = caused.saturating_add(CATCH_UP).saturating_add(self.bound);
        if self.outage.is_none() && until < now {
            for session in self.authority.unsaid(usize::MAX) {
                self.miss_limited(&session, out);
            }
        }
    }

    /// Reports that a session's new limits were not said, where they were not, and goes on as if.
    fn miss_limited(&mut self, session: &SessionId, out: &mut Vec<Found>) {
        if let Some(event) = self.authority.limited(session) {
            let detail = "its limits had to change, and no entry before says so";
            out.push(found(FindingKind::LimitsWrong, session, detail));
            let time = self.authority.time();
            self.apply(&Entry { time, event });
        }
    }

    /// Goes on as if the session had ended when it had to.
    fn presume(&mut self, session: &SessionId, now: Timestamp) {
        let end = self
            .authority
            .held(session)
            .and_then(|held| self.authority.end_due(held, now));
        if let Some(event) = end {
            self.presumed.insert(session.clone());
            self.apply(&Entry {
                time: self.authority.time(),
                event,
            });
        }
    }

    /// Judges an entry that follows from none before it. Whether it takes effect.
    fn stand_alone(&mut self, entry: &Entry, out: &mut Vec<Found>) -> bool {
        let now = entry.time;
        match &entry.event {
            Event::LogOpened { .. } => {
                if self.authority.is_open() {
                    let detail = "the log was opened before".to_owned();
                    out.push((FindingKind::LogOpenedTwice, None, detail));
                }
            }
            Event::GatewayStarted { .. }
            | Event::PolicyLoaded { .. }
            | Event::ResourcesLoaded { .. }
            | Event::AccountChanged { .. } => self.lead(entry, out),
            Event::SessionStarted { .. } => return self.started(&entry.event, now, out),
            Event::SessionReauthenticated { session, proof } => {
                return self.reauthenticated(session, proof, now, out);
            }
            Event::SessionActive { session, active_at } => {
                return self.active(session, *active_at, now, out);
            }
            Event::SessionLimited { session, .. } => {
                if self.authority.limited(session).as_ref() == Some(&entry.event) {
                    return true;
                }
                let detail = "no change of policy or proof gives it other limits";
                out.push(found(FindingKind::LimitsWrong, session, detail));
                return false;
            }
            Event::SessionEnded { session, .. } => self.session_ended(session, entry, out),
            Event::CredentialIssued { .. }
            | Event::CredentialRevoked { .. }
            | Event::CredentialRefused { .. }
            | Event::SessionUsedAfterEnd { .. } => self.credential(&entry.event, now, out),
            Event::AttemptsSummarized(told) => {
                if let Some(fault) = self.authority.attempts_fault(told, now) {
                    out.push((FindingKind::AttemptsWrong, None, fault.to_owned()));
                }
            }
            Event::ActionAllowed { .. }
            | Event::ActionSteppedUp { .. }
            | Event::ActionDenied { .. } => self.action(&entry.event, now, out),
            Event::ActionClosed(closed) => self.closed(closed, now, out),
            Event::RecordingFailed { since, .. } => {
                self.outage.get_or_insert(*since);
            }
            Event::RecordingResumed { .. } => self.outage = None,
            Event::ErasureRequested { .. }
            | Event::ErasureApproved { .. }
            | Event::ErasureDone { .. } => self.erasure(entry, out),
            Event::LogWitnessed { .. }
            | Event::LogQuorumLost { .. }
            | Event::LogQuorumMet { .. }
            | Event::LogSigningFailed { .. }
            | Event::LogSigningResumed { .. }
            | Event::LogTimestamped(_)
            | Event::LogTimestampsStopped { .. }
            | Event::LogTimestampsResumed { .. }
            | Event::LogArchivingFailed(_)
            | Event::LogArchivingResumed { .. }
            | Event::LogPruned(_) => self.note(&entry.event, now, out),
            // Whether its statement holds, the ledger says, which knows the keys.
            Event::LogKeyRotated { .. }
            | Event::GatewayStopped {}
            | Event::ClockStepped { .. }
            | Event::ClockSyncChanged { .. }
            | Event::SignInRefused { .. }
            | Event::CredentialUnknown { .. } => {}
        }
        true
    }
}
