//! Judging actions and what closes them.

use std::sync::Arc;

use super::{Allowed, Auditor, FindingKind, Found, found};
use crate::authority::{Judgement, Outcome, fits};
use crate::event::{ActionClosed, ActionDetail, ClosedBy, Event};
use crate::ids::SessionId;
use crate::policy::Ruling;
use crate::resource::Verb;
use crate::time::Timestamp;

/// Whether other actions can come through what this verb opens.
const fn is_connection(verb: Verb) -> bool {
    matches!(verb, Verb::SqlConnect | Verb::WebConnect)
}

/// Whether the entry says what the judgement says.
fn agrees(event: &Event, judgement: &Judgement) -> bool {
    match (event, judgement.outcome) {
        (Event::ActionAllowed { rules, demands, .. }, Outcome::Allow { .. }) => {
            rules == judgement.rules() && *demands == judgement.demands()
        }
        (
            Event::ActionSteppedUp {
                rules,
                passed,
                assurance,
                ..
            },
            Outcome::StepUp {
                passed: by,
                assurance: need,
            },
        ) => rules == judgement.rules() && *passed == by && *assurance == need,
        (Event::ActionDenied { rules, cause, .. }, Outcome::Deny(by)) => {
            rules == judgement.rules() && *cause == by
        }
        _ => false,
    }
}

fn tell(outcome: Outcome, ruling: &Ruling) -> String {
    let by = match ruling {
        Ruling::Permit { rules, .. } | Ruling::Forbid { rules } => rules
            .iter()
            .map(|rule| rule.as_str())
            .collect::<Vec<_>>()
            .join(", "),
        Ruling::Silent => "no rule".to_owned(),
    };
    match outcome {
        Outcome::Allow { .. } => format!("policy allows it by {by}"),
        Outcome::StepUp { .. } => format!("policy asks for fresh authentication by {by}"),
        Outcome::Deny(cause) => format!("policy denies it ({cause:?}) by {by}"),
    }
}

impl Auditor {
    pub(super) fn action(&mut self, event: &Event, now: Timestamp, out: &mut Vec<Found>) {
        let (Event::ActionAllowed {
            session, action, ..
        }
        | Event::ActionSteppedUp {
            session, action, ..
        }
        | Event::ActionDenied {
            session, action, ..
        }) = event
        else {
            return;
        };
        let Some(held) = self.live(session, now, out) else {
            return;
        };
        let own = &held.session.context;
        let context = action.context.as_ref().unwrap_or(own);
        let judgement = self
            .authority
            .judge(held, action.verb, &action.resource, context, now);
        if action.context.as_ref() == Some(own) {
            let detail = "the context is the session's own and needs no saying";
            out.push(found(FindingKind::WrongRuling, session, detail));
        }
        if !fits(action) {
            let detail = "a text in it was not cut";
            out.push(found(FindingKind::TextTooLong, session, detail));
        }
        if !agrees(event, &judgement) {
            let allowed = matches!(event, Event::ActionAllowed { .. });
            let kind = if allowed && !matches!(judgement.outcome, Outcome::Allow { .. }) {
                FindingKind::NotPermitted
            } else {
                FindingKind::WrongRuling
            };
            let detail = tell(judgement.outcome, &judgement.ruling);
            out.push(found(kind, session, detail));
        }
        self.through(session, action, out);
        if matches!(event, Event::ActionAllowed { .. }) {
            let allowed = Allowed {
                index: self.index,
                ruling: judgement.ruling,
                connection: is_connection(action.verb),
                closed: false,
            };
            match self.traces.get_mut(session) {
                Some(trace) => trace.actions.push(allowed),
                None => {
                    let trace = self.traces.entry(session.clone()).or_default();
                    trace.actions.push(allowed);
                }
            }
        }
    }

    /// An action can only come through an open connection of its session.
    fn through(&self, session: &SessionId, action: &ActionDetail, out: &mut Vec<Found>) {
        let Some(connection) = action.connection else {
            return;
        };
        let open = self
            .allowed(session, connection)
            .is_some_and(|allowed| allowed.connection && !allowed.closed);
        if !open {
            let detail = format!("no connection of it was opened at {connection} and still open");
            out.push(found(FindingKind::ConnectionWrong, session, detail));
        }
    }

    fn allowed(&self, session: &SessionId, index: u64) -> Option<&Allowed> {
        let actions = &self.traces.get(session)?.actions;
        let place = actions.binary_search_by_key(&index, |a| a.index).ok()?;
        actions.get(place)
    }

    pub(super) fn closed(&mut self, closed: &ActionClosed, now: Timestamp, out: &mut Vec<Found>) {
        let session = &closed.session;
        let Some(allowed) = self.allowed(session, closed.action) else {
            let detail = format!("entry {} opened nothing of it", closed.action);
            out.push(found(FindingKind::CloseWithoutOpen, session, detail));
            return;
        };
        if allowed.closed {
            let detail = format!("what entry {} opened was closed before", closed.action);
            out.push(found(FindingKind::ClosedTwice, session, detail));
        }
        let late = closed
            .deadline
            .map(|deadline| closed.closed.saturating_since(deadline.at));
        let cut = closed.by == ClosedBy::Limit;
        if closed.late != late || closed.closed > now || (cut && closed.deadline.is_none()) {
            let detail = "its moment, deadline and lateness do not agree";
            out.push(found(FindingKind::CloseWrong, session, detail));
        }
        let ruling = Arc::clone(&allowed.ruling);
        if let Some(over) = self.over_at(session, &ruling)
            && closed.closed > over.saturating_add(self.bound)
        {
            let detail = format!("it was open until {}, {over} was its end", closed.closed);
            out.push(found(FindingKind::CloseLate, session, detail));
        } else if late.is_some_and(|late| late > self.bound) {
            let detail = format!("it was cut later than it may, which is {}", self.bound);
            out.push(found(FindingKind::CloseLate, session, detail));
        }
        if let Some(trace) = self.traces.get_mut(session)
            && let Ok(place) = trace
                .actions
                .binary_search_by_key(&closed.action, |a| a.index)
            && let Some(allowed) = trace.actions.get_mut(place)
        {
            allowed.closed = true;
        }
    }

    /// When something under this ruling had to be closed, as the session's clocks stand.
    fn over_at(&self, session: &SessionId, ruling: &Ruling) -> Option<Timestamp> {
        if let Some(held) = self.authority.held(session) {
            let demands = match ruling {
                Ruling::Permit { demands, .. } => *demands,
                Ruling::Forbid { .. } | Ruling::Silent => return None,
            };
            let limits = demands.within(held.session.limits);
            return Some(held.session.deadline(&limits).at);
        }
        self.authority
            .tombstone(session)
            .map(|tombstone| tombstone.effective)
    }
}
