//! What is live: every permit that has been given and not come back, and when each must be cut.
//!
//! One lazily corrected timer per session: activity moves no timer. A timer that rings early
//! looks at what really is and is set again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use curfew_authority::Authority;
use curfew_entry::{
    AccountClass, Context, Deadline, EndReason, Limits, LiveSession, ResourceName, SessionId, Span,
    Timestamp, Verb,
};

use crate::permit::{Cut, CutCause, CutSignal, PermitId, Pulse};

/// One permit that is out.
#[derive(Debug)]
pub(super) struct LivePermit {
    pub(super) session: SessionId,
    /// The entries that allowed what it is for, and what each is.
    pub(super) entries: Vec<(u64, Verb)>,
    pub(super) limits: Limits,
    pub(super) account: Option<AccountUse>,
    pub(super) cut: CutSignal,
}

/// The database account that a connection uses, and where policy sees it.
#[derive(Clone, Debug)]
pub(super) struct AccountUse {
    pub(super) class: AccountClass,
    pub(super) resource: ResourceName,
    pub(super) context: Context,
}

#[derive(Debug)]
struct SessionTraffic {
    pulse: Arc<Pulse>,
    permits: BTreeSet<PermitId>,
    /// The limits that permits which are not cut are held to, and how many to each: few differ.
    limits: Vec<(Limits, usize)>,
    /// The earliest timer in the heap; never later than the nearest true deadline.
    armed: Option<Timestamp>,
}

/// All permits that are out, by session.
#[derive(Debug, Default)]
pub(super) struct Live {
    permits: BTreeMap<PermitId, LivePermit>,
    sessions: BTreeMap<SessionId, SessionTraffic>,
    timers: BinaryHeap<Reverse<(Timestamp, SessionId)>>,
    next: u64,
}

/// What a ring of the timer found for one session.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) session: SessionId,
    /// When it was last active, where that is newer than what is recorded.
    pub(super) active_at: Option<Timestamp>,
    /// The session itself is over.
    pub(super) ends: bool,
}

/// When the session was last active, where that is newer than what is recorded.
fn newer_activity(session: &LiveSession, pulse: &Pulse, now: Timestamp) -> Option<Timestamp> {
    let at = pulse.active(now);
    (at > session.active_at).then_some(at)
}

fn limit_of(limits: &Limits, deadline: Deadline) -> Span {
    use curfew_entry::DeadlineCause;
    match deadline.cause {
        DeadlineCause::Idle => limits.idle,
        DeadlineCause::Reauth => limits.reauth,
        DeadlineCause::Lifetime => limits.lifetime,
    }
}

impl SessionTraffic {
    fn hold(&mut self, limits: Limits) {
        match self.limits.iter_mut().find(|(known, _)| *known == limits) {
            Some((_, count)) => *count += 1,
            None => self.limits.push((limits, 1)),
        }
    }

    fn let_go(&mut self, limits: Limits) {
        if let Some((_, count)) = self.limits.iter_mut().find(|(known, _)| *known == limits) {
            *count -= 1;
        }
        self.limits.retain(|(_, count)| *count > 0);
    }

    /// The nearest moment at which the session, or something of it that is open, runs out.
    fn nearest(&self, session: &LiveSession) -> Timestamp {
        let open = self.limits.iter();
        open.map(|(limits, _)| session.deadline(limits).at)
            .fold(session.end_deadline().at, Timestamp::min)
    }
}

/// Why traffic of a session that does not live is cut: as the session ended, or, where nothing on
/// record says so, because nothing on record stands behind it.
fn left_over(ended: Option<EndReason>) -> CutCause {
    ended.map_or(CutCause::LedgerFailed, CutCause::SessionEnded)
}

impl Live {
    /// Takes in a new permit and says what it needs to be minted.
    pub(super) fn admit(
        &mut self,
        session: &LiveSession,
        entries: Vec<(u64, Verb)>,
        limits: Limits,
        account: Option<AccountUse>,
    ) -> (PermitId, CutSignal, Arc<Pulse>) {
        let id = PermitId(self.next);
        self.next += 1;
        let cut = CutSignal::default();
        let traffic = self
            .sessions
            .entry(session.id.clone())
            .or_insert_with(|| SessionTraffic {
                pulse: Arc::new(Pulse::new(session.active_at, session.end_deadline().at)),
                permits: BTreeSet::new(),
                limits: Vec::new(),
                armed: None,
            });
        traffic.permits.insert(id);
        traffic.hold(limits);
        let nearest = traffic.nearest(session);
        traffic.pulse.ends(nearest);
        let pulse = Arc::clone(&traffic.pulse);
        let permit = LivePermit {
            session: session.id.clone(),
            entries,
            limits,
            account,
            cut: cut.clone(),
        };
        self.permits.insert(id, permit);
        self.arm(&session.id, nearest);
        (id, cut, pulse)
    }

