//! What is live, and who is cut when: one state machine over inputs and time.
//!
//! ```text
//!   Traffic::handle(Input, &authority, now) ──▶ [Effect]     cut this permit; record this command
//!   Traffic::owed(&authority, now) ──▶ Command               what is due to the log, piece by piece
//!   Traffic::wake_at(&authority) ──▶ Timestamp               when to send Input::Wake
//! ```
//!
//! Whoever drives it fires the cuts of an answer before anything else, records what it says is to
//! be recorded, and sends each entry it has taken back in. Cuts come before entries, and entries
//! come in pieces of at most [`PIECE`]. The gateway and the simulator drive this same code.

mod activity;
mod cut;
mod handle;
mod out;
mod outage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use curfew_entry::{ClosedBy, Entry, Event, Limits, SessionId, Span, Timestamp, Verb};
use out::{Out, PermitOut};

use crate::authority::Authority;
use crate::command::{Command, EndCause};
use crate::deadlines::Deadlines;

pub use activity::{ActivityCell, LastActivity};
pub use cut::{Cut, CutCause};
pub use out::{AccountUse, PermitId};
pub use outage::{Outage, may_use_reserve};

/// The most sessions that one answer of [`Traffic`] is about, and the most entries of a command it
/// gives: about 10 ms of work, so that others get in between where there are many.
pub const PIECE: usize = 1_024;

/// Connections that one [`Input::Wake`] holds to another policy: each is judged with every verb its
/// account can do, at up to 100 µs for a verb.
const REVIEWED_MAX: usize = 16;

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A moment of [`Traffic::wake_at`] may have come.
    Wake,
    /// These events are about to be recorded.
    Decided(&'a [Event]),
    /// This entry was recorded and applied to the authority.
    Recorded(&'a Entry),
    /// Nothing of this could be recorded: the command, and the events it led to.
    Unrecorded(&'a Command, &'a [Event]),
    /// A permit came back.
    Returned(Returned),
    /// The ledger cannot take entries.
    Failed {
        /// What went wrong, for the log.
        cause: String,
        /// Its disk is full, and nothing worse: ends can be recorded into its reserve.
        reserve: bool,
    },
    /// The ledger takes entries again.
    Back,
    /// A session is to be ended while the ledger is out.
    End(&'a SessionId, &'a EndCause),
    /// The gateway stops.
    Stop,
}

/// What is to be done, in this order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Nothing more may flow under this permit.
    Cut {
        /// Which.
        permit: PermitId,
        /// Why.
        cut: Cut,
    },
    /// Decide and record this.
    Record(Box<Command>),
}

/// A permit that its holder gave back.
#[derive(Clone, Debug)]
pub struct Returned {
    /// Which.
    pub permit: PermitId,
    /// How the connection or stream ended; none for a short action that needs no entry for that.
    pub closing: Option<Closing>,
    /// Places among its entries of what was never done.
    pub skipped: Vec<usize>,
    /// How many entries are durable.
    pub durable: u64,
}

/// How a connection or stream ended, for its `action.closed` entry.
#[derive(Clone, Copy, Debug)]
pub struct Closing {
    /// What closed it.
    pub by: ClosedBy,
    /// When the last byte could flow.
    pub closed: Timestamp,
    /// Bytes from the client to the resource.
    pub bytes_in: u64,
    /// Bytes from the resource to the client.
    pub bytes_out: u64,
}

/// Everything that is live. `A` is how the activity of a session is shared with its planes.
#[derive(Debug)]
pub struct Traffic<A> {
    out: Out<A>,
    /// For each live session when the nearest of it runs out, unless it is over.
    deadlines: Deadlines,
    /// Sessions that have run out and are cut, and whose ends are not recorded.
    over: BTreeSet<SessionId>,
    /// When everything of a session was cut whose end is not recorded.
    cut_at: BTreeMap<SessionId, Timestamp>,
    /// Connections that have not been held to the policy in force.
    unreviewed: VecDeque<PermitId>,
    outage: Option<Outage>,
    /// How long what is live goes on while nothing can be recorded.
    grace: Span,
}

impl<A: ActivityCell> Traffic<A> {
    /// Nothing is live but the sessions of `authority`. While the ledger takes no entries what is
    /// live goes on for `grace`.
    pub fn new(authority: &Authority, grace: Span) -> Self {
        Self {
            out: Out::new(),
            deadlines: Deadlines::of(authority),
            over: BTreeSet::new(),
            cut_at: BTreeMap::new(),
            unreviewed: VecDeque::new(),
            outage: None,
            grace,
        }
    }

    /// Takes in a permit for what these entries of the session allowed, held to these limits: its
    /// number, and where its holder notes activity. None where the session does not live.
    pub fn admit(
        &mut self,
        session: &SessionId,
        entries: Vec<(u64, Verb)>,
        limits: Limits,
        account: Option<AccountUse>,
        authority: &Authority,
    ) -> Option<(PermitId, A)> {
        let known = authority.session(session)?;
        let permit = PermitOut {
            session: session.clone(),
            entries,
            limits,
            account,
            cut: None,
        };
        let (id, activity, nearest) = self.out.admit(known, permit);
        self.deadlines.bring_forward(session, nearest);
        self.cut_at.remove(session);
        Some((id, activity))
    }

