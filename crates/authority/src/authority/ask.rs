//! May this be done? Whether the session is rightly presented, lives, and policy allows.

use curfew_entry::{
    ActionClosed, ActionDetail, CLOSE_DISAGREES, Context, CredentialClass, CredentialFault,
    CredentialHash, DenialCause, Event, Plane, RuleId, SessionId, Span, Timestamp, Verb,
};

use super::bounds::{cut_action, cut_context};
use super::{Authority, Held, Outcome, is_connection};
use crate::command::{Ask, Decision, Denial, Grant, Presenter, Refusal, StepUp, Verdict};

/// Whether a plane takes credentials of a class at all.
const fn takes(plane: Plane, class: CredentialClass) -> bool {
    match plane {
        Plane::Web | Plane::Console => {
            matches!(class, CredentialClass::Cookie | CredentialClass::Bearer)
        }
        Plane::Postgres => matches!(class, CredentialClass::Database),
    }
}

impl Authority {
    pub(super) fn ask(&self, ask: &Ask, now: Timestamp) -> Decision {
        let context = cut_context(&ask.context);
        let held = match &ask.presenter {
            Presenter::Session(session) => match self.held(session) {
                Some(held) => held,
                // No alarm: it was on its way when the session ended, which has an entry.
                None => return Decision::only(self.absent(session)),
            },
            Presenter::Credential { class, hash, plane } => {
                match self.present(*class, hash, *plane, &ask.action, &context, now) {
                    Ok(held) => held,
                    Err(decision) => return *decision,
                }
            }
        };
        if let Some(decision) = self.over(held, now) {
            return decision;
        }
        // It was on its way when its connection was closed or had to be cut.
        if let Some(index) = ask.action.connection
            && Self::comes_through(held, index, now, Span::ZERO).is_err()
        {
            return Decision::refused(Refusal::NotOpen(index));
        }
        self.answer(held, &ask.action, context, now)
    }

    /// The end of what an allowed action opened.
    pub(super) fn close(&self, closed: &ActionClosed, verb: Verb, now: Timestamp) -> Decision {
        let session = &closed.session;
        if self.held(session).is_none() && self.tombstone(session).is_none() {
            return Decision::refused(Refusal::UnknownSession(session.clone()));
        }
        let gone = is_connection(verb) && self.connection(session, closed.action).is_none();
        if gone || closed.action >= self.entries() {
            return Decision::refused(Refusal::NotOpen(closed.action));
        }
        if !closed.agrees(now) {
            return Decision::refused(Refusal::Contradiction(CLOSE_DISAGREES));
        }
        Decision::done(vec![Event::ActionClosed(closed.clone())])
    }

    /// The verdict on a session that is not live.
    pub(super) fn absent(&self, session: &SessionId) -> Verdict {
        match self.ended(session) {
            Some(reason) => Verdict::Ended {
                session: session.clone(),
                reason,
            },
            None => Verdict::Unauthenticated,
        }
    }

    /// Ends a session that may not live on.
    pub(super) fn over(&self, held: &Held, now: Timestamp) -> Option<Decision> {
        let event = self.end_due(held, now)?;
        let Event::SessionEnded {
            session, reason, ..
        } = &event
        else {
            return None;
        };
        let verdict = Verdict::Ended {
            session: session.clone(),
            reason: *reason,
        };
        Some(Decision {
            events: vec![event],
            verdict,
        })
    }

    /// What `decide` makes of a session that lives at `now`; what to say where it does not.
    pub(super) fn where_live(
        &self,
        session: &SessionId,
        now: Timestamp,
        decide: impl FnOnce(&Held) -> Decision,
    ) -> Decision {
        let Some(held) = self.held(session) else {
            return self.not_live(session);
        };
        self.over(held, now).unwrap_or_else(|| decide(held))
    }

