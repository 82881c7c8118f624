//! What is to be said of one action of one live session: shared by `decide` and the auditor.

use std::sync::Arc;

use curfew_entry::{
    Aal, AccountClass, ActionDetail, Context, Deadline, DeadlineCause, Demands, DenialCause,
    EndReason, Event, Limits, LiveSession, Plane, Proof, Resource, ResourceName, RoleName, RuleId,
    SessionId, SubjectName, Timestamp, Verb,
};

use super::{Authority, Held};
use crate::policy::{Policy, Question, Ruling};

/// What is to be said of an action.
#[derive(Clone, Debug)]
pub(crate) struct Judgement {
    /// What policy says.
    pub(crate) ruling: Arc<Ruling>,
    /// What follows on this session's clocks.
    pub(crate) outcome: Outcome,
}

/// What follows from a ruling.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// Allowed, under these limits.
    Allow { limits: Limits },
    /// Fresh or stronger authentication first.
    StepUp {
        passed: Option<Deadline>,
        assurance: Option<Aal>,
    },
    /// Refused.
    Deny(DenialCause),
}

impl Judgement {
    fn deny(cause: DenialCause) -> Self {
        Self {
            ruling: Arc::new(Ruling::Silent),
            outcome: Outcome::Deny(cause),
        }
    }

    /// The rules an entry names.
    pub(crate) fn rules(&self) -> &[RuleId] {
        match &*self.ruling {
            Ruling::Permit { rules, .. } | Ruling::Forbid { rules } => rules,
            Ruling::Silent => &[],
        }
    }

    /// The demands of the rules that permit it.
    pub(crate) fn demands(&self) -> Demands {
        match &*self.ruling {
            Ruling::Permit { demands, .. } => *demands,
            Ruling::Forbid { .. } | Ruling::Silent => Demands::default(),
        }
    }
}

/// What policy says of having a session at all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Admission {
    /// It may live under these limits.
    Granted { limits: Limits, rules: Vec<RuleId> },
    /// The authentication is not strong enough.
    TooWeak { rules: Vec<RuleId> },
    /// No rule permits it, or one forbids it.
    Refused {
        cause: DenialCause,
        rules: Vec<RuleId>,
    },
}

/// Who asks for a session, as policy sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applicant<'a> {
    pub(crate) subject: &'a SubjectName,
    pub(crate) roles: &'a std::collections::BTreeSet<RoleName>,
    pub(crate) context: &'a Context,
    pub(crate) proof: &'a Proof,
}

impl<'a> Applicant<'a> {
    pub(crate) fn of(session: &'a LiveSession) -> Self {
        Self {
            subject: &session.subject,
            roles: &session.roles,
            context: &session.context,
            proof: &session.proof,
        }
    }
}

/// Whether a verb can be done to a resource that takes `plane`. The console is made of pages.
const fn suits(verb: Verb, plane: Plane) -> bool {
    match verb.plane() {
        Plane::Web => matches!(plane, Plane::Web | Plane::Console),
        Plane::Postgres => matches!(plane, Plane::Postgres),
        Plane::Console => matches!(plane, Plane::Console),
    }
}

impl Authority {
    /// Judges an action of a session that is live at `now`. A connection is judged with all that
    /// its account can do.
    pub(crate) fn judge(
        &self,
        held: &Held,
        action: &ActionDetail,
        context: &Context,
        now: Timestamp,
    ) -> Judgement {
        let session = &held.session;
        let Some(resource) = self.resource(&action.resource) else {
            return Judgement::deny(DenialCause::UnknownResource);
        };
        if !suits(action.verb, resource.plane) {
            return Judgement::deny(DenialCause::WrongAudience);
        }
        let Some(policy) = self.policy() else {
            return Judgement::deny(DenialCause::NotPermitted);
        };
        let ask = |verb| {
            let question = Question {
                subject: &session.subject,
                roles: &session.roles,
                resource,
                verb,
                context,
                aal: session.proof.aal,
            };
            self.rulings().get(policy, held.number, &question)
        };
        let account = action.account.filter(|_| action.verb == Verb::SqlConnect);
        let verbs = account.map_or(&[][..], AccountClass::verbs);
        let ruling = verbs.iter().fold(ask(action.verb), |ruling, verb| {
            Arc::new(ruling.and(&ask(*verb)))
        });
        let outcome = match &*ruling {
            Ruling::Permit { demands, .. } => weigh(session, *demands, now),
            Ruling::Forbid { .. } => Outcome::Deny(DenialCause::Forbidden),
            Ruling::Silent => Outcome::Deny(DenialCause::NotPermitted),
        };
        Judgement { ruling, outcome }
    }

