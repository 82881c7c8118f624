//! The set of sessions and the one place where their state changes.
//!
//! `decide` says what would happen and changes nothing; `apply` lets one recorded entry take
//! effect and is the only way state changes. State is a function of the entries alone: what is
//! kept beside it (rulings once made) can be lost without changing any answer.

mod apply;
mod archiving;
mod ask;
mod attempts;
mod bounds;
mod change;
mod connections;
mod decide;
mod erasing;
mod judge;
mod kept;
mod notes;
mod pruning;
mod rulings;
mod signing;
mod stamping;
#[cfg(test)]
mod tests;
mod watching;
mod witnessing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use curfew_entry::{
    AccountClass, ActionDetail, Context, Credential, CredentialClass, CredentialHash, CredentialId,
    Deadline, EndReason, ErasureId, Limits, LiveSession, Resource, ResourceName, RuleId, SessionId,
    SessionView, Span, SubjectName, Timestamp,
};
use rulings::Rulings;
use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::spread::SpreadMap;

pub(crate) use bounds::fits;
pub use bounds::{
    ADDED_ROLES_MAX, CLIENT_BYTES_MAX, CREDENTIALS_LIVE_MAX, PATH_BYTES_MAX, STATEMENT_BYTES_MAX,
    TOMBSTONE_LIFE, marked,
};
pub(crate) use connections::{Connections, NotOpen, Opened, is_connection};
pub use erasing::{APPROVAL_TIME, Erasure};
pub(crate) use judge::{Admission, Applicant, Judgement, Outcome};
pub use witnessing::CHECKPOINT_BYTES_MAX;

/// Ended sessions looked through for somebody's spent passwords: about 1 ms, and only after a
/// wrong password.
const SPENT_SESSIONS_MAX: usize = 10_000;

/// All state that decides: policy, resources, accounts' standing, sessions, credentials.
///
/// Two are equal when all that decides is equal.
#[derive(Debug, Default)]
pub struct Authority {
    state: State,
    /// Beside the state: what policy said before.
    rulings: Mutex<Rulings>,
}

/// What a replay of the entries yields.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct State {
    opened: bool,
    /// The time of the newest entry.
    time: Timestamp,
    #[serde(with = "kept::policy")]
    policy: Option<Policy>,
    resources: BTreeMap<ResourceName, Resource>,
    disabled: BTreeSet<SubjectName>,
    sessions: SpreadMap<SessionId, Held>,
    by_subject: BTreeMap<SubjectName, BTreeSet<SessionId>>,
    credentials: BTreeMap<CredentialHash, Issued>,
    tombstones: BTreeMap<SessionId, Tombstone>,
    /// The tombstones in order of their entries' time.
    burials: VecDeque<(Timestamp, SessionId)>,
    /// How many sessions have started.
    started: u64,
    /// It was noted that no quorum of witnesses cosigns.
    quorum_lost: bool,
    /// Erasures that were asked for and are not done.
    erasures: BTreeMap<ErasureId, Erasure>,
    /// It was noted that no checkpoint is signed since that of so many entries.
    unsigned_from: Option<u64>,
    /// How many entries there are.
    entries: u64,
    /// How many there are up to the last that is no note of the log on itself.
    substance: u64,
    /// The newest token of a timestamping authority that was noted: over how many entries, and when.
    stamped: Option<(u64, Timestamp)>,
    /// It was noted that such tokens have stopped.
    stamps_stopped: bool,
    /// It was noted that the log is not archived.
    #[serde(default)]
    archiving_failed: bool,
    /// How many entries were given up.
    #[serde(default)]
    pruned: u64,
    /// It was noted whether the wall clock is kept in step.
    #[serde(default)]
    synced: Option<bool>,
    /// When attempts without a live session were last summarized.
    #[serde(default)]
    summarized: Timestamp,
    /// Where the gateway last took up its work.
    #[serde(default)]
    last_start: Option<Started>,
    /// Sessions that live under other limits since a policy or resources came into force, and no entry
    /// of theirs has said so: by which rules.
    #[serde(default)]
    unsaid: BTreeMap<SessionId, Vec<RuleId>>,
    /// When that was, while there are any.
    #[serde(default)]
    unsaid_since: Option<Timestamp>,
    /// The newest permit to take a step of an erasure that was not used, by session.
    #[serde(default)]
    erase_permits: BTreeMap<SessionId, Timestamp>,
}