    /// The live session that a credential presents, or what to say of the attempt.
    ///
    /// A presented credential that opens nothing is no activity of the person: it may be in other
    /// hands.
    fn present(
        &self,
        class: CredentialClass,
        hash: &CredentialHash,
        plane: Plane,
        action: &ActionDetail,
        context: &Context,
        now: Timestamp,
    ) -> Result<&Held, Box<Decision>> {
        let Some(issued) = self.state.credentials.get(hash) else {
            return Err(Box::new(Decision {
                events: vec![Event::CredentialUnknown {
                    plane,
                    class,
                    address: context.address,
                }],
                verdict: Verdict::Unauthenticated,
            }));
        };
        let Some(held) = self.held(&issued.session) else {
            return Err(Box::new(Decision {
                events: vec![Event::SessionUsedAfterEnd {
                    session: issued.session.clone(),
                    credential: issued.credential.id.clone(),
                    plane,
                    address: context.address,
                }],
                verdict: self.absent(&issued.session),
            }));
        };
        if let Some(decision) = self.over(held, now) {
            return Err(Box::new(decision));
        }
        let credential = &issued.credential;
        let audience = credential.audience.as_ref();
        let cause = if credential.class != class || !takes(plane, class) {
            CredentialFault::WrongClass
        } else if issued.revoked {
            CredentialFault::Revoked
        } else if !issued.live(now) {
            CredentialFault::Expired
        } else if audience.is_some_and(|audience| *audience != action.resource) {
            CredentialFault::WrongAudience
        } else {
            return Ok(held);
        };
        let verdict = match cause {
            CredentialFault::WrongAudience => Verdict::Deny(Denial {
                session: Some(issued.session.clone()),
                cause: DenialCause::WrongAudience,
                rules: Vec::new(),
                reasons: Vec::new(),
            }),
            CredentialFault::WrongClass | CredentialFault::Revoked | CredentialFault::Expired => {
                Verdict::Unauthenticated
            }
        };
        Err(Box::new(Decision {
            events: vec![Event::CredentialRefused {
                session: issued.session.clone(),
                credential: credential.id.clone(),
                cause,
                resource: action.resource.clone(),
                plane,
                address: context.address,
            }],
            verdict,
        }))
    }

    /// What the policy in force says for people about these rules.
    pub(super) fn reasons(&self, rules: &[RuleId]) -> Vec<String> {
        self.policy()
            .map_or_else(Vec::new, |policy| policy.reasons(rules))
    }

    /// What policy and the clocks say of an action of a live session.
    fn answer(
        &self,
        held: &Held,
        action: &ActionDetail,
        context: Context,
        now: Timestamp,
    ) -> Decision {
        let judgement = self.judge(held, action, &context, now);
        let current = &held.session;
        let mut action = cut_action(action);
        action.context = (context != current.context).then_some(context);
        let session = current.id.clone();
        let rules = judgement.rules().to_vec();
        let demands = judgement.demands();
        let (event, verdict) = match judgement.outcome {
            Outcome::Allow { limits } => {
                let mut after = current.clone();
                if !action.passive {
                    after.active_at = now.max(after.active_at);
                }
                let grant = Grant {
                    session: session.clone(),
                    deadline: after.deadline(&limits),
                    subject: after.subject,
                    roles: after.roles,
                    proof: after.proof,
                    limits,
                    rules: rules.clone(),
                    record: demands.record,
                    account: action.account,
                };
                let event = Event::ActionAllowed {
                    session,
                    action,
                    rules,
                    demands,
                };
                (event, Verdict::Allow(grant))
            }
            Outcome::StepUp { passed, assurance } => {
                let step_up = StepUp {
                    session: session.clone(),
                    passed,
                    assurance,
                    max_age: demands.reauth,
                    reasons: self.reasons(&rules),
                    rules: rules.clone(),
                };
                let event = Event::ActionSteppedUp {
                    session,
                    action,
                    rules,
                    passed,
                    assurance,
                };
                (event, Verdict::StepUp(step_up))
            }
            Outcome::Deny(cause) => {
                let denial = Denial {
                    session: Some(session.clone()),
                    cause,
                    reasons: self.reasons(&rules),
                    rules: rules.clone(),
                };
                let event = Event::ActionDenied {
                    session,
                    action,
                    cause,
                    rules,
                };
                (event, Verdict::Deny(denial))
            }
        };
        Decision {
            events: vec![event],
            verdict,
        }
    }
}
