//! The connections that allowed actions opened: what other actions of their session can come through.
//!
//! `decide` and the auditor look here alike, so that nothing is recorded that the auditor would find.

use curfew_entry::{Demands, Event, Limits, LiveSession, SessionId, Span, Timestamp, Verb};
use serde::{Deserialize, Serialize};

use super::{Authority, Held};

/// What an allowed action opened and nothing has closed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Opened {
    /// What it is held to, whatever policy comes later.
    pub(crate) limits: Limits,
    /// A limit it was held to ran out at this moment, though activity came later.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) passed: Option<Timestamp>,
}

impl Opened {
    /// When it has to be closed, while its session lives.
    pub(crate) fn over_at(self, session: &LiveSession) -> Timestamp {
        let limits = self.limits.and(session.limits);
        let over = session.deadline(&limits).at;
        self.passed.map_or(over, |passed| passed.min(over))
    }
}

/// Why no action can come through a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NotOpen {
    /// The session opened none there, or it was closed.
    Unknown,
    /// It had to be cut at this moment.
    Over(Timestamp),
}

/// The open connections of one session, by the index of the entry that opened each, in its order.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Connections(Vec<(u64, Opened)>);

impl Connections {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, index: u64) -> Option<Opened> {
        let place = self.0.binary_search_by_key(&index, |(at, _)| *at).ok()?;
        self.0.get(place).map(|(_, opened)| *opened)
    }

    /// Indexes only grow.
    pub(crate) fn open(&mut self, index: u64, opened: Opened) {
        self.0.push((index, opened));
    }

    pub(super) fn close(&mut self, index: u64) {
        self.0.retain(|(at, _)| *at != index);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Before activity at `moment` moves the session's clocks on: which have passed their limits by
    /// then? They had to be cut, whatever comes after.
    fn pass(&mut self, session: &LiveSession, moment: Timestamp) {
        for (_, opened) in &mut self.0 {
            let over = opened.over_at(session);
            if opened.passed.is_none() && over <= moment {
                opened.passed = Some(over);
            }
        }
    }
}

/// Whether other actions can come through what this verb opens.
pub(crate) const fn is_connection(verb: Verb) -> bool {
    matches!(verb, Verb::SqlConnect | Verb::WebConnect)
}

impl Authority {
    /// Whether an action of this live session can come through the connection that the entry at
    /// `index` opened. One that had to be cut less than `slack` before `now` still counts.
    pub(crate) fn comes_through(
        held: &Held,
        index: u64,
        now: Timestamp,
        slack: Span,
    ) -> Result<(), NotOpen> {
        let opened = held.connections.get(index).ok_or(NotOpen::Unknown)?;
        let over = opened.over_at(&held.session);
        if over.saturating_add(slack) <= now {
            return Err(NotOpen::Over(over));
        }
        Ok(())
    }

    /// An open connection of a session that is live or lately ended.
    pub(crate) fn connection(&self, session: &SessionId, index: u64) -> Option<Opened> {
        let connections = match self.held(session) {
            Some(held) => &held.connections,
            None => &self.tombstone(session)?.connections,
        };
        connections.get(index)
    }

    /// Takes in a connection that an earlier form of the auditor kept elsewhere.
    pub(crate) fn adopt_connection(&mut self, session: &SessionId, index: u64, opened: Opened) {
        if let Some(held) = self.state.sessions.get_mut(session) {
            held.connections.open(index, opened);
        } else if let Some(tombstone) = self.state.tombstones.get_mut(session) {
            tombstone.connections.open(index, opened);
        }
    }

    /// What an entry does to connections before it moves any clock.
    pub(super) fn pass_connections(&mut self, event: &Event, time: Timestamp) {
        let (Event::ActionAllowed { session, .. }
        | Event::ActionDenied { session, .. }
        | Event::SessionActive { session, .. }
        | Event::SessionReauthenticated { session, .. }) = event
        else {
            return;
        };
        // Activity counts from when it was, not from when it was noted.
        let moment = if let Event::SessionActive { active_at, .. } = event {
            *active_at
        } else {
            time
        };
        if let Some(held) = self.state.sessions.get_mut(session) {
            held.connections.pass(&held.session, moment);
        }
    }

    /// The entry at `index` allowed an action under these demands.
    pub(super) fn open_connection(
        &mut self,
        session: &SessionId,
        verb: Verb,
        demands: Demands,
        index: u64,
    ) {
        if is_connection(verb)
            && let Some(held) = self.state.sessions.get_mut(session)
        {
            let limits = demands.within(held.session.limits);
            let passed = None;
            held.connections.open(index, Opened { limits, passed });
        }
    }

    pub(super) fn close_connection(&mut self, session: &SessionId, index: u64) {
        if let Some(held) = self.state.sessions.get_mut(session) {
            held.connections.close(index);
        } else if let Some(tombstone) = self.state.tombstones.get_mut(session) {
            tombstone.connections.close(index);
        }
    }

    /// Connections do not outlive the process that held them.
    pub(super) fn close_all_connections(&mut self) {
        for held in self.state.sessions.values_mut() {
            held.connections.clear();
        }
        for tombstone in self.state.tombstones.values_mut() {
            tombstone.connections.clear();
        }
    }
}
