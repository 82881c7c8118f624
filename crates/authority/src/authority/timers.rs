//! One timer per session, corrected only when it comes up: activity costs no timer work.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use curfew_entry::SessionId;
use curfew_entry::Timestamp;

/// For each session a moment no later than the one at which it runs out.
///
/// A function of the entries only up to that promise; never compared, never recorded.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Timestamp, SessionId)>,
    armed: BTreeMap<SessionId, Timestamp>,
}

impl Timers {
    /// Arms the session's timer, in place of the one it had.
    pub(super) fn arm(&mut self, session: &SessionId, at: Timestamp) {
        if let Some(old) = self.armed.insert(session.clone(), at) {
            self.queue.remove(&(old, session.clone()));
        }
        self.queue.insert((at, session.clone()));
    }

    /// Forgets the session.
    pub(super) fn disarm(&mut self, session: &SessionId) {
        if let Some(old) = self.armed.remove(session) {
            self.queue.remove(&(old, session.clone()));
        }
    }

    /// The next moment at which a session runs out, where `actual` knows each session's.
    pub(super) fn next(
        &mut self,
        actual: impl Fn(&SessionId) -> Option<Timestamp>,
    ) -> Option<Timestamp> {
        loop {
            let (armed, session) = self.queue.first()?.clone();
            match actual(&session) {
                Some(at) if at > armed => self.arm(&session, at),
                Some(_) => return Some(armed),
                None => self.disarm(&session),
            }
        }
    }

    /// The first `most` of the sessions that have run out by `now`, in order of that moment, then of
    /// name.
    pub(super) fn due(
        &mut self,
        now: Timestamp,
        most: usize,
        actual: impl Fn(&SessionId) -> Option<Timestamp>,
    ) -> Vec<(Timestamp, SessionId)> {
        let mut due: Vec<(Timestamp, SessionId)> = Vec::new();
        while due.len() < most {
            let behind = due.last().map_or(Bound::Unbounded, Bound::Excluded);
            let reached = self.queue.range((behind, Bound::Unbounded)).next();
            let Some((armed, session)) = reached.filter(|(armed, _)| *armed <= now).cloned() else {
                break;
            };
            match actual(&session) {
                // It comes again at its place.
                Some(at) if at > armed => self.arm(&session, at),
                Some(_) => due.push((armed, session)),
                None => self.disarm(&session),
            }
        }
        due
    }
}