    /// What `policy` says of a session for this person.
    pub(crate) fn admit(&self, policy: Option<&Policy>, applicant: Applicant<'_>) -> Admission {
        Self::admit_to(self.resource(&ResourceName::gateway()), policy, applicant)
    }

    /// The same, where this is the gateway.
    pub(super) fn admit_to(
        gateway: Option<&Resource>,
        policy: Option<&Policy>,
        applicant: Applicant<'_>,
    ) -> Admission {
        let refused = |cause, rules| Admission::Refused { cause, rules };
        let (Some(policy), Some(resource)) = (policy, gateway) else {
            return refused(DenialCause::NotPermitted, Vec::new());
        };
        let ruling = policy.ask(&Question {
            subject: applicant.subject,
            roles: applicant.roles,
            resource,
            verb: Verb::SessionStart,
            context: applicant.context,
            aal: applicant.proof.aal,
        });
        match ruling {
            Ruling::Permit { rules, demands } => match demands {
                Demands { assurance, .. } if assurance > Some(applicant.proof.aal) => {
                    Admission::TooWeak { rules }
                }
                Demands {
                    idle: Some(idle),
                    reauth: Some(reauth),
                    lifetime: Some(lifetime),
                    ..
                } => Admission::Granted {
                    limits: Limits {
                        idle,
                        reauth,
                        lifetime,
                    },
                    rules,
                },
                // The checks at load make this impossible; a session without limits must not be.
                Demands { .. } => refused(DenialCause::NotPermitted, rules),
            },
            Ruling::Forbid { rules } => refused(DenialCause::Forbidden, rules),
            Ruling::Silent => refused(DenialCause::NotPermitted, Vec::new()),
        }
    }

    /// The end that is due on this session at `now`, if one is.
    pub(crate) fn end_due(&self, held: &Held, now: Timestamp) -> Option<Event> {
        Self::end_after(held, now, self.started_at())
    }

    /// The same, where the gateway last took up its work at `started`: what ran out while nothing
    /// could flow ended then.
    pub(super) fn end_after(held: &Held, now: Timestamp, started: Timestamp) -> Option<Event> {
        let session = &held.session;
        if let Some(reason) = held.doomed {
            return Some(ended(&session.id, reason, now));
        }
        let deadline = session.end_deadline();
        let effective = if deadline.at <= started {
            deadline.at
        } else {
            now
        };
        (deadline.at <= now).then(|| Event::SessionEnded {
            session: session.id.clone(),
            reason: deadline.cause.into(),
            deadline: Some(deadline.at),
            effective,
            late: Some(effective.saturating_since(deadline.at)),
            by: None,
        })
    }
}

/// An end that no clock gives.
pub(super) fn ended(session: &SessionId, reason: EndReason, now: Timestamp) -> Event {
    Event::SessionEnded {
        session: session.clone(),
        reason,
        deadline: None,
        effective: now,
        late: None,
        by: None,
    }
}

/// What the demands mean on this session's clocks.
fn weigh(session: &LiveSession, demands: Demands, now: Timestamp) -> Outcome {
    let limits = demands.within(session.limits);
    if session.started_at.saturating_add(limits.lifetime) <= now {
        return Outcome::Deny(DenialCause::TooOld);
    }
    let idle = Deadline {
        at: session.active_at.saturating_add(limits.idle),
        cause: DeadlineCause::Idle,
    };
    let reauth = Deadline {
        at: session.authenticated_at.saturating_add(limits.reauth),
        cause: DeadlineCause::Reauth,
    };
    let nearest = idle.min(reauth);
    let passed = (nearest.at <= now).then_some(nearest);
    let assurance = demands
        .assurance
        .filter(|needed| *needed > session.proof.aal);
    if passed.is_some() || assurance.is_some() {
        Outcome::StepUp { passed, assurance }
    } else {
        Outcome::Allow { limits }
    }
}
