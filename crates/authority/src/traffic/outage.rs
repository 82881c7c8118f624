//! The time during which the ledger cannot take entries.
//!
//! Nothing new is admitted. Sessions still end on time: their traffic is cut at the deadline and
//! the entry follows when the ledger is back. After a grace everything that is live is cut.

use std::collections::{BTreeSet, VecDeque};

use curfew_entry::{Event, SessionId, Span, Timestamp};

use crate::command::{Command, EndCause};

/// Which entries may use the ledger's reserve: those that close things, and that say what failed.
pub fn may_use_reserve(event: &Event) -> bool {
    matches!(
        event,
        Event::SessionActive { .. }
            | Event::SessionEnded { .. }
            | Event::ActionClosed(_)
            | Event::RecordingFailed { .. }
            | Event::RecordingResumed { .. }
            | Event::GatewayStopped {}
    )
}

/// What must be remembered until the ledger is back.
#[derive(Debug)]
pub struct Outage {
    /// What went wrong, for the log.
    cause: String,
    since: Timestamp,
    /// Ends and closings can still be recorded, into the ledger's reserve.
    pub(super) reserve: bool,
    /// The ledger takes entries again, and what is owed to it is being recorded.
    pub(super) back: bool,
    /// That recording failed is recorded.
    pub(super) noted: bool,
    /// Everything live has been cut because the grace ran out.
    pub(super) grace_over: bool,
    refused: u64,
    /// What is to be recorded once the ledger is back: at most a closing for each permit that was
    /// out, and an end for each session.
    deferred: VecDeque<Command>,
    /// The sessions that are to be ended with it.
    ending: BTreeSet<SessionId>,
    /// Up to which session activity has been recorded since the ledger is back.
    pub(super) observed: Option<SessionId>,
}

impl Outage {
    pub(super) fn new(cause: String, since: Timestamp, reserve: bool) -> Self {
        Self {
            cause,
            since,
            reserve,
            back: false,
            noted: false,
            grace_over: false,
            refused: 0,
            deferred: VecDeque::new(),
            ending: BTreeSet::new(),
            observed: None,
        }
    }

    /// Whether ends can still be recorded, into the ledger's reserve: its disk is full, and nothing
    /// worse.
    pub fn has_reserve(&self) -> bool {
        self.reserve
    }

    /// How many questions were refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn refuse(&mut self) {
        self.refused = self.refused.saturating_add(1);
    }

    /// What is to be recorded of the outage itself.
    pub(super) fn failure(&self) -> Command {
        Command::FailRecording {
            since: self.since,
            cause: self.cause.clone(),
        }
    }

    /// The moment from which live traffic must be cut, unless it has been.
    pub(super) fn grace_end(&self, grace: Span) -> Option<Timestamp> {
        (!self.grace_over).then(|| self.since.saturating_add(grace))
    }

    /// Keeps a closing for when the ledger is back.
    pub(super) fn defer(&mut self, command: Command) {
        self.deferred.push_back(command);
    }

    /// Keeps an end for when the ledger is back, unless there is one for the session already.
    pub(super) fn defer_end(&mut self, session: &SessionId, cause: &EndCause) {
        if self.ending.insert(session.clone()) {
            self.deferred.push_back(Command::End {
                session: session.clone(),
                cause: cause.clone(),
            });
        }
    }

    /// The first that was kept and not taken.
    pub(super) fn next_deferred(&mut self) -> Option<Command> {
        self.deferred.pop_front()
    }

    /// It could not be recorded after all: it stays the first.
    pub(super) fn defer_again(&mut self, command: Command) {
        if let Command::End { session, .. } = &command {
            self.ending.insert(session.clone());
        }
        self.deferred.push_front(command);
    }

    /// A session that was cut during the outage ended then, not when the ledger came back: once
    /// everything of it was `cut`, or at its deadline where nothing of it was open. What was cut
    /// before the outage was noted counts as cut then, a moment later.
    pub(super) fn date_back(&self, event: &mut Event, cut: Option<Timestamp>) {
        let Event::SessionEnded {
            deadline,
            effective,
            late,
            ..
        } = event
        else {
            return;
        };
        if let Some(moment) = cut.or(*deadline) {
            let moment = moment.max(self.since);
            *effective = moment.min(*effective);
            *late = deadline.map(|deadline| effective.saturating_since(deadline));
        }
    }
}

#[cfg(test)]
mod tests {
    use curfew_entry::EndReason;

    use super::*;

    #[test]
    fn what_fails_again_stays_first_and_what_was_open_to_nobody_ends_at_its_deadline() {
        let at = Timestamp::from_micros;
        let mut outage = Outage::new(String::new(), at(100), false);
        outage.defer(Command::StopGateway);
        outage.defer(Command::Expire(Vec::new()));
        let first = outage.next_deferred().unwrap();
        outage.defer_again(first);
        assert!(matches!(outage.next_deferred(), Some(Command::StopGateway)));
        assert!(matches!(outage.next_deferred(), Some(Command::Expire(_))));
        assert!(outage.next_deferred().is_none());

        let effective = |cut: Option<u64>, deadline: Option<u64>| {
            let mut event = Event::SessionEnded {
                session: SessionId::from_random([7; 12]),
                reason: EndReason::Idle,
                deadline: deadline.map(at),
                effective: at(200),
                late: None,
                by: None,
            };
            outage.date_back(&mut event, cut.map(at));
            let Event::SessionEnded { effective, .. } = event else {
                unreachable!("an end stays an end");
            };
            effective
        };
        assert_eq!(effective(None, Some(120)), at(120));
        assert_eq!(effective(None, Some(90)), at(100));
        assert_eq!(effective(None, None), at(200));
        assert_eq!(effective(Some(130), Some(120)), at(130));
        assert_eq!(effective(Some(95), Some(90)), at(100));
    }
}
