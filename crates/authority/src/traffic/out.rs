//! The permits that are out, by session, and what each is held to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use curfew_entry::{
    AccountClass, Context, Limits, LiveSession, ResourceName, SessionId, Timestamp, Verb,
};

use super::activity::ActivityCell;
use super::{Cut, CutCause, Effect, LastActivity};
use crate::authority::Authority;
use crate::command::Command;

/// The number of a permit within one run of the gateway.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PermitId(pub u64);

/// The database account that a connection uses, and where policy sees it.
#[derive(Clone, Debug)]
pub struct AccountUse {
    /// The class of the account.
    pub class: AccountClass,
    /// Of which resource.
    pub resource: ResourceName,
    /// From where the connection was asked for.
    pub context: Context,
}

/// One permit that is out.
#[derive(Debug)]
pub(super) struct PermitOut {
    pub(super) session: SessionId,
    /// The entries that allowed what it is for, and what each is.
    pub(super) entries: Vec<(u64, Verb)>,
    pub(super) limits: Limits,
    pub(super) account: Option<AccountUse>,
    /// Why and when it was cut, once it was.
    pub(super) cut: Option<(Cut, Timestamp)>,
}

/// What is known of a live session's traffic.
#[derive(Debug)]
pub(super) struct Presence<A> {
    pub(super) activity: A,
    /// Those that are out and not cut.
    pub(super) permits: BTreeSet<PermitId>,
    /// The limits that these are held to, and how many to each: few differ.
    limits: Vec<(Limits, usize)>,
}

impl<A: ActivityCell> Presence<A> {
    fn new(session: &LiveSession) -> Self {
        let activity = LastActivity::new(session.active_at, session.end_deadline().at);
        Self {
            activity: A::new(activity),
            permits: BTreeSet::new(),
            limits: Vec::new(),
        }
    }

    fn hold(&mut self, limits: Limits) {
        match self.limits.iter_mut().find(|(known, _)| *known == limits) {
            Some((_, count)) => *count += 1,
            None => self.limits.push((limits, 1)),
        }
    }

    fn let_go(&mut self, limits: Limits) {
        if let Some((_, count)) = self.limits.iter_mut().find(|(known, _)| *known == limits) {
            *count = count.saturating_sub(1);
        }
        self.limits.retain(|(_, count)| *count > 0);
    }

    /// The nearest moment at which the session, or something of it that is open, runs out.
    pub(super) fn nearest(&self, session: &LiveSession) -> Timestamp {
        let open = self.limits.iter();
        open.map(|(limits, _)| session.deadline(limits).at)
            .fold(session.end_deadline().at, Timestamp::min)
    }

    /// Whether the planes were told of an end before this moment.
    pub(super) fn ends_before(&self, moment: Timestamp) -> bool {
        self.activity.with(|activity| activity.end() < moment)
    }

    /// When the session was last active, where that is newer than what is recorded.
    pub(super) fn newer(&self, session: &LiveSession, now: Timestamp) -> Option<Timestamp> {
        let at = self.activity.with(|activity| activity.active(now));
        (at > session.active_at).then_some(at)
    }
}

/// All permits that are out, by session.
#[derive(Debug)]
pub(super) struct Out<A> {
    pub(super) permits: BTreeMap<PermitId, PermitOut>,
    pub(super) sessions: BTreeMap<SessionId, Presence<A>>,
    next: u64,
}

impl<A: ActivityCell> Out<A> {
    pub(super) fn new() -> Self {
        Self {
            permits: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next: 0,
        }
    }

    /// Takes in a new permit. Gives its number, where its activity is noted, and when something of
    /// the session runs out now.
    pub(super) fn admit(
        &mut self,
        session: &LiveSession,
        permit: PermitOut,
    ) -> (PermitId, A, Timestamp) {
        let id = PermitId(self.next);
        self.next += 1;
        let presence = self
            .sessions
            .entry(session.id.clone())
            .or_insert_with(|| Presence::new(session));
        presence.permits.insert(id);
        presence.hold(permit.limits);
        let nearest = presence.nearest(session);
        presence.activity.with(|activity| activity.ends(nearest));
        let activity = presence.activity.clone();
        self.permits.insert(id, permit);
        (id, activity, nearest)
    }