    /// Gives back a permit.
    pub(super) fn release(&mut self, id: PermitId) -> Option<LivePermit> {
        let permit = self.permits.remove(&id)?;
        if let Some(traffic) = self.sessions.get_mut(&permit.session)
            && traffic.permits.remove(&id)
        {
            traffic.let_go(permit.limits);
        }
        Some(permit)
    }

    /// Why what the entry at `index` of the session opened was cut, if it was and is still out.
    pub(super) fn cut_of(&self, session: &SessionId, index: u64) -> Option<Cut> {
        let mut permits = self.permits.values();
        let permit = permits.find(|it| {
            it.session == *session && it.entries.iter().any(|(entry, _)| *entry == index)
        })?;
        permit.cut.now()
    }

    fn arm(&mut self, session: &SessionId, at: Timestamp) {
        if let Some(traffic) = self.sessions.get_mut(session)
            && traffic.armed.is_none_or(|armed| at < armed)
        {
            traffic.armed = Some(at);
            self.timers.push(Reverse((at, session.clone())));
        }
    }

    /// An entry has moved the clocks of a session.
    pub(super) fn follow(&self, session: &LiveSession) {
        if let Some(traffic) = self.sessions.get(&session.id) {
            traffic.pulse.ends(traffic.nearest(session));
        }
    }

    /// When the next timer rings.
    pub(super) fn next_timer(&self) -> Option<Timestamp> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// When the session was last active, where that is newer than what is recorded.
    pub(super) fn unrecorded_activity(
        &self,
        session: &LiveSession,
        now: Timestamp,
    ) -> Option<Timestamp> {
        newer_activity(session, &self.sessions.get(&session.id)?.pulse, now)
    }

