//! What planes do: they note activity, stop at a cut, and give permits back.

use std::cell::RefCell;
use std::rc::Rc;

use curfew_authority::traffic::{
    AccountUse, ActivityCell, Closing, Cut, Input, LastActivity, PermitId, Returned,
};
use curfew_entry::{ClosedBy, SessionId, Timestamp, Verb};

use super::World;

/// How activity is shared where there is one thread.
#[derive(Clone, Debug)]
pub(super) struct Cell(Rc<RefCell<LastActivity>>);

impl ActivityCell for Cell {
    fn new(activity: LastActivity) -> Self {
        Self(Rc::new(RefCell::new(activity)))
    }

    fn with<T>(&self, look: impl FnOnce(&mut LastActivity) -> T) -> T {
        look(&mut self.0.borrow_mut())
    }
}

/// A permit that a plane holds.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) session: SessionId,
    verb: Verb,
    /// Of a connection with a database account.
    pub(super) account: Option<AccountUse>,
    activity: Cell,
    /// Something that the person started is running.
    is_busy: bool,
    /// Why and when it stopped.
    stopped: Option<(ClosedBy, Timestamp)>,
    entries: Vec<u64>,
}

impl Held {
    pub(super) fn is_open(&self) -> bool {
        self.stopped.is_none()
    }

    pub(super) fn is_of(&self, entry: u64) -> bool {
        self.entries.contains(&entry)
    }
}

impl World {
    pub(super) fn hold(
        &mut self,
        permit: PermitId,
        session: &SessionId,
        verb: Verb,
        account: Option<AccountUse>,
        activity: Cell,
    ) {
        let of = self.open.iter().filter(|open| open.permit == permit);
        let held = Held {
            session: session.clone(),
            verb,
            account,
            activity,
            is_busy: false,
            stopped: None,
            entries: of.map(|open| open.index).collect(),
        };
        self.held.insert(permit, held);
    }

    /// The plane hears of a cut, and lets nothing more through.
    pub(super) fn cut(&mut self, permit: PermitId, cut: Cut) {
        if let Err(problem) = self.watch.cut(permit, cut, self.now.as_micros()) {
            self.problem.get_or_insert(problem);
        }
        *self.cuts.entry(format!("{:?}", cut.cause)).or_default() += 1;
        self.stop_holding(permit, cut.cause.closed_by());
    }

    /// Nothing flows any more.
    pub(super) fn stop_holding(&mut self, permit: PermitId, by: ClosedBy) {
        self.finish_running(permit);
        let Some(held) = self.held.get_mut(&permit).filter(|it| it.stopped.is_none()) else {
            return;
        };
        held.stopped = Some((by, self.now));
        self.open.retain(|open| open.permit != permit);
        self.returning.push(permit);
    }

    fn finish_running(&mut self, permit: PermitId) {
        let now = self.now;
        if let Some(held) = self.held.get_mut(&permit).filter(|it| it.is_busy) {
            held.is_busy = false;
            held.activity.with(|activity| activity.finish(now));
            self.watch.finish(&held.session, now.as_micros());
        }
    }

    /// Gives back what is over, in any order, until so much is left.
    pub(super) fn give_back(&mut self, left: u64) {
        while self.returning.len() as u64 > left {
            let place = self.prng.below(self.returning.len() as u64);
            let permit = self
                .returning
                .swap_remove(usize::try_from(place).unwrap_or(0));
            let Some(held) = self.held.get(&permit) else {
                continue;
            };
            let lasts = held.verb.as_str().ends_with(".connect");
            let (by, closed) = held.stopped.unwrap_or((ClosedBy::Client, self.now));
            let closing = (lasts || self.prng.chance(50)).then(|| Closing {
                by,
                closed,
                bytes_in: self.prng.below(1_000),
                bytes_out: self.prng.below(1_000_000),
            });
            if closing.is_some() {
                for entry in &held.entries {
                    self.unsaid.close(*entry);
                }
            }
            let skipped = if self.prng.chance(20) {
                vec![1]
            } else {
                Vec::new()
            };
            let returned = Returned {
                permit,
                closing,
                skipped,
                durable: self.entries.len() as u64,
            };
            self.tell(Input::Returned(returned));
            self.watch.returned(permit);
            self.held.remove(&permit);
        }
    }

    /// Somebody does something through what is open.
    pub(super) fn act(&mut self) {
        let open: Vec<PermitId> = self.open.iter().map(|open| open.permit).collect();
        let Some(permit) = self.prng.pick(&open).copied() else {
            return;
        };
        let now = self.now;
        let choice = self.prng.below(10);
        let Some(held) = self.held.get_mut(&permit) else {
            return;
        };
        match choice {
            0..5 => {
                held.activity.with(|activity| activity.note(now));
                self.watch.touch(&held.session, now.as_micros());
            }
            5..7 if !held.is_busy => {
                held.is_busy = true;
                held.activity.with(|activity| activity.begin(now));
                self.watch.begin(&held.session, now.as_micros());
            }
            5..9 => self.finish_running(permit),
            _ => self.stop_holding(permit, ClosedBy::Client),
        }
    }

    /// Between a deadline and when it is seen, somebody does something once.
    pub(super) fn act_by(&mut self, late: Timestamp) {
        let left = late.saturating_since(self.now).as_micros();
        if left > 0 {
            let after = self.prng.below(left);
            self.now = self
                .now
                .saturating_add(curfew_entry::Span::from_micros(after));
            self.act();
        }
    }
}