/// Where a gateway took up its work: what ledger time goes on from after a restart.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// The time of the entry.
    pub time: Timestamp,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The boot clock then, in microseconds.
    pub boot_us: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            opened: false,
            time: Timestamp::default(),
            policy: None,
            resources: with_gateway(Vec::new()),
            disabled: BTreeSet::new(),
            sessions: SpreadMap::default(),
            by_subject: BTreeMap::new(),
            credentials: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            burials: VecDeque::new(),
            started: 0,
            quorum_lost: false,
            erasures: BTreeMap::new(),
            unsigned_from: None,
            entries: 0,
            substance: 0,
            stamped: None,
            stamps_stopped: false,
            archiving_failed: false,
            pruned: 0,
            synced: None,
            summarized: Timestamp::default(),
            last_start: None,
            unsaid: BTreeMap::new(),
            unsaid_since: None,
            erase_permits: BTreeMap::new(),
        }
    }
}

/// A live session, and what only the authority needs of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Held {
    pub(crate) session: LiveSession,
    /// How many sessions had started before it.
    number: u64,
    /// All it was given that has not been forgotten, in order of issue.
    credentials: Vec<CredentialHash>,
    /// It must end for this reason: an entry said so that ends all sessions of the account. Set
    /// so that an end which was not recorded in time is caught up.
    doomed: Option<EndReason>,
    /// Since when.
    #[serde(default)]
    doomed_at: Timestamp,
    /// What its actions opened and nothing has closed.
    #[serde(skip_serializing_if = "Connections::is_empty", default)]
    connections: Connections,
}

/// A credential of a session that is live or lately ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issued {
    pub(crate) session: SessionId,
    pub(crate) credential: Credential,
    pub(crate) revoked: bool,
}

/// What is left of an ended session for [`TOMBSTONE_LIFE`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tombstone {
    pub(crate) reason: EndReason,
    /// When the end took effect.
    pub(crate) effective: Timestamp,
    pub(crate) view: SessionView,
    credentials: Vec<CredentialHash>,
    /// What was open at its end and has not been reported closed.
    #[serde(skip_serializing_if = "Connections::is_empty", default)]
    connections: Connections,
}

impl Clone for Authority {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            // Cheap to make again; a clone need not carry them.
            rulings: Mutex::default(),
        }
    }
}

impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        self.state == other.state
    }
}

impl Eq for Authority {}

/// By name, the gateway itself among them.
fn with_gateway(resources: Vec<Resource>) -> BTreeMap<ResourceName, Resource> {
    let mut by_name: BTreeMap<ResourceName, Resource> = resources
        .into_iter()
        .map(|resource| (resource.name.clone(), resource))
        .collect();
    by_name
        .entry(ResourceName::gateway())
        .or_insert_with(Resource::gateway);
    by_name
}

impl Held {
    /// The first moment at which it may not live on.
    pub(crate) fn over_at(&self) -> Timestamp {
        match self.doomed {
            Some(_) => Timestamp::default(),
            None => self.session.end_deadline().at,
        }
    }

    /// Why it must end though no clock has run out, if it must.
    pub(crate) fn doomed_for(&self) -> Option<EndReason> {
        self.doomed
    }

    /// It must end from `time` on, for this reason if for no earlier one.
    fn doom(&mut self, reason: EndReason, time: Timestamp) {
        if self.doomed.is_none() {
            (self.doomed, self.doomed_at) = (Some(reason), time);
        }
    }

    /// From when its end is due, where it may come that much later than what caused it: of what
    /// concerns many sessions at once the ends come in pieces.
    pub(crate) fn due_by(&self, started: Timestamp, catch_up: Span) -> Timestamp {
        let over = self.over_at();
        match self.doomed {
            Some(_) => self.doomed_at.saturating_add(catch_up),
            None if over <= started => started.saturating_add(catch_up),
            None => over,
        }
    }

    fn view(&self, ended: Option<EndReason>) -> SessionView {
        let session = &self.session;
        SessionView {
            session: session.id.clone(),
            subject: session.subject.clone(),
            roles: session.roles.clone(),
            context: session.context.clone(),
            aal: session.proof.aal,
            started_at: session.started_at,
            authenticated_at: session.authenticated_at,
            active_at: session.active_at,
            deadline: session.end_deadline(),
            ended,
        }
    }
}

impl Issued {
    pub(crate) fn live(&self, now: Timestamp) -> bool {
        !self.revoked && self.credential.expires.is_none_or(|expires| now < expires)
    }
}

impl State {
    /// The new limits of a session are said, or it is over.
    fn said(&mut self, session: &SessionId) {
        self.unsaid.remove(session);
        if self.unsaid.is_empty() {
            self.unsaid_since = None;
        }
    }

    /// The session's credentials, in order of issue.
    fn issued<'a>(&'a self, held: &'a Held) -> impl Iterator<Item = &'a Issued> {
        held.credentials
            .iter()
            .filter_map(|hash| self.credentials.get(hash))
    }
}

