//! Commands that begin or renew sessions, or change what holds for all of them.

use std::collections::{BTreeMap, BTreeSet};

use curfew_entry::{
    AccountChange, Actor, Credential, CredentialClass, DenialCause, ENTRY_BYTES_MAX, EndReason,
    Entry, EntryError, Event, Limits, Proof, RefusalCause, Resource, ResourceName, RuleId,
    SessionId, SubjectName, Timestamp,
};

use super::bounds::{ADDED_ROLES_MAX, CREDENTIALS_LIVE_MAX, cut_context, short};
use super::judge::{Admission, Applicant, ended};
use super::{Authority, Held, with_gateway};
use crate::command::{Command, Decision, Denial, Refusal, Verdict};
use crate::policy::Policy;
use crate::traffic::PIECE;

/// What other rules mean for a session.
pub(super) enum Reconsidered {
    /// It lives under other limits.
    Limited { limits: Limits, rules: Vec<RuleId> },
    /// It must end.
    Doomed,
}

impl Authority {
    /// The sessions that ran out while nothing flowed end at their deadlines. What an
    /// interruption kept from being recorded after its cause is caught up as well. Where there are
    /// many sessions, both come in pieces later.
    pub(super) fn start_gateway(&self, command: &Command, now: Timestamp) -> Decision {
        let mut events = Vec::new();
        if let Command::StartGateway {
            version,
            clock,
            boot_id,
            boot_us,
            wall,
        } = command
        {
            events.push(Event::GatewayStarted {
                version: short(version),
                clock: *clock,
                boot_id: short(boot_id),
                boot_us: *boot_us,
                wall: *wall,
            });
        }
        if self.is_small() {
            let due = self.due(now).into_iter();
            events.extend(due.filter_map(|held| Self::end_after(held, now, now)));
            events.extend(self.limit_unsaid(&self.unsaid(usize::MAX)));
        }
        Decision::done(events)
    }

    pub(super) fn load_policy(&self, text: &str, now: Timestamp) -> Decision {
        let policy = match Policy::parse("policy", text) {
            Ok(policy) => policy,
            Err(error) => return Decision::refused(Refusal::Policy(error.to_string())),
        };
        if self.policy() == Some(&policy) {
            return Decision::done(Vec::new());
        }
        let loaded = Event::PolicyLoaded {
            digest: policy.digest().clone(),
            text: text.to_owned(),
        };
        Decision::done(self.with_consequences(loaded, Some(&policy), &self.state.resources, now))
    }

    pub(super) fn load_resources(&self, resources: &[Resource], now: Timestamp) -> Decision {
        let by_name = with_gateway(resources.to_vec());
        let mut names: Vec<_> = resources.iter().map(|resource| &resource.name).collect();
        names.sort();
        if let Some(pair) = names.windows(2).find(|pair| pair.first() == pair.last())
            && let Some(name) = pair.first()
        {
            return Decision::refused(Refusal::ResourceTaken((*name).clone()));
        }
        if by_name == self.state.resources {
            return Decision::done(Vec::new());
        }
        let loaded = Event::ResourcesLoaded {
            resources: by_name.values().cloned().collect(),
        };
        let entry = Entry {
            time: now,
            event: loaded,
        };
        if let Err(EntryError::TooLarge(bytes)) = entry.to_bytes() {
            return Decision::refused(Refusal::TooLarge {
                what: "the list of resources",
                bytes,
                max: ENTRY_BYTES_MAX,
            });
        }
        Decision::done(self.with_consequences(entry.event, self.policy(), &by_name, now))
    }

    /// Whether what follows for all sessions is decided together with its cause.
    fn is_small(&self) -> bool {
        self.state.sessions.len() <= PIECE
    }

    /// Other rules, what they mean for the sessions that are live, and the ends of those that had run
    /// out before. Where there are many sessions, what follows comes in pieces later.
    fn with_consequences(
        &self,
        loaded: Event,
        policy: Option<&Policy>,
        resources: &BTreeMap<ResourceName, Resource>,
        now: Timestamp,
    ) -> Vec<Event> {
        if !self.is_small() {
            return vec![loaded];
        }
        let mut events = self.ends_due(now);
        events.push(loaded);
        for (held, verdict) in self.reconsidered(policy, resources, now) {
            let session = held.session.id.clone();
            events.push(match verdict {
                Reconsidered::Limited { limits, rules } => Event::SessionLimited {
                    session,
                    limits,
                    rules,
                },
                Reconsidered::Doomed => ended(&session, EndReason::PolicyChanged, now),
            });
        }
        events
    }

