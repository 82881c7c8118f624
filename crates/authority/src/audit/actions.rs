//! Judging actions and what closes them.

use curfew_entry::{ActionClosed, CLOSE_DISAGREES, Event, SessionId, Timestamp, Verb};

use super::{Auditor, CLOSING_LIFE, FindingKind, Found, found};
use crate::authority::{Authority, Judgement, NotOpen, Opened, Outcome, fits, is_connection};
use crate::policy::Ruling;

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
        if let Some(index) = action.connection
            && let Err(closed) = Authority::comes_through(held, index, now, self.bound)
        {
            let detail = match closed {
                NotOpen::Unknown => {
                    format!("no connection of it was opened at {index} and still open")
                }
                NotOpen::Over(at) => {
                    format!("the connection opened at {index} had to be cut at {at}")
                }
            };
            out.push(found(FindingKind::ConnectionWrong, session, detail));
        }
        if allowed && !is_connection(action.verb) {
            let limits = judgement.demands().within(held.session.limits);
            let trace = self.traces.get_or_default(session.clone());
            trace.push(self.index, limits);
        }
    }

    /// What action `index` of the session opened, if it has not been closed.
    fn opened(&self, session: &SessionId, index: u64) -> Option<Opened> {
        self.authority
            .connection(session, index)
            .or_else(|| self.traces.get(session)?.opened(index))
    }

    pub(super) fn closed(&mut self, closed: &ActionClosed, now: Timestamp, out: &mut Vec<Found>) {
        let session = &closed.session;
        let Some(opened) = self.opened(session, closed.action) else {
            out.push(self.nothing_to_close(closed, now));
            return;
        };
        if !closed.agrees(now) {
            out.push(found(FindingKind::CloseWrong, session, CLOSE_DISAGREES));
        }
        let late = closed.lateness();
        if let Some(over) = self.over_at(session, opened)
            && closed.closed > over.saturating_add(self.bound)
        {
            let detail = format!("it was open until {}, {over} was its end", closed.closed);
            out.push(found(FindingKind::CloseLate, session, detail));
        } else if late.is_some_and(|late| late > self.bound) {
            let detail = format!("it was cut later than it may, which is {}", self.bound);
            out.push(found(FindingKind::CloseLate, session, detail));
        }
        if self.authority.held(session).is_none() && !self.traces.contains_key(session) {
            self.ended.push_back((now, session.clone()));
        }
        let trace = self.traces.get_or_default(session.clone());
        trace.close(closed.action);
    }

    /// What is wrong with a close of what is not open.
    fn nothing_to_close(&self, closed: &ActionClosed, now: Timestamp) -> Found {
        let session = &closed.session;
        let trace = self.traces.get(session);
        let ended = self.authority.tombstone(session).map(|it| it.effective);
        if trace.is_some_and(|trace| trace.was_closed(closed.action)) {
            let detail = format!("what entry {} opened was closed before", closed.action);
            return found(FindingKind::ClosedTwice, session, detail);
        }
        // Of whatever else it opened nothing is known any more.
        if let (None, Some(ended)) = (trace, ended)
            && now.saturating_since(ended) >= CLOSING_LIFE
        {
            let detail = format!("it is told as closed long after its session's end at {ended}");
            return found(FindingKind::CloseLate, session, detail);
        }
        let detail = format!(
            "what entry {} opened is nothing that is open",
            closed.action
        );
        found(FindingKind::CloseWithoutOpen, session, detail)
    }

    /// When something that was opened had to be closed, as far as the entries tell.
    fn over_at(&self, session: &SessionId, opened: Opened) -> Option<Timestamp> {
        if let Some(held) = self.authority.held(session) {
            return Some(opened.over_at(&held.session));
        }
        let over = self.authority.tombstone(session)?.effective;
        Some(opened.passed.map_or(over, |passed| passed.min(over)))
    }
}