impl Authority {
    /// The state before the first entry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first moment at which the session may not live on; none where it does not live.
    pub fn over_at(&self, session: &SessionId) -> Option<Timestamp> {
        self.held(session).map(Held::over_at)
    }

    /// A live session by name.
    pub fn session(&self, session: &SessionId) -> Option<&LiveSession> {
        self.state.sessions.get(session).map(|held| &held.session)
    }

    /// Why the session ended, if it ended within the last [`TOMBSTONE_LIFE`].
    pub fn ended(&self, session: &SessionId) -> Option<EndReason> {
        self.tombstone(session).map(|tombstone| tombstone.reason)
    }

    /// Whose session it is, if it lives or ended within the last [`TOMBSTONE_LIFE`].
    pub fn subject_of(&self, session: &SessionId) -> Option<&SubjectName> {
        let live = self.session(session).map(|session| &session.subject);
        live.or_else(|| Some(&self.tombstone(session)?.view.subject))
    }

    /// The live session's nearest deadline under these limits.
    pub fn deadline(&self, session: &SessionId, limits: &Limits) -> Option<Deadline> {
        self.session(session)
            .map(|session| session.deadline(limits))
    }

    /// The session and credential that this hash presents, live or lately ended.
    pub fn credential(&self, hash: &CredentialHash) -> Option<(&SessionId, &Credential)> {
        self.state
            .credentials
            .get(hash)
            .map(|issued| (&issued.session, &issued.credential))
    }

    /// The credentials for databases that this subject could present for `audience` now.
    pub fn database_credentials(
        &self,
        subject: &SubjectName,
        audience: &ResourceName,
        now: Timestamp,
    ) -> Vec<(&SessionId, &Credential)> {
        self.sessions_of(subject)
            .filter(|held| held.over_at() > now)
            .flat_map(|held| {
                let id = &held.session.id;
                self.state.issued(held).map(move |issued| (id, issued))
            })
            .filter(|(_, issued)| {
                issued.live(now)
                    && issued.credential.class == CredentialClass::Database
                    && issued.credential.audience.as_ref() == Some(audience)
            })
            .map(|(session, issued)| (session, &issued.credential))
            .collect()
    }

    /// The credentials for databases that this subject could once present for `audience` and no
    /// longer can, newest end first: to tell somebody who still knows one what became of it. Of
    /// ended sessions the newest [`SPENT_SESSIONS_MAX`] are looked at.
    pub fn spent_database_credentials(
        &self,
        subject: &SubjectName,
        audience: &ResourceName,
        now: Timestamp,
    ) -> Vec<&Credential> {
        let live = self
            .sessions_of(subject)
            .flat_map(|held| &held.credentials)
            .filter_map(|hash| self.state.credentials.get(hash))
            .filter(|issued| !issued.live(now));
        let ended = self
            .state
            .burials
            .iter()
            .rev()
            .take(SPENT_SESSIONS_MAX)
            .filter_map(|(_, session)| self.tombstone(session))
            .filter(|tombstone| tombstone.view.subject == *subject)
            .flat_map(|tombstone| tombstone.credentials.iter().rev())
            .filter_map(|hash| self.state.credentials.get(hash));
        live.chain(ended)
            .map(|issued| &issued.credential)
            .filter(|credential| {
                credential.class == CredentialClass::Database
                    && credential.audience.as_ref() == Some(audience)
            })
            .collect()
    }

    /// The live credentials of a live session, in order of issue.
    pub fn credentials_of(&self, session: &SessionId, now: Timestamp) -> Vec<&Credential> {
        self.state
            .sessions
            .get(session)
            .into_iter()
            .flat_map(|held| self.state.issued(held))
            .filter(|issued| issued.live(now))
            .map(|issued| &issued.credential)
            .collect()
    }

    /// All live sessions, in order of start.
    pub fn live(&self) -> Vec<SessionView> {
        self.by_start()
            .into_iter()
            .map(|held| held.view(None))
            .collect()
    }

    /// The sessions that ended within the last [`TOMBSTONE_LIFE`], in order of their ends.
    pub fn lately_ended(&self) -> Vec<SessionView> {
        self.state
            .burials
            .iter()
            .filter_map(|(_, session)| self.tombstone(session))
            .map(|tombstone| tombstone.view.clone())
            .collect()
    }

    /// Of these classes of database account the one with the most reach that policy permits this
    /// session to use on the resource at `now`; of none is any, the least. No entry comes of asking,
    /// and opening a connection with it is still to be asked for.
    pub fn account_for(
        &self,
        session: &SessionId,
        resource: &ResourceName,
        context: &Context,
        offered: &[AccountClass],
        now: Timestamp,
    ) -> Option<AccountClass> {
        let permits = |class: &AccountClass| {
            let limits = self.account_limits(session, resource, context, *class, now);
            limits.is_some()
        };
        let offered: BTreeSet<AccountClass> = offered.iter().copied().collect();
        let most = offered.iter().rev().copied().find(permits);
        most.or(offered.first().copied())
    }

