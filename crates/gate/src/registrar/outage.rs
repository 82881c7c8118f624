//! The time during which the ledger cannot take entries.
//!
//! Nothing new is admitted. Sessions still end on time: their traffic is cut at the deadline and
//! the entry follows when the ledger is back. After a grace everything that is live is cut.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use curfew_authority::Command;
use curfew_entry::{SessionId, Span, Timestamp};

use super::Unavailable;

/// Ends and closings that wait for the ledger. There is one for each permit that was out, and an
/// entry of each is under 1 KiB: at most 100 MB.
const DEFERRED_MAX: usize = 100_000;

/// What must be remembered until the ledger is back.
#[derive(Debug)]
pub(super) struct Outage {
    pub(super) kind: Unavailable,
    /// What went wrong, for the log.
    pub(super) cause: String,
    pub(super) since: Timestamp,
    /// Whether `recording.failed` could be written, into the reserve.
    pub(super) noted: bool,
    /// How many questions were refused.
    pub(super) refused: u64,
    /// When sessions were cut that could not be recorded as ended.
    cut: BTreeMap<SessionId, Timestamp>,
    /// What is to be recorded once the ledger is back.
    deferred: VecDeque<Command>,
    /// Everything live has been cut because the grace ran out.
    pub(super) grace_over: bool,
}

impl Outage {
    pub(super) fn new(kind: Unavailable, cause: String, since: Timestamp) -> Self {
        Self {
            kind,
            cause,
            since,
            noted: false,
            refused: 0,
            cut: BTreeMap::new(),
            deferred: VecDeque::new(),
            grace_over: false,
        }
    }

    /// Whether ends can still be recorded, into the ledger's reserve.
    pub(super) fn has_reserve(&self) -> bool {
        self.kind == Unavailable::DiskFull
    }

    /// The moment from which live traffic must be cut, unless it has been.
    pub(super) fn grace_end(&self, grace: Duration) -> Option<Timestamp> {
        let grace = Span::from_duration(grace);
        (!self.grace_over).then(|| self.since.saturating_add(grace))
    }

    /// Keeps a command for when the ledger is back.
    pub(super) fn defer(&mut self, command: Command) {
        if self.deferred.len() < DEFERRED_MAX {
            self.deferred.push_back(command);
        } else {
            tracing::error!(
                ?command,
                "too much to remember during the outage; this is lost"
            );
        }
    }

    /// The first that was kept and not taken.
    pub(super) fn next_deferred(&mut self) -> Option<Command> {
        self.deferred.pop_front()
    }

    /// It could not be recorded after all.
    pub(super) fn defer_again(&mut self, command: Command) {
        self.deferred.push_front(command);
    }

    /// Everything of the session has been cut by `moment`, and the end cannot be recorded yet. What
    /// was cut before the outage was noted counts as cut then, a moment later.
    pub(super) fn note_cut(&mut self, session: &SessionId, moment: Timestamp) {
        let moment = moment.max(self.since);
        self.cut.entry(session.clone()).or_insert(moment);
    }

    /// When the end of a session took effect that is recorded only now: once everything of it was
    /// cut, or at its deadline where nothing of it was open.
    pub(super) fn effective(
        &self,
        session: &SessionId,
        deadline: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let cut = self.cut.get(session).copied();
        cut.or_else(|| Some(deadline?.max(self.since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_stays_first_and_what_was_open_to_nobody_ends_at_its_deadline() {
        let at = Timestamp::from_micros;
        let mut outage = Outage::new(Unavailable::Ledger, String::new(), at(100));
        outage.defer(Command::StopGateway);
        outage.defer(Command::Expire);
        let first = outage.next_deferred().unwrap();
        outage.defer_again(first);
        assert!(matches!(outage.next_deferred(), Some(Command::StopGateway)));
        assert!(matches!(outage.next_deferred(), Some(Command::Expire)));
        assert!(outage.next_deferred().is_none());

        let session = crate::secret::session_id().unwrap();
        assert_eq!(outage.effective(&session, Some(at(120))), Some(at(120)));
        assert_eq!(outage.effective(&session, Some(at(90))), Some(at(100)));
        assert_eq!(outage.effective(&session, None), None);
        outage.note_cut(&session, at(130));
        outage.note_cut(&session, at(140));
        assert_eq!(outage.effective(&session, Some(at(120))), Some(at(130)));
    }
}
