//! What follows from each input.

use curfew_entry::{ActionClosed, ClosedBy, EndReason, Entry, Event, SessionId, Timestamp};

use super::{
    ActivityCell, Closing, Cut, CutCause, Effect, Outage, PIECE, PermitOut, REVIEWED_MAX, Returned,
    Traffic,
};
use crate::authority::Authority;
use crate::command::{Command, EndCause};

/// Why traffic of a session that does not live is cut: as the session ended, or, where nothing on
/// record says so, because nothing on record stands behind it.
fn left_over(ended: Option<EndReason>) -> Cut {
    Cut::of(ended.map_or(CutCause::LedgerFailed, CutCause::SessionEnded))
}

impl<A: ActivityCell> Traffic<A> {
    /// Cuts everything whose moment has come, up to [`PIECE`] sessions, and then says what is to be
    /// recorded of their activity.
    pub(super) fn wake(
        &mut self,
        authority: &Authority,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(outage) = &mut self.outage
            && outage.grace_end(self.grace).is_some_and(|end| end <= now)
        {
            outage.grace_over = true;
            self.out
                .cut_all(Cut::of(CutCause::LedgerFailed), now, effects);
        }
        let mut observed = Vec::new();
        for _ in 0..PIECE {
            let Self { out, deadlines, .. } = self;
            let due = deadlines.take_due(now, |session| out.runs_out(session, authority));
            let Some((_, session)) = due else { break };
            let active_at = self.look(&session, authority, now, effects);
            observed.extend(active_at.map(|active_at| Command::Observe { session, active_at }));
        }
        if self.records() {
            let records = observed.into_iter().map(Box::new).map(Effect::Record);
            effects.extend(records);
        }
        self.review(authority, now, effects);
    }