    /// What these rules mean for the sessions that are live and not due, where that is not what holds:
    /// other limits, or the end. In order of start.
    pub(super) fn reconsidered(
        &self,
        policy: Option<&Policy>,
        resources: &BTreeMap<ResourceName, Resource>,
        now: Timestamp,
    ) -> Vec<(&Held, Reconsidered)> {
        // Many sessions look the same to policy; each look is judged once.
        let mut known: BTreeMap<_, Admission> = BTreeMap::new();
        let by_subject = policy.is_some_and(Policy::names_subjects);
        let gateway = resources.get(&ResourceName::gateway());
        let mut found = Vec::new();
        for held in self.by_start() {
            let session = &held.session;
            if held.over_at() <= now {
                continue;
            }
            let look = (
                by_subject.then_some(&session.subject),
                &session.roles,
                &session.context,
                session.proof.aal,
            );
            let admission = known
                .entry(look)
                .or_insert_with(|| Self::admit_to(gateway, policy, Applicant::of(session)));
            let verdict = match admission {
                Admission::Granted { limits, .. } if *limits == session.limits => continue,
                Admission::Granted { limits, rules } if session.deadline(limits).at > now => {
                    Reconsidered::Limited {
                        limits: *limits,
                        rules: rules.clone(),
                    }
                }
                Admission::Granted { .. }
                | Admission::TooWeak { .. }
                | Admission::Refused { .. } => Reconsidered::Doomed,
            };
            found.push((held, verdict));
        }
        found
    }

    /// New limits of these sessions, where no entry has said them.
    pub(super) fn limit_unsaid(&self, sessions: &[SessionId]) -> Vec<Event> {
        sessions.iter().filter_map(|it| self.limited(it)).collect()
    }

    /// The entry that says a session's new limits, where none has.
    pub(crate) fn limited(&self, session: &SessionId) -> Option<Event> {
        Some(Event::SessionLimited {
            session: session.clone(),
            limits: self.session(session)?.limits,
            rules: self.state.unsaid.get(session)?.clone(),
        })
    }

    /// No entry of a session comes before the one that says its new limits.
    pub(super) fn say_limits_first(&self, events: &mut Vec<Event>) {
        if self.state.unsaid.is_empty() {
            return;
        }
        let mut said = BTreeSet::new();
        let mut place = 0;
        while let Some(event) = events.get(place) {
            let session = event.facets().session.cloned();
            let is_first = session.filter(|session| said.insert(session.clone()));
            let limited = is_first.and_then(|session| self.limited(&session));
            if let Some(limited) = limited
                && !matches!(event, Event::SessionLimited { .. })
            {
                events.insert(place, limited);
                place += 1;
            }
            place += 1;
        }
    }

    pub(super) fn decide_account_change(
        &self,
        subject: &SubjectName,
        change: &AccountChange,
        by: &Actor,
        now: Timestamp,
    ) -> Decision {
        let reason = match change {
            AccountChange::Disabled => Some(EndReason::AccountDisabled),
            AccountChange::PasswordSet | AccountChange::TotpSet => {
                Some(EndReason::CredentialChanged)
            }
            AccountChange::Added(roles) if roles.len() > ADDED_ROLES_MAX => {
                return too_many_roles(roles.len());
            }
            AccountChange::Added(_) | AccountChange::Enabled => None,
        };
        let changed = Event::AccountChanged {
            subject: subject.clone(),
            change: change.clone(),
            by: by.clone(),
        };
        let Some(reason) = reason else {
            return Decision::done(vec![changed]);
        };
        let mut sessions: Vec<&Held> = self.sessions_of(subject).collect();
        if sessions.len() > PIECE {
            // They may do nothing from here on, and end in pieces.
            return Decision::done(vec![changed]);
        }
        sessions.sort_by_key(|held| held.number);
        let mut events: Vec<Event> = sessions
            .iter()
            .filter_map(|held| self.end_due(held, now))
            .collect();
        events.push(changed);
        let live = sessions.iter().filter(|held| held.over_at() > now);
        events.extend(live.map(|held| ended(&held.session.id, reason, now)));
        Decision::done(events)
    }

    pub(super) fn start_session(&self, command: &Command, now: Timestamp) -> Decision {
        let Command::StartSession {
            session,
            subject,
            roles,
            proof,
            context,
            credential,
        } = command
        else {
            return Decision::done(Vec::new());
        };
        if self.held(session).is_some() || self.tombstone(session).is_some() {
            return Decision::refused(Refusal::SessionTaken(session.clone()));
        }
        if self.credential(&credential.hash).is_some() {
            return Decision::refused(Refusal::CredentialTaken(credential.id.clone()));
        }
        if roles.len() > ADDED_ROLES_MAX {
            return too_many_roles(roles.len());
        }
        let context = cut_context(context);
        let refuse = |cause, denial| refuse(subject, context.address, cause, denial);
        let denied = |cause, rules: Vec<RuleId>| Denial {
            session: None,
            cause,
            reasons: self.reasons(&rules),
            rules,
        };
        if self.is_disabled(subject) {
            let denial = denied(DenialCause::NotPermitted, Vec::new());
            return refuse(RefusalCause::Disabled, denial);
        }
        let applicant = Applicant {
            subject,
            roles,
            context: &context,
            proof,
        };
        let (limits, rules) = match self.admit(self.policy(), applicant) {
            Admission::Granted { limits, rules } => (limits, rules),
            Admission::TooWeak { rules } => {
                let denial = denied(DenialCause::NotPermitted, rules);
                return refuse(RefusalCause::InsufficientProof, denial);
            }
            Admission::Refused { cause, rules } => {
                return refuse(RefusalCause::NotPermitted, denied(cause, rules));
            }
        };
        if proof.at.min(now).saturating_add(limits.reauth) <= now {
            let denial = denied(DenialCause::TooOld, rules);
            return refuse(RefusalCause::InsufficientProof, denial);
        }
        Decision::done(vec![
            Event::SessionStarted {
                session: session.clone(),
                subject: subject.clone(),
                roles: roles.clone(),
                proof: proof.clone(),
                context: context.clone(),
                limits,
                rules,
            },
            issued(session, credential),
        ])
    }