    /// The limits that a connection of this session with such an account is held to by the policy in
    /// force; none where it is not permitted at `now`. No entry comes of asking.
    pub fn account_limits(
        &self,
        session: &SessionId,
        resource: &ResourceName,
        context: &Context,
        class: AccountClass,
        now: Timestamp,
    ) -> Option<Limits> {
        let held = self.held(session)?;
        let action = ActionDetail::connecting(resource.clone(), Some(class));
        match self.judge(held, &action, context, now).outcome {
            Outcome::Allow { limits } => Some(limits),
            Outcome::StepUp { .. } | Outcome::Deny(_) => None,
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> Option<&Policy> {
        self.state.policy.as_ref()
    }

    /// The resources in force, in order of name, `gateway` among them.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.state.resources.values()
    }

    /// A resource by name.
    pub fn resource(&self, name: &ResourceName) -> Option<&Resource> {
        self.state.resources.get(name)
    }

    /// Whether the account is disabled.
    pub fn is_disabled(&self, subject: &SubjectName) -> bool {
        self.state.disabled.contains(subject)
    }

    /// The time of the newest entry.
    pub fn time(&self) -> Timestamp {
        self.state.time
    }

    /// Whether the ledger has its first entry.
    pub fn is_open(&self) -> bool {
        self.state.opened
    }

    pub(crate) fn held(&self, session: &SessionId) -> Option<&Held> {
        self.state.sessions.get(session)
    }

    pub(crate) fn tombstone(&self, session: &SessionId) -> Option<&Tombstone> {
        self.state.tombstones.get(session)
    }

    /// The session's credential of this name, live session or not.
    pub(crate) fn issued(&self, session: &SessionId, id: &CredentialId) -> Option<&Issued> {
        let hashes = match self.held(session) {
            Some(held) => &held.credentials,
            None => &self.tombstone(session)?.credentials,
        };
        hashes
            .iter()
            .filter_map(|hash| self.state.credentials.get(hash))
            .find(|issued| issued.credential.id == *id)
    }

    /// The first sessions whose new limits no entry has said.
    pub(crate) fn unsaid(&self, most: usize) -> Vec<SessionId> {
        self.state.unsaid.keys().take(most).cloned().collect()
    }

    /// Whether the new limits of some session are to be said.
    pub(crate) fn has_unsaid(&self) -> bool {
        !self.state.unsaid.is_empty()
    }

    /// Since when new limits of some session are to be said.
    pub(crate) fn unsaid_since(&self) -> Option<Timestamp> {
        self.state.unsaid_since
    }

    /// When the gateway last took up its work; the epoch where it never did.
    pub(crate) fn started_at(&self) -> Timestamp {
        let last = self.state.last_start.as_ref();
        last.map_or(Timestamp::default(), |started| started.time)
    }

    /// All live sessions, with the moments from which they may not live on.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (&SessionId, Timestamp)> {
        let held = self.state.sessions.values();
        held.map(|held| (&held.session.id, held.over_at()))
    }

    /// The live sessions of an account.
    pub(crate) fn sessions_named(&self, subject: &SubjectName) -> impl Iterator<Item = &SessionId> {
        self.state.by_subject.get(subject).into_iter().flatten()
    }

    /// The sessions that have run out by `now`, in order of that moment, then of name.
    fn due(&self, now: Timestamp) -> Vec<&Held> {
        let held = self.state.sessions.values();
        let mut due: Vec<&Held> = held.filter(|held| held.over_at() <= now).collect();
        due.sort_by_key(|held| (held.over_at(), &held.session.id));
        due
    }

    fn sessions_of(&self, subject: &SubjectName) -> impl Iterator<Item = &Held> {
        self.state
            .by_subject
            .get(subject)
            .into_iter()
            .flatten()
            .filter_map(|session| self.held(session))
    }

    fn by_start(&self) -> Vec<&Held> {
        let mut all: Vec<&Held> = self.state.sessions.values().collect();
        all.sort_by_key(|held| held.number);
        all
    }

    fn rulings(&self) -> MutexGuard<'_, Rulings> {
        self.rulings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long an ended session is remembered.
fn is_forgotten(ended: Timestamp, now: Timestamp) -> bool {
    now.saturating_since(ended) >= TOMBSTONE_LIFE && TOMBSTONE_LIFE > Span::ZERO
}
