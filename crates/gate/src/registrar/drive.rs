//! Tells `Traffic` what happens, and carries out what it says: cuts first, then entries.

use curfew_authority::Command;
use curfew_authority::traffic::{Effect, Input, Outage, Returned};
use curfew_entry::Span;

use super::record::UNDURABLE_MAX;
use super::task::{NotDone, PAUSE, Task};
use super::{Refusal, Unavailable};
use crate::conditions::Part;
use crate::permit::{CutCause, Released};

/// Commands owed to the log that are carried out before others get their turn: at some 10 µs each
/// under a millisecond. What concerns many sessions comes in pieces, one at a time.
const OWED_AT_ONCE: usize = 64;

/// Why nothing is admitted during an outage.
pub(super) fn kind_of(outage: &Outage) -> Unavailable {
    if outage.has_reserve() {
        Unavailable::DiskFull
    } else {
        Unavailable::Ledger
    }
}

impl Task {
    /// Tells what happened, and carries out what follows. True where something was cut.
    pub(super) fn tell(&mut self, input: Input<'_>) -> bool {
        let now = self.now();
        let effects = self.traffic.handle(input, &self.authority, now);
        let (mut cuts, mut unrecorded) = (0_usize, 0_usize);
        for effect in effects {
            match effect {
                Effect::Cut { permit, cut } => {
                    if let Some(signal) = self.cuts.get(&permit) {
                        signal.fire(cut);
                    }
                    cuts += 1;
                    unrecorded += usize::from(cut.cause == CutCause::LedgerFailed);
                }
                Effect::Record(command) => self.mention(&command),
            }
        }
        if unrecorded > 0 {
            tracing::error!(
                permits = unrecorded,
                "live traffic is cut: nothing could be recorded for longer than the grace"
            );
        }
        cuts > 0
    }

    /// Sets the timer to the nearest moment at which something is to be done.
    pub(super) fn arm(&mut self) {
        let mut next = self.traffic.wake_at(&self.authority);
        if next.is_some() && self.is_congested() && !self.is_due() {
            // What is owed to the log waits for the disk, so that there is room for what is asked.
            let pause = self.now().saturating_add(Span::from_duration(PAUSE));
            next = next.map(|at| at.max(pause));
        }
        if next != self.armed {
            self.armed = next;
            if let Err(error) = self.alarm.set(next) {
                tracing::error!(%error, "the deadline timer could not be set");
            }
        }
    }

    /// The moment has come. All that is due is cut before anything more is recorded.
    pub(super) fn ring(&mut self) {
        self.armed = None;
        self.tell(Input::Wake);
        if self.is_behind() {
            self.catch_up();
        }
        if !self.is_due() && !self.is_congested() {
            self.pay();
        }
    }

    /// Whether so much is under way to the disk that no more than what is asked is added.
    pub(super) fn is_congested(&mut self) -> bool {
        self.forget_durable();
        self.is_behind() || self.pending.len() >= UNDURABLE_MAX / 2
    }

    /// What is due by now comes first, though the timer has not rung yet: activity that has no entry
    /// must be noted before an entry moves the session's clocks.
    pub(super) fn settle(&mut self) {
        if self.is_due() {
            self.tell(Input::Wake);
        }
    }

    fn is_due(&mut self) -> bool {
        let now = self.now();
        self.traffic.is_due(&self.authority, now)
    }

    /// Whether something is to be done at once.
    pub(super) fn has_work(&mut self) -> bool {
        let now = self.now();
        let next = self.traffic.wake_at(&self.authority);
        next.is_some_and(|at| at <= now)
    }

    /// Records some of what is owed to the log.
    fn pay(&mut self) {
        let refused = self.traffic.outage().map(Outage::refused);
        for _ in 0..OWED_AT_ONCE {
            let now = self.now();
            let Some(command) = self.traffic.owed(&self.authority, now) else {
                break;
            };
            let is_piece = matches!(command, Command::Expire(_) | Command::SayLimits(_));
            let unavailable = matches!(self.carry_out(&command), Err(NotDone::Unavailable));
            if is_piece || unavailable {
                break;
            }
        }
        if let Some(refused) = refused
            && self.traffic.outage().is_none()
        {
            self.conditions.well(Part::Recording);
            tracing::warn!(refused, "the ledger takes entries again");
        }
    }

    pub(super) fn release(&mut self, released: Released) {
        self.cuts.remove(&released.id);
        let returned = Returned {
            permit: released.id,
            closing: released.closing,
            skipped: released.skipped,
            durable: self.durability.size(),
        };
        self.tell(Input::Returned(returned));
    }

    /// Refuses what asks while nothing can be recorded.
    pub(super) fn refuse_in_outage(&mut self) -> Result<(), Refusal> {
        let Some(kind) = self.traffic.outage().map(kind_of) else {
            return Ok(());
        };
        self.traffic.refuse();
        Err(Refusal::Unavailable(kind))
    }
}
