//! Judging actions and what closes them.

use super::trace::Opened;
use super::{Auditor, FindingKind, Found, found};
use crate::authority::{Held, Judgement, Outcome, fits};
use crate::event::{ActionClosed, ActionDetail, ClosedBy, Entry, Event};
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

impl Opened {
    /// When it has to be closed while its session is live.
    fn over_at(self, held: &Held) -> Timestamp {
        let limits = self.limits.and(held.session.limits);
        let over = held.session.deadline(&limits).at;
        self.passed.map_or(over, |passed| passed.min(over))
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
        let allowed = matches!(event, Event::ActionAllowed { .. });
        if allowed && self.outage.is_some() {
            let detail = "nothing may be admitted while nothing can be recorded";
            out.push(found(FindingKind::NotPermitted, session, detail));
        }
        let own = &held.session.context;
        let context = action.context.as_ref().unwrap_or(own);
        let judgement = self.authority.judge(held, action, context, now);
        if action.account.is_some() && action.verb != Verb::SqlConnect {
            let detail = "only a database connection has an account";
            out.push(found(FindingKind::WrongRuling, session, detail));
        }
        if action.context.as_ref() == Some(own) {
            let detail = "the context is the session's own and needs no saying";
            out.push(found(FindingKind::WrongRuling, session, detail));
        }
        if !fits(action) {
            let detail = "a text in it was not cut";
            out.push(found(FindingKind::TextTooLong, session, detail));
        }
        if action.tells_what_it_conceals() {
            let detail = "a value in it is both told and concealed";
            out.push(found(FindingKind::ConcealedWrong, session, detail));
        }
        if !agrees(event, &judgement) {
            let kind = if allowed && !matches!(judgement.outcome, Outcome::Allow { .. }) {
                FindingKind::NotPermitted
            } else {
                FindingKind::WrongRuling
            };
            let detail = tell(judgement.outcome, &judgement.ruling);
            out.push(found(kind, session, detail));
        }
        let limits = judgement.demands().within(held.session.limits);
        self.through(held, action, now, out);
        if allowed {
            self.note_erase_permit(session, action.verb, now);
            let connection = is_connection(action.verb);
            let trace = self.traces.get_or_default(session.clone());
            trace.push(self.index, limits, connection);
        }
    }

    /// An action can only come through an open connection of its session.
    fn through(&self, held: &Held, action: &ActionDetail, now: Timestamp, out: &mut Vec<Found>) {
        let Some(connection) = action.connection else {
            return;
        };
        let session = &held.session.id;
        let open = self
            .opened(session, connection)
            .filter(|opened| opened.connection);
        let over = open.map(|opened| opened.over_at(held));
        if over.is_some_and(|over| over.saturating_add(self.bound) < now) {
            let detail = format!("the connection opened at {connection} had to be cut before");
            out.push(found(FindingKind::ConnectionWrong, session, detail));
        }
        if open.is_none() {
            let detail = format!("no connection of it was opened at {connection} and still open");
            out.push(found(FindingKind::ConnectionWrong, session, detail));
        }
    }

    fn opened(&self, session: &SessionId, index: u64) -> Option<Opened> {
        self.traces.get(session)?.opened(index)
    }

    pub(super) fn closed(&mut self, closed: &ActionClosed, now: Timestamp, out: &mut Vec<Found>) {
        let session = &closed.session;
        let Some(opened) = self.opened(session, closed.action) else {
            let trace = self.traces.get(session);
            let (kind, detail) = if trace.is_some_and(|trace| trace.was_closed(closed.action)) {
                (FindingKind::ClosedTwice, "was closed before")
            } else {
                (FindingKind::CloseWithoutOpen, "is nothing that is open")
            };
            let detail = format!("what entry {} opened {detail}", closed.action);
            out.push(found(kind, session, detail));
            return;
        };
        let late = closed
            .deadline
            .map(|deadline| closed.closed.saturating_since(deadline.at));
        let cut = closed.by == ClosedBy::Limit;
        if closed.late != late || closed.closed > now || (cut && closed.deadline.is_none()) {
            let detail = "its moment, deadline and lateness do not agree";
            out.push(found(FindingKind::CloseWrong, session, detail));
        }
        if let Some(over) = self.over_at(session, opened)
            && closed.closed > over.saturating_add(self.bound)
        {
            let detail = format!("it was open until {}, {over} was its end", closed.closed);
            out.push(found(FindingKind::CloseLate, session, detail));
        } else if late.is_some_and(|late| late > self.bound) {
            let detail = format!("it was cut later than it may, which is {}", self.bound);
            out.push(found(FindingKind::CloseLate, session, detail));
        }
        if let Some(trace) = self.traces.get_mut(session) {
            trace.close(closed.action);
        }
    }

    /// When something that was opened had to be closed, as far as the entries tell.
    fn over_at(&self, session: &SessionId, opened: Opened) -> Option<Timestamp> {
        if let Some(held) = self.authority.held(session) {
            return Some(opened.over_at(held));
        }
        let over = self.authority.tombstone(session)?.effective;
        Some(opened.passed.map_or(over, |passed| passed.min(over)))
    }

    /// Before an entry moves a session's clocks on: which of its open connections have passed
    /// their limits by now? They had to be cut, whatever comes after.
    pub(super) fn note_passed(&mut self, entry: &Entry) {
        let (Event::ActionAllowed { session, .. }
        | Event::ActionDenied { session, .. }
        | Event::SessionActive { session, .. }
        | Event::SessionReauthenticated { session, .. }) = &entry.event
        else {
            return;
        };
        // Activity counts from when it was, not from when it was noted.
        let moment = if let Event::SessionActive { active_at, .. } = entry.event {
            active_at
        } else {
            entry.time
        };
        let (Some(held), Some(trace)) =
            (self.authority.held(session), self.traces.get_mut(session))
        else {
            return;
        };
        for opened in trace.in_time() {
            let limits = opened.limits.and(held.session.limits);
            let over = held.session.deadline(&limits).at;
            if over <= moment {
                opened.passed = Some(over);
            }
        }
    }
}