    /// Looks at one session's true clocks, with activity that has no entry: cuts what has run out
    /// and sets the deadline of the rest. Gives the activity where it is newer than what is recorded.
    fn look(
        &mut self,
        id: &SessionId,
        authority: &Authority,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Option<Timestamp> {
        let Some(held) = authority.held(id) else {
            self.out
                .cut_session(id, left_over(authority.ended(id)), now, effects);
            return None;
        };
        let mut session = held.session.clone();
        loop {
            // What came after something ran out counts once that is cut.
            let presence = self.out.sessions.get(id);
            let newer = presence.and_then(|presence| presence.newer(&held.session, now));
            session.active_at = newer.unwrap_or(held.session.active_at);
            let end = session.end_deadline();
            let nearest = presence.map_or(end.at, |presence| presence.nearest(&session));
            // Activity up to what was known as the end has moved that on: what runs since then may
            // move it further.
            let moved = presence.is_some_and(|presence| presence.ends_before(nearest));
            let cut = match held.doomed_for() {
                Some(reason) => Cut::of(CutCause::SessionEnded(reason)),
                None if nearest > now || moved => {
                    self.out.ends(id, nearest);
                    self.deadlines.arm(id, nearest);
                    return newer;
                }
                None if nearest < end.at => {
                    self.out.cut_passed(&session, nearest, now, effects);
                    continue;
                }
                None => {
                    let cause = CutCause::SessionEnded(end.cause.into());
                    Cut::at(cause, end, &session.limits)
                }
            };
            if self.out.cut_session(id, cut, now, effects) {
                self.cut_at.insert(id.clone(), now);
            }
            self.over.insert(id.clone());
            return newer;
        }
    }

    /// Holds some of the connections to the policy in force: those whose accounts can do what is no
    /// longer permitted are cut, the others are held to limits that are stricter now.
    fn review(&mut self, authority: &Authority, now: Timestamp, effects: &mut Vec<Effect>) {
        for _ in 0..REVIEWED_MAX {
            let Some(id) = self.unreviewed.pop_front() else {
                return;
            };
            let Some(permit) = self.out.permits.get(&id) else {
                continue;
            };
            let Some(used) = permit.account.as_ref().filter(|_| permit.cut.is_none()) else {
                continue;
            };
            let session = permit.session.clone();
            let (resource, context) = (&used.resource, &used.context);
            match authority.account_limits(&session, resource, context, used.class, now) {
                None => self
                    .out
                    .cut(id, Cut::of(CutCause::PolicyChanged), now, effects),
                Some(limits) => self.out.tighten(id, limits),
            }
            if let Some(at) = self.out.runs_out(&session, authority) {
                self.deadlines.bring_forward(&session, at);
            }
        }
    }

    /// Sessions are about to end by these events: their traffic stops before that is recorded.
    pub(super) fn cut_ended(
        &mut self,
        events: &[Event],
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        for event in events {
            if let Event::SessionEnded {
                session, reason, ..
            } = event
            {
                let cut = Cut::of(CutCause::SessionEnded(*reason));
                if self.out.cut_session(session, cut, now, effects) {
                    self.cut_at.insert(session.clone(), now);
                }
            }
        }
    }

    /// An entry has moved the clocks of a session, or changed what holds for many.
    pub(super) fn follow(
        &mut self,
        entry: &Entry,
        authority: &Authority,
        effects: &mut Vec<Effect>,
    ) {
        let event = &entry.event;
        self.deadlines.follow(event, authority);
        if let Event::SessionReauthenticated { session, .. }
        | Event::SessionActive { session, .. }
        | Event::SessionLimited { session, .. }
        | Event::ActionAllowed { session, .. }
        | Event::ActionDenied { session, .. } = event
        {
            if let Some(known) = authority.session(session)
                && let Some(presence) = self.out.sessions.get(session)
            {
                let nearest = presence.nearest(known);
                self.out.ends(session, nearest);
            }
        } else if let Event::SessionEnded {
            session, reason, ..
        } = event
        {
            self.over.remove(session);
            self.cut_at.remove(session);
            self.out
                .cut_session(session, left_over(Some(*reason)), entry.time, effects);
        } else if let Event::PolicyLoaded { .. } | Event::ResourcesLoaded { .. } = event {
            let permits = self.out.permits.iter();
            let connections = permits.filter(|(_, permit)| permit.account.is_some());
            self.unreviewed = connections.map(|(id, _)| *id).collect();
            for (session, presence) in &self.out.sessions {
                if let Some(known) = authority.session(session) {
                    self.out.ends(session, presence.nearest(known));
                }
            }
        } else if let Event::RecordingFailed { .. } = event {
            if let Some(outage) = &mut self.outage {
                outage.noted = true;
            }
        } else if let Event::RecordingResumed { .. } = event {
            self.outage = None;
            self.cut_at.clear();
        }
    }

    /// Nothing of a command could be recorded. Whoever it ended was cut, and what has to be said is
    /// said once the ledger is back.
    pub(super) fn unrecorded_now(
        &mut self,
        command: &Command,
        events: &[Event],
        authority: &Authority,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.cut_ended(events, now, effects);
        if let Command::End { session, .. } = command
            && self.outage.is_some()
        {
            self.ended_by(session, authority, now);
        }
        let is_said_later = matches!(command, Command::Close { .. } | Command::End { .. });
        if let Some(outage) = self.outage.as_mut().filter(|_| is_said_later) {
            outage.defer_again(command.clone());
        }
    }

    /// Ending cannot wait for the record: the traffic stops now, the entry follows.
    pub(super) fn end_unrecorded(
        &mut self,
        session: &SessionId,
        cause: &EndCause,
        authority: &Authority,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if cause.reason.is_clock() || !self.ended_by(session, authority, now) {
            return;
        }
        let cut = Cut::of(CutCause::SessionEnded(cause.reason));
        self.out.cut_session(session, cut, now, effects);
        if let Some(outage) = &mut self.outage {
            outage.defer_end(session, cause);
        }
    }

    /// Somebody ends a session while that cannot be recorded: it ends at `now`, unless it has run out
    /// before. False where it does not live.
    fn ended_by(&mut self, session: &SessionId, authority: &Authority, now: Timestamp) -> bool {
        let over_at = authority.over_at(session);
        if over_at.is_some_and(|at| now < at) {
            self.cut_at.entry(session.clone()).or_insert(now);
        }
        over_at.is_some()
    }

    /// The ledger cannot take entries: from here on nothing new is admitted.
    pub(super) fn fail(
        &mut self,
        cause: String,
        reserve: bool,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let outage = self
            .outage
            .get_or_insert_with(|| Outage::new(cause, now, reserve));
        outage.reserve = reserve;
        outage.back = false;
        outage.observed = None;
        if reserve && !outage.noted {
            effects.push(Effect::Record(Box::new(outage.failure())));
        }
    }

    /// A permit came back: what it allowed is told as closed where that has to be said.
    pub(super) fn take_back(
        &mut self,
        returned: &Returned,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(permit) = self.out.take_back(returned.permit) else {
            return;
        };
        let records = self.records();
        for (place, (entry, verb)) in permit.entries.iter().copied().enumerate() {
            let unrecorded = self.outage.is_some() && entry >= returned.durable;
            let by = match &returned.closing {
                _ if unrecorded => ClosedBy::Unrecorded,
                Some(closing) => closing.by,
                None if returned.skipped.contains(&place) => ClosedBy::Skipped,
                None => continue,
            };
            let closed = closed(&permit, entry, returned.closing, by, now);
            let close = Command::Close { closed, verb };
            match &mut self.outage {
                Some(outage) if !records => outage.defer(close),
                _ => effects.push(Effect::Record(Box::new(close))),
            }
        }
    }
}

/// How what one entry allowed was closed.
fn closed(
    permit: &PermitOut,
    action: u64,
    closing: Option<Closing>,
    by: ClosedBy,
    now: Timestamp,
) -> ActionClosed {
    let mut closed = closing.map_or(now, |closing| closing.closed);
    if let (ClosedBy::Skipped | ClosedBy::Unrecorded, Some((_, cut_at))) = (by, permit.cut) {
        // Nothing of it was let through, and from the cut on nothing could be.
        closed = closed.min(cut_at);
    }
    let cut = permit.cut.map(|(cut, _)| cut);
    let cut_by_us = matches!(by, ClosedBy::Limit | ClosedBy::SessionEnd);
    let deadline = cut.filter(|_| cut_by_us).and_then(|cut| cut.deadline);
    ActionClosed {
        session: permit.session.clone(),
        action,
        by,
        deadline,
        closed,
        late: deadline.map(|deadline| closed.saturating_since(deadline.at)),
        bytes_in: closing.map_or(0, |closing| closing.bytes_in),
        bytes_out: closing.map_or(0, |closing| closing.bytes_out),
    }
}