    pub(super) fn decide_reauthentication(
        &self,
        session: &SessionId,
        proof: &Proof,
        credential: &Credential,
        now: Timestamp,
    ) -> Decision {
        self.where_new(session, credential, now, |held| {
            match self.renewal(held, proof, now) {
                Ok(mut events) => {
                    events.push(issued(session, credential));
                    Decision::done(events)
                }
                Err((cause, denial)) => {
                    let current = &held.session;
                    refuse(&current.subject, current.context.address, cause, denial)
                }
            }
        })
    }

    /// What a re-authentication leads to before its new credential is issued.
    pub(crate) fn renewal(
        &self,
        held: &Held,
        proof: &Proof,
        now: Timestamp,
    ) -> Result<Vec<Event>, (RefusalCause, Denial)> {
        let current = &held.session;
        let mut after = current.clone();
        after.renew(proof, now);
        let denied = |cause, rules: Vec<RuleId>| Denial {
            session: Some(current.id.clone()),
            cause,
            reasons: self.reasons(&rules),
            rules,
        };
        let (limits, rules) = match self.admit(self.policy(), Applicant::of(&after)) {
            Admission::Granted { limits, rules } => (limits, rules),
            Admission::TooWeak { rules } => {
                let denial = denied(DenialCause::NotPermitted, rules);
                return Err((RefusalCause::InsufficientProof, denial));
            }
            Admission::Refused { cause, rules } => {
                return Err((RefusalCause::NotPermitted, denied(cause, rules)));
            }
        };
        if after.deadline(&limits).at <= now {
            let denial = denied(DenialCause::TooOld, rules);
            return Err((RefusalCause::InsufficientProof, denial));
        }
        let session = &current.id;
        let mut events = vec![Event::SessionReauthenticated {
            session: session.clone(),
            proof: proof.clone(),
        }];
        if limits != current.limits {
            events.push(Event::SessionLimited {
                session: session.clone(),
                limits,
                rules,
            });
        }
        let cookies = self.state.issued(held).filter(|issued| {
            issued.live(now) && issued.credential.class == CredentialClass::Cookie
        });
        events.extend(cookies.map(|issued| Event::CredentialRevoked {
            session: session.clone(),
            credential: issued.credential.id.clone(),
        }));
        Ok(events)
    }

    pub(super) fn issue_credential(
        &self,
        session: &SessionId,
        credential: &Credential,
        now: Timestamp,
    ) -> Decision {
        self.where_new(session, credential, now, |held| {
            let live = self.state.issued(held).filter(|issued| issued.live(now));
            let live = live.count();
            if live >= CREDENTIALS_LIVE_MAX {
                return Decision::refused(Refusal::TooManyCredentials(live));
            }
            Decision::done(vec![issued(session, credential)])
        })
    }

    /// What `decide` makes of a live session that is to have a credential nobody has yet.
    fn where_new(
        &self,
        session: &SessionId,
        credential: &Credential,
        now: Timestamp,
        decide: impl FnOnce(&Held) -> Decision,
    ) -> Decision {
        self.where_live(session, now, |held| {
            let taken = self.taken(session, credential);
            taken.map_or_else(|| decide(held), Decision::refused)
        })
    }

    /// Why a credential is not a new one, if it is not.
    pub(crate) fn taken(&self, session: &SessionId, credential: &Credential) -> Option<Refusal> {
        let taken = self.credential(&credential.hash).is_some()
            || self.issued(session, &credential.id).is_some();
        taken.then(|| Refusal::CredentialTaken(credential.id.clone()))
    }
}

fn issued(session: &SessionId, credential: &Credential) -> Event {
    Event::CredentialIssued {
        session: session.clone(),
        credential: credential.clone(),
    }
}

fn too_many_roles(count: usize) -> Decision {
    Decision::refused(Refusal::TooManyRoles(count))
}

fn refuse(
    subject: &SubjectName,
    address: std::net::IpAddr,
    cause: RefusalCause,
    denial: Denial,
) -> Decision {
    Decision {
        events: vec![Event::SignInRefused {
            subject: Some(subject.clone()),
            cause,
            address,
        }],
        verdict: Verdict::Deny(denial),
    }
}