    /// Takes back a permit.
    pub(super) fn take_back(&mut self, id: PermitId) -> Option<PermitOut> {
        let permit = self.permits.remove(&id)?;
        if let Some(presence) = self.sessions.get_mut(&permit.session)
            && presence.permits.remove(&id)
        {
            presence.let_go(permit.limits);
        }
        Some(permit)
    }

    /// Cuts a permit, unless it was before.
    pub(super) fn cut(
        &mut self,
        id: PermitId,
        cut: Cut,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(permit) = self.permits.get_mut(&id).filter(|it| it.cut.is_none()) else {
            return;
        };
        permit.cut = Some((cut, now));
        effects.push(Effect::Cut { permit: id, cut });
        if let Some(presence) = self.sessions.get_mut(&permit.session)
            && presence.permits.remove(&id)
        {
            presence.let_go(permit.limits);
        }
    }

    /// Cuts everything of a session, and forgets its activity. The permits stay until they come
    /// back. True where there was something to cut.
    pub(super) fn cut_session(
        &mut self,
        session: &SessionId,
        cut: Cut,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(presence) = self.sessions.remove(session) else {
            return false;
        };
        for id in &presence.permits {
            self.cut(*id, cut, now, effects);
        }
        !presence.permits.is_empty()
    }

    /// Cuts everything.
    pub(super) fn cut_all(&mut self, cut: Cut, now: Timestamp, effects: &mut Vec<Effect>) {
        let all: Vec<PermitId> = self.permits.keys().copied().collect();
        for id in all {
            self.cut(id, cut, now, effects);
        }
    }

    /// Cuts the permits of a live session that have run out at `moment`.
    pub(super) fn cut_passed(
        &mut self,
        session: &LiveSession,
        moment: Timestamp,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(presence) = self.sessions.get(&session.id) else {
            return;
        };
        for id in presence.permits.clone() {
            let Some(limits) = self.permits.get(&id).map(|permit| permit.limits) else {
                continue;
            };
            let deadline = session.deadline(&limits);
            if deadline.at <= moment {
                let cut = Cut::at(CutCause::Limit(deadline.cause), deadline, &limits);
                self.cut(id, cut, now, effects);
            }
        }
        if let Some(presence) = self.sessions.get(&session.id) {
            let nearest = presence.nearest(session);
            presence.activity.with(|activity| activity.ends(nearest));
        }
    }

    /// By what is known, something of the session runs out at this moment.
    pub(super) fn ends(&self, session: &SessionId, at: Timestamp) {
        if let Some(presence) = self.sessions.get(session) {
            presence.activity.with(|activity| activity.ends(at));
        }
    }

    /// A connection is held to these limits as well.
    pub(super) fn tighten(&mut self, id: PermitId, limits: Limits) {
        let Some(permit) = self.permits.get_mut(&id) else {
            return;
        };
        let before = permit.limits;
        permit.limits = before.and(limits);
        if let Some(presence) = self.sessions.get_mut(&permit.session)
            && presence.permits.contains(&id)
        {
            presence.let_go(before);
            presence.hold(permit.limits);
        }
    }

    /// The nearest moment at which a session, or something of it that is open, runs out by what is
    /// recorded; at once where it does not live and something of it is left.
    pub(super) fn runs_out(&self, session: &SessionId, authority: &Authority) -> Option<Timestamp> {
        let presence = self.sessions.get(session);
        let Some(held) = authority.held(session) else {
            return presence.map(|_| Timestamp::default());
        };
        let over = held.over_at();
        Some(presence.map_or(over, |it| it.nearest(&held.session).min(over)))
    }

    /// The first session that something is known of, after this one.
    pub(super) fn next_after(&self, last: Option<&SessionId>) -> Option<SessionId> {
        let behind = last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self
            .sessions
            .range::<SessionId, _>((behind, Bound::Unbounded));
        rest.next().map(|(session, _)| session.clone())
    }

    /// What is to be recorded of a session's activity, where that is newer than what is.
    pub(super) fn unrecorded(
        &self,
        session: &SessionId,
        authority: &Authority,
        now: Timestamp,
    ) -> Option<Command> {
        let known = authority.session(session)?;
        let active_at = self.sessions.get(session)?.newer(known, now)?;
        Some(Command::Observe {
            session: session.clone(),
            active_at,
        })
    }
}