    /// The sessions that something is known of.
    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.sessions.keys().cloned().collect()
    }

    /// Cuts every permit whose moment has come, and sets the timers of the rest again.
    /// The cut comes first; what it means for the log is the caller's to record.
    pub(super) fn ring(&mut self, authority: &Authority, now: Timestamp) -> Vec<Due> {
        let mut due = Vec::new();
        while let Some(Reverse((at, _))) = self.timers.peek() {
            if *at > now {
                break;
            }
            let Some(Reverse((at, id))) = self.timers.pop() else {
                break;
            };
            // A timer that an earlier one has replaced rings for nobody.
            if self
                .sessions
                .get(&id)
                .is_none_or(|traffic| traffic.armed != Some(at))
            {
                continue;
            }
            let Some(session) = authority.session(&id) else {
                self.end(&id, Cut::of(left_over(authority.ended(&id))));
                continue;
            };
            due.extend(self.ring_session(session, now));
        }
        due
    }

    fn ring_session(&mut self, session: &LiveSession, now: Timestamp) -> Option<Due> {
        let traffic = self.sessions.get_mut(&session.id)?;
        let active_at = newer_activity(session, &traffic.pulse, now);
        let mut session = session.clone();
        session.active_at = active_at.unwrap_or(session.active_at);
        let end = session.end_deadline();
        if end.at <= now {
            let cut = Cut {
                cause: CutCause::SessionEnded(end.cause.into()),
                deadline: Some(end),
                limit: Some(limit_of(&session.limits, end)),
            };
            self.end(&session.id, cut);
            return Some(Due {
                session: session.id,
                active_at,
                ends: true,
            });
        }
        let mut cut = Vec::new();
        for id in &traffic.permits {
            let Some(permit) = self.permits.get(id) else {
                continue;
            };
            let deadline = session.deadline(&permit.limits);
            if deadline.at <= now {
                permit.cut.fire(Cut {
                    cause: CutCause::Limit(deadline.cause),
                    deadline: Some(deadline),
                    limit: Some(limit_of(&permit.limits, deadline)),
                });
                cut.push((*id, permit.limits));
            }
        }
        for (id, limits) in cut {
            traffic.permits.remove(&id);
            traffic.let_go(limits);
        }
        let nearest = traffic.nearest(&session);
        traffic.pulse.ends(nearest);
        traffic.armed = None;
        self.arm(&session.id, nearest);
        Some(Due {
            session: session.id,
            active_at,
            ends: false,
        })
    }

    /// Cuts everything of a session and forgets its timer. The permits stay until they come back.
    /// True where there was something to cut.
    pub(super) fn end(&mut self, session: &SessionId, cut: Cut) -> bool {
        let Some(traffic) = self.sessions.remove(session) else {
            return false;
        };
        for id in &traffic.permits {
            if let Some(permit) = self.permits.get(id) {
                permit.cut.fire(cut);
            }
        }
        !traffic.permits.is_empty()
    }

    /// There is another policy, or there are other resources: connections whose accounts can do what
    /// is no longer permitted are cut, the others are held to limits that are stricter now.
    pub(super) fn follow_policy(&mut self, authority: &Authority, now: Timestamp) {
        let mut tightened = BTreeSet::new();
        for (id, permit) in &mut self.permits {
            let Some(used) = &permit.account else {
                continue;
            };
            let (resource, context) = (&used.resource, &used.context);
            let limits =
                authority.account_limits(&permit.session, resource, context, used.class, now);
            let Some(limits) = limits else {
                permit.cut.fire(Cut::of(CutCause::PolicyChanged));
                continue;
            };
            let limits = permit.limits.and(limits);
            if let Some(traffic) = self.sessions.get_mut(&permit.session)
                && traffic.permits.contains(id)
            {
                traffic.let_go(permit.limits);
                traffic.hold(limits);
            }
            permit.limits = limits;
            tightened.insert(permit.session.clone());
        }
        for session in tightened {
            self.recheck(&session);
        }
    }

    /// The session's limits have changed: its timer is looked at again at once.
    pub(super) fn recheck(&mut self, session: &SessionId) {
        self.arm(session, Timestamp::from_micros(0));
    }

    /// Cuts everything that is live.
    pub(super) fn cut_all(&self, cause: CutCause) {
        for permit in self.permits.values() {
            permit.cut.fire(Cut::of(cause));
        }
    }

    /// How many permits are out.
    pub(super) fn permits(&self) -> usize {
        self.permits.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use curfew_entry::{Aal, Entry, Event, Proof};

    use super::*;

    fn limits() -> Limits {
        let hour = Span::from_secs(3_600);
        Limits {
            idle: hour,
            reauth: hour,
            lifetime: hour,
        }
    }

    fn apply(authority: &mut Authority, second: u64, event: Event) {
        let time = Timestamp::from_micros(second * 1_000_000);
        authority.apply(&Entry { time, event });
    }

    /// An authority that knows one session.
    fn with_session(session: &SessionId) -> Authority {
        let mut authority = Authority::new();
        let started = Event::SessionStarted {
            session: session.clone(),
            subject: "ana".parse().unwrap(),
            roles: BTreeSet::new(),
            proof: Proof {
                amr: BTreeSet::new(),
                aal: Aal::One,
                at: Timestamp::from_micros(1_000_000),
            },
            context: Context {
                address: "192.0.2.1".parse().unwrap(),
                network: "unknown".into(),
            },
            limits: limits(),
            rules: Vec::new(),
        };
        apply(&mut authority, 1, started);
        authority
    }

    #[test]
    fn what_outlives_its_session_is_cut_for_the_reason_on_record_or_for_want_of_one() {
        let session = crate::secret::session_id().unwrap();
        let mut ended = with_session(&session);
        let mut live = Live::default();
        let known = ended.session(&session).unwrap().clone();
        let (_, cut, _) = live.admit(&known, vec![(0, Verb::WebRead)], limits(), None);
        let end = Event::SessionEnded {
            session: session.clone(),
            reason: EndReason::EndedByAdmin,
            deadline: None,
            effective: Timestamp::from_micros(2_000_000),
            late: None,
            by: None,
        };
        apply(&mut ended, 2, end);
        let much_later = Timestamp::from_micros(9_000_000_000);
        assert!(live.ring(&ended, much_later).is_empty());
        let why = cut.now().map(|cut| cut.cause);
        assert_eq!(why, Some(CutCause::SessionEnded(EndReason::EndedByAdmin)));

        let (_, cut, _) = live.admit(&known, vec![(0, Verb::WebRead)], limits(), None);
        assert!(live.ring(&Authority::new(), much_later).is_empty());
        assert_eq!(cut.now().map(|cut| cut.cause), Some(CutCause::LedgerFailed));
    }
}
