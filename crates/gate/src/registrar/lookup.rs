//! Questions about state that change nothing. They are a closed list with plain answers, so that they
//! can come from another machine.

use std::collections::{BTreeMap, BTreeSet};

use curfew_authority::{Ask, Authority, Command, Erasure, UnknownRole, Verdict};
use curfew_entry::{
    Credential, CredentialClass, CredentialHash, EndReason, ErasureId, LiveSession, PolicyDigest,
    ResourceName, RoleName, SessionId, SessionView, SubjectName, Timestamp,
};

use super::{Answer, Message, Refusal, Registrar};

/// What is known of a session at one moment.
#[derive(Clone, Debug)]
pub struct SessionFound {
    /// The moment.
    pub now: Timestamp,
    /// The session, while no entry has ended it. Its deadline may have passed already.
    pub live: Option<LiveSession>,
    /// Why it ended, while that is remembered: about a day.
    pub ended: Option<EndReason>,
    /// Whose it is or was, for as long.
    pub subject: Option<SubjectName>,
}

impl SessionFound {
    /// The session, unless it is over by its deadline too.
    pub fn lives(self) -> Option<LiveSession> {
        self.live.filter(|live| self.now < live.end_deadline().at)
    }
}

/// What is known of a credential that was issued and is remembered.
#[derive(Clone, Debug)]
pub struct CredentialFound {
    /// The credential.
    pub credential: Credential,
    /// The name of its session.
    pub id: SessionId,
    /// Its session.
    pub session: SessionFound,
    /// Whether it can still be used: neither revoked nor expired.
    pub opens: bool,
}

impl CredentialFound {
    /// Whether it is of this class, and for this resource or for any.
    pub fn is_for(&self, class: CredentialClass, resource: &ResourceName) -> bool {
        let audience = self.credential.audience.as_ref();
        self.credential.class == class && audience.is_none_or(|audience| audience == resource)
    }
}

/// What the log says of itself.
#[derive(Clone, Copy, Debug)]
pub struct LogState {
    /// Ledger time now.
    pub now: Timestamp,
    /// Number of entries.
    pub entries: u64,
    /// Number of entries up to the last one that is no note of the log on itself.
    pub substance: u64,
    /// The first entry without a signed checkpoint, while signing fails.
    pub unsigned_from: Option<u64>,
    /// Whether archiving fails.
    pub archiving_failed: bool,
    /// Whether the quorum of witnesses is lost.
    pub quorum_lost: bool,
    /// Size and moment of the last timestamp that has an entry.
    pub stamped: Option<(u64, Timestamp)>,
    /// Whether timestamps have stopped.
    pub stamping_stopped: bool,
}

/// A question with where its answer goes.
pub(super) enum Lookup {
    Session(SessionId, Answer<SessionFound>),
    Subjects(Vec<SessionId>, Answer<BTreeMap<SessionId, SubjectName>>),
    Live(Answer<Vec<SessionView>>),
    Credential(CredentialHash, Answer<Option<CredentialFound>>),
    Passwords(SubjectName, ResourceName, usize, Answer<Vec<Credential>>),
    SpentPasswords(SubjectName, ResourceName, usize, Answer<Vec<Credential>>),
    Log(Answer<LogState>),
    PolicyInForce(Answer<Option<PolicyDigest>>),
    UnknownRoles(BTreeSet<RoleName>, Answer<Vec<UnknownRole>>),
    IsDisabled(SubjectName, Answer<bool>),
    Erasures(Answer<Vec<(ErasureId, Erasure)>>),
    Would(Box<Ask>, Answer<Verdict>),
}

impl Registrar {
    /// What is known of a session.
    ///
    /// # Errors
    /// When the gateway is stopping, as with every question here.
    pub async fn session(&self, session: SessionId) -> Result<SessionFound, Refusal> {
        self.look(|answer| Lookup::Session(session, answer)).await
    }

