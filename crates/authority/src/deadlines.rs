//! One deadline per session, corrected only when it comes up: activity costs no work here.
//!
//! Whoever follows an authority keeps one: [`crate::traffic::Traffic`] to act in time, the auditor to find
//! what did not come. The authority itself knows no timer.

use std::collections::{BTreeMap, BTreeSet};

use curfew_entry::{Event, SessionId, Timestamp};

use crate::authority::Authority;

/// For each session a moment no later than the nearest at which something of it runs out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deadlines {
    queue: BTreeSet<(Timestamp, SessionId)>,
    armed: BTreeMap<SessionId, Timestamp>,
}

impl Deadlines {
    /// Of all live sessions of an authority.
    pub(crate) fn of(authority: &Authority) -> Self {
        let mut deadlines = Self::default();
        for (session, at) in authority.ends() {
            deadlines.arm(session, at);
        }
        deadlines
    }

    /// Sets the session's deadline, in place of the one it had.
    pub(crate) fn arm(&mut self, session: &SessionId, at: Timestamp) {
        let old = self.armed.insert(session.clone(), at);
        if old == Some(at) {
            return;
        }
        if let Some(old) = old {
            self.queue.remove(&(old, session.clone()));
        }
        self.queue.insert((at, session.clone()));
    }

    /// The session has another deadline as well: the earlier one counts.
    pub(crate) fn bring_forward(&mut self, session: &SessionId, at: Timestamp) {
        if self.armed.get(session).is_none_or(|armed| at < *armed) {
            self.arm(session, at);
        }
    }

    /// Forgets the session.
    pub(crate) fn disarm(&mut self, session: &SessionId) {
        if let Some(old) = self.armed.remove(session) {
            self.queue.remove(&(old, session.clone()));
        }
    }

    /// An entry has taken effect that can bring a session's end nearer.
    pub(crate) fn follow(&mut self, event: &Event, authority: &Authority) {
        if let Event::SessionStarted { session, .. } | Event::SessionLimited { session, .. } = event
        {
            if let Some(at) = authority.over_at(session) {
                self.bring_forward(session, at);
            }
        } else if let Event::SessionEnded { session, .. } = event {
            self.disarm(session);
        } else if let Event::PolicyLoaded { .. } | Event::ResourcesLoaded { .. } = event {
            for (session, at) in authority.ends() {
                self.bring_forward(session, at);
            }
        } else if let Event::AccountChanged { subject, .. } = event {
            for session in authority.sessions_named(subject) {
                if let Some(at) = authority.over_at(session) {
                    self.bring_forward(session, at);
                }
            }
        }
    }

    /// The nearest deadline, where `actual` knows each session's.
    pub(crate) fn next(
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

    /// Takes out a session whose deadline has come by `now`, where `actual` knows each session's.
    pub(crate) fn take_due(
        &mut self,
        now: Timestamp,
        actual: impl Fn(&SessionId) -> Option<Timestamp>,
    ) -> Option<(Timestamp, SessionId)> {
        if self.next(actual)? > now {
            return None;
        }
        let (at, session) = self.queue.pop_first()?;
        self.armed.remove(&session);
        Some((at, session))
    }
}