    /// What follows from `input` at `now`. The authority is as the newest recorded entry left it.
    pub fn handle(
        &mut self,
        input: Input<'_>,
        authority: &Authority,
        now: Timestamp,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Wake => self.wake(authority, now, &mut effects),
            Input::Decided(events) => self.cut_ended(events, now, &mut effects),
            Input::Recorded(entry) => self.follow(entry, authority, &mut effects),
            Input::Unrecorded(command, events) => {
                self.unrecorded_now(command, events, authority, now, &mut effects);
            }
            Input::Returned(returned) => self.take_back(&returned, now, &mut effects),
            Input::Failed { cause, reserve } => self.fail(cause, reserve, now, &mut effects),
            Input::Back => {
                if let Some(outage) = &mut self.outage {
                    outage.back = true;
                }
            }
            Input::End(session, cause) => {
                self.end_unrecorded(session, cause, authority, now, &mut effects);
            }
            Input::Stop => {
                let cut = Cut::of(CutCause::Shutdown);
                self.out.cut_all(cut, now, &mut effects);
            }
        }
        effects
    }

    /// When the next [`Input::Wake`] is due: at once where something is owed to the log.
    pub fn wake_at(&mut self, authority: &Authority) -> Option<Timestamp> {
        let is_back = self.outage.as_ref().is_some_and(|outage| outage.back);
        let owes = is_back
            || (self.records() && !self.over.is_empty())
            || (self.outage.is_none() && authority.has_unsaid());
        if owes || !self.unreviewed.is_empty() {
            return Some(Timestamp::default());
        }
        let grace = self.outage.as_ref();
        let grace = grace.and_then(|outage| outage.grace_end(self.grace));
        let next = self.next_deadline(authority);
        [grace, next].into_iter().flatten().min()
    }

    /// Whether something runs out by `now` that has not been looked at.
    pub fn is_due(&mut self, authority: &Authority, now: Timestamp) -> bool {
        self.next_deadline(authority).is_some_and(|at| at <= now)
    }

    fn next_deadline(&mut self, authority: &Authority) -> Option<Timestamp> {
        let out = &self.out;
        self.deadlines
            .next(|session| out.runs_out(session, authority))
    }

    /// The next thing that is to be recorded because time passed, or because the ledger takes
    /// entries again. It is asked for until there is none; what could not be recorded comes again.
    pub fn owed(&mut self, authority: &Authority, now: Timestamp) -> Option<Command> {
        let Some(outage) = self.outage.as_mut().filter(|outage| outage.back) else {
            if !self.records() {
                return None;
            }
            return self.ends(authority, now).or_else(|| self.limits(authority));
        };
        if !outage.noted {
            return Some(outage.failure());
        }
        // What was done meanwhile kept sessions alive.
        while let Some(session) = self.out.next_after(outage.observed.as_ref()) {
            outage.observed = Some(session.clone());
            if let Some(observed) = self.out.unrecorded(&session, authority, now) {
                return Some(observed);
            }
        }
        if let Some(deferred) = outage.next_deferred() {
            return Some(deferred);
        }
        let refused = outage.refused();
        self.ends(authority, now)
            .or(Some(Command::ResumeRecording { refused }))
    }

    /// What is to be recorded of the session's activity before anything is said of the session that
    /// depends on it; none where all of it is recorded.
    pub fn unrecorded(
        &self,
        session: &SessionId,
        authority: &Authority,
        now: Timestamp,
    ) -> Option<Command> {
        self.out.unrecorded(session, authority, now)
    }

    /// Why what the entry at `index` of the session opened was cut, if it was and is still out.
    pub fn cut_of(&self, session: &SessionId, index: u64) -> Option<Cut> {
        let mut permits = self.out.permits.values();
        let permit = permits.find(|it| {
            it.session == *session && it.entries.iter().any(|(entry, _)| *entry == index)
        })?;
        permit.cut.map(|(cut, _)| cut)
    }

    /// Dates the end of a session back that is recorded after an outage and took effect in it.
    pub fn date_back(&self, event: &mut Event) {
        if let (Some(outage), Event::SessionEnded { session, .. }) = (&self.outage, &*event) {
            let cut = self.cut_at.get(session).copied();
            outage.date_back(event, cut);
        }
    }

    /// The outage of the ledger, while there is one: nothing is admitted.
    pub fn outage(&self) -> Option<&Outage> {
        self.outage.as_ref()
    }

    /// Counts a question that is refused because of the outage.
    pub fn refuse(&mut self) {
        if let Some(outage) = &mut self.outage {
            outage.refuse();
        }
    }

    /// How many permits are out.
    pub fn permits(&self) -> usize {
        self.out.permits.len()
    }

    /// Whether ends can be recorded.
    fn records(&self) -> bool {
        self.outage.as_ref().is_none_or(Outage::has_reserve)
    }

    /// The next piece of the sessions whose new limits are to be said.
    fn limits(&self, authority: &Authority) -> Option<Command> {
        let unsaid = authority.unsaid(PIECE);
        (self.outage.is_none() && !unsaid.is_empty()).then_some(Command::SayLimits(unsaid))
    }

    /// The next piece of the sessions that are over.
    fn ends(&mut self, authority: &Authority, now: Timestamp) -> Option<Command> {
        // An end may come with the limits that led to it.
        let most = if authority.has_unsaid() {
            PIECE / 2
        } else {
            PIECE
        };
        let mut piece = Vec::new();
        while piece.len() < most {
            let behind = piece.last().map_or(Bound::Unbounded, Bound::Excluded);
            let rest = self.over.range::<SessionId, _>((behind, Bound::Unbounded));
            let Some(session) = rest.into_iter().next().cloned() else {
                break;
            };
            match authority.over_at(&session) {
                Some(at) if at <= now => piece.push(session),
                // An entry said otherwise meanwhile.
                at => {
                    self.over.remove(&session);
                    if let Some(at) = at {
                        self.deadlines.bring_forward(&session, at);
                    }
                }
            }
        }
        (!piece.is_empty()).then_some(Command::Expire(piece))
    }
}