    /// Whose these sessions are, of those that live or ended within about a day.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub async fn subjects(
        &self,
        sessions: Vec<SessionId>,
    ) -> Result<BTreeMap<SessionId, SubjectName>, Refusal> {
        self.look(|answer| Lookup::Subjects(sessions, answer)).await
    }

    /// All sessions that live, in order of start.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub async fn live(&self) -> Result<Vec<SessionView>, Refusal> {
        self.look(Lookup::Live).await
    }

    /// What is known of a credential. Looking is no use of it.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub async fn credential(
        &self,
        hash: CredentialHash,
    ) -> Result<Option<CredentialFound>, Refusal> {
        self.look(|answer| Lookup::Credential(hash, answer)).await
    }

    /// The newest `max` passwords that open this database for this subject now, newest first.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub async fn passwords(
        &self,
        subject: SubjectName,
        resource: ResourceName,
        max: usize,
    ) -> Result<Vec<Credential>, Refusal> {
        self.look(|answer| Lookup::Passwords(subject, resource, max, answer))
            .await
    }

    /// The newest `max` passwords that did, and no longer do.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub async fn spent_passwords(
        &self,
        subject: SubjectName,
        resource: ResourceName,
        max: usize,
    ) -> Result<Vec<Credential>, Refusal> {
        self.look(|answer| Lookup::SpentPasswords(subject, resource, max, answer))
            .await
    }

    /// What the log says of itself.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub async fn log(&self) -> Result<LogState, Refusal> {
        self.look(Lookup::Log).await
    }

    /// The digest of the policy in force.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub async fn policy_in_force(&self) -> Result<Option<PolicyDigest>, Refusal> {
        self.look(Lookup::PolicyInForce).await
    }

    /// Those of `roles` that no rule of the policy in force speaks of.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub async fn unknown_roles(
        &self,
        roles: BTreeSet<RoleName>,
    ) -> Result<Vec<UnknownRole>, Refusal> {
        self.look(|answer| Lookup::UnknownRoles(roles, answer))
            .await
    }

    /// Whether an account is disabled.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub async fn is_disabled(&self, subject: SubjectName) -> Result<bool, Refusal> {
        self.look(|answer| Lookup::IsDisabled(subject, answer))
            .await
    }

    /// The erasures that are not done, approved or not, unless they have expired.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub async fn erasures(&self) -> Result<Vec<(ErasureId, Erasure)>, Refusal> {
        self.look(Lookup::Erasures).await
    }

    /// What would be said to this now. It is neither done nor recorded.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub async fn would(&self, ask: Ask) -> Result<Verdict, Refusal> {
        self.look(|answer| Lookup::Would(Box::new(ask), answer))
            .await
    }

    async fn look<T>(&self, question: impl FnOnce(Answer<T>) -> Lookup) -> Result<T, Refusal> {
        self.send(|answer| Message::Lookup(question(answer))).await
    }
}

impl Lookup {
    /// Answers from the state of one moment between two entries. Whoever asked may be gone.
    pub(super) fn answer(self, authority: &Authority, now: Timestamp) {
        fn give<T>(answer: Answer<T>, found: T) {
            // Nobody waits any more: there is nobody to tell.
            let _ = answer.send(Ok(found));
        }
        match self {
            Self::Session(id, answer) => give(answer, session(authority, &id, now)),
            Self::Subjects(sessions, answer) => {
                let subject = |id: SessionId| authority.subject_of(&id).cloned().map(|of| (id, of));
                give(answer, sessions.into_iter().filter_map(subject).collect());
            }
            Self::Live(answer) => {
                let mut views = authority.live();
                views.retain(|view| now < view.deadline.at);
                give(answer, views);
            }
            Self::Credential(hash, answer) => give(answer, credential(authority, &hash, now)),
            Self::Passwords(subject, resource, max, answer) => {
                let mut open = authority.database_credentials(&subject, &resource, now);
                // Of all sessions alike: passwords live for the same time, so the last to end is the
                // newest.
                open.sort_by_key(|(_, one)| (one.expires.is_none(), one.expires));
                let newest = open.into_iter().rev().take(max);
                give(answer, newest.map(|(_, one)| one.clone()).collect());
            }
            Self::SpentPasswords(subject, resource, max, answer) => {
                let spent = authority.spent_database_credentials(&subject, &resource, now);
                give(answer, spent.into_iter().take(max).cloned().collect());
            }
            Self::Log(answer) => give(answer, log(authority, now)),
            Self::PolicyInForce(answer) => {
                give(
                    answer,
                    authority.policy().map(|policy| policy.digest().clone()),
                );
            }
            Self::UnknownRoles(roles, answer) => {
                let policy = authority.policy();
                let unknown = policy.map(|policy| policy.unknown_roles(&roles));
                give(answer, unknown.unwrap_or_default());
            }
            Self::IsDisabled(subject, answer) => give(answer, authority.is_disabled(&subject)),
            Self::Erasures(answer) => {
                let open = authority.erasures(now);
                give(
                    answer,
                    open.map(|(id, it)| (id.clone(), it.clone())).collect(),
                );
            }
            Self::Would(ask, answer) => {
                give(answer, authority.decide(&Command::Ask(*ask), now).verdict);
            }
        }
    }
}

fn session(authority: &Authority, id: &SessionId, now: Timestamp) -> SessionFound {
    SessionFound {
        now,
        live: authority.session(id).cloned(),
        ended: authority.ended(id),
        subject: authority.subject_of(id).cloned(),
    }
}

fn credential(
    authority: &Authority,
    hash: &CredentialHash,
    now: Timestamp,
) -> Option<CredentialFound> {
    let (id, credential) = authority.credential(hash)?;
    let usable = authority.credentials_of(id, now);
    Some(CredentialFound {
        credential: credential.clone(),
        id: id.clone(),
        session: session(authority, id, now),
        opens: usable.iter().any(|one| one.hash == *hash),
    })
}

fn log(authority: &Authority, now: Timestamp) -> LogState {
    LogState {
        now,
        entries: authority.entries(),
        substance: authority.substance(),
        unsigned_from: authority.unsigned_from(),
        archiving_failed: authority.is_archiving_failed(),
        quorum_lost: authority.is_quorum_lost(),
        stamped: authority.stamped(),
        stamping_stopped: authority.is_stamping_stopped(),
    }
}
