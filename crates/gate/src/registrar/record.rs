//! From events to entries: append, apply, and what to do when the ledger cannot.

use curfew_authority::traffic::{Input, may_use_reserve};
use curfew_authority::{Command, Decision};
use curfew_entry::{Entry, Event, Timestamp};
use curfew_ledger::{AppendError, Space, Writer};

use super::task::{Task, Urgency};
use super::{Refusal, Unavailable};
use crate::conditions::Part;

/// Entries that may be under way to the disk when another decision is taken: half of what the
/// ledger's queue takes. At 300 bytes each they hold 10 MB. A decision is taken whole, however many
/// entries it has: at most one for each live session, smaller than what is held of that session.
pub(super) const UNDURABLE_MAX: usize = 32_768;

/// What is said where the ledger's disk is full.
const NO_SPACE: &str = "no space is left on the ledger's disk";

impl Task {
    /// Whether anything new may be admitted.
    pub(super) fn admitting(&mut self) -> Result<(), Refusal> {
        let full = self
            .writer
            .as_ref()
            .is_some_and(|writer| writer.space() != Space::Ample);
        if full && self.traffic.outage().is_none() {
            self.fail(Unavailable::DiskFull, NO_SPACE.to_owned());
        }
        self.refuse_in_outage()
    }

    /// Records what a decision says happened, and lets it take effect: all of it or nothing. Gives
    /// the index of the last entry.
    ///
    /// Sessions that end are cut before anything else, and the decision is then made again for
    /// the moment after the cut, so that the entry tells when the end took effect.
    pub(super) fn record(
        &mut self,
        command: &Command,
        mut decision: Decision,
        mut now: Timestamp,
        urgency: Urgency,
    ) -> Result<Option<u64>, Unavailable> {
        if self.tell(Input::Decided(&decision.events)) {
            now = self.now();
            decision = self.authority.decide(command, now);
            // Whatever ran out in between is cut as well, before it is recorded.
            self.tell(Input::Decided(&decision.events));
        }
        let ends = |event: &&Event| matches!(event, Event::SessionEnded { .. });
        let ended: Vec<Event> = decision.events.iter().filter(ends).cloned().collect();
        let recorded = self.take_events(decision, now, urgency);
        if recorded.is_err() {
            self.tell(Input::Unrecorded(command, &ended));
        }
        recorded
    }

    /// Takes the events of a decision in, unless the first finds no room. From then on the rest has
    /// its place too: what the ledger does not take at once waits, in order, and is handed on later.
    fn take_events(
        &mut self,
        decision: Decision,
        now: Timestamp,
        urgency: Urgency,
    ) -> Result<Option<u64>, Unavailable> {
        self.forget_durable();
        let behind = !self.hand_on() || self.pending.len() >= UNDURABLE_MAX;
        if self.writer.is_none() || (behind && urgency == Urgency::CanWait) {
            return Err(Unavailable::Ledger);
        }
        let entries = self.entries_of(decision, now);
        let mut prepared = Vec::with_capacity(entries.len());
        for (index, entry) in (self.authority.entries()..).zip(entries) {
            match self.prepare(index, entry) {
                Ok(whole) => prepared.push(whole),
                Err(kind) => {
                    self.take_back(&prepared);
                    return Err(kind);
                }
            }
        }
        let Some(first) = prepared.first() else {
            return Ok(None);
        };
        if let Err(kind) = self.append(first, urgency) {
            self.take_back(&prepared);
            return Err(kind);
        }
        let mut last = None;
        for entry in prepared {
            last = Some(entry.index);
            self.pending.push_back((entry.index, entry.bytes));
            self.applied(entry.index, &entry.entry);
        }
        // What is not taken now is taken later; the order is given.
        self.hand_on();
        Ok(last)
    }

    /// The entries of a decision: of what strangers try no more than the log can bear.
    fn entries_of(&mut self, decision: Decision, now: Timestamp) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(decision.events.len());
        for mut event in decision.events {
            if !self.strangers.admit(&event, now) {
                continue;
            }
            self.traffic.date_back(&mut event);
            entries.push(Entry { time: now, event });
        }
        entries
    }

    /// An entry as it is written, with what it conceals staged.
    fn prepare(&self, index: u64, mut entry: Entry) -> Result<Prepared, Unavailable> {
        let concealed = match &self.concealer {
            Some(concealer) => concealer.conceal(&mut entry.event, index, &self.authority),
            None => Ok(false),
        };
        let concealed = concealed.map_err(|error| {
            tracing::error!(%error, "the values of an entry cannot be kept");
            Unavailable::Ledger
        })?;
        let bytes = entry.to_bytes();
        let prepared = |bytes| Prepared {
            index,
            entry,
            bytes,
            concealed,
        };
        match bytes {
            Ok(bytes) => Ok(prepared(bytes)),
            Err(error) => {
                tracing::error!(%error, "an entry could not be written");
                self.take_back(&[prepared(Vec::new())]);
                Err(Unavailable::Ledger)
            }
        }
    }

    /// Takes back what was staged for entries that are not taken.
    fn take_back(&self, prepared: &[Prepared]) {
        let Some(concealer) = &self.concealer else {
            return;
        };
        for entry in prepared.iter().rev().filter(|entry| entry.concealed) {
            concealer.store.unstage(entry.index);
        }
    }

    /// The first entry of a decision goes to the ledger, or waits where it must be said, or is not
    /// taken.
    fn append(&mut self, first: &Prepared, urgency: Urgency) -> Result<(), Unavailable> {
        if self.handed < first.index {
            return Ok(());
        }
        let Some(writer) = &self.writer else {
            return Err(Unavailable::Ledger);
        };
        let appended = if may_use_reserve(&first.entry.event) {
            writer.append_reserved(&first.bytes)
        } else {
            writer.append(&first.bytes)
        };
        match appended {
            Ok(index) if index == first.index => {
                self.handed = index + 1;
                Ok(())
            }
            Ok(_) => Err(self.out_of_step()),
            Err(AppendError::Full) if urgency == Urgency::Due => Ok(()),
            Err(error) => Err(self.append_failed(&error)),
        }
    }

    /// Hands to the ledger what it did not take before. True where nothing is left to be handed.
    pub(super) fn hand_on(&mut self) -> bool {
        let Some(writer) = &self.writer else {
            return self.handed == self.authority.entries();
        };
        let first = self
            .pending
            .front()
            .map_or(self.handed, |(index, _)| *index);
        let handed = usize::try_from(self.handed.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut problem = None;
        for (index, bytes) in self.pending.iter().skip(handed) {
            match writer.append_reserved(bytes) {
                Ok(at) if at == *index => self.handed = at + 1,
                Ok(_) => problem = Some("its entries are out of step".to_owned()),
                // As many wait as the queue holds.
                Err(AppendError::Full) => return false,
                // They have their place in the order, so that nothing else can go before them.
                Err(error) => problem = Some(error.to_string()),
            }
            if problem.is_some() {
                break;
            }
        }
        if let Some(problem) = problem {
            self.fail(Unavailable::Ledger, problem);
            return false;
        }
        true
    }

    /// More of what waits is handed on, and an outage that waited for that is over.
    pub(super) fn catch_up(&mut self) {
        self.forget_durable();
        if self.hand_on() {
            self.look_for_space();
        }
    }

    pub(super) fn forget_durable(&mut self) {
        self.forget_before(self.durability.size());
    }

    fn forget_before(&mut self, size: u64) {
        while self.pending.front().is_some_and(|(index, _)| *index < size) {
            self.pending.pop_front();
        }
    }

    /// An entry takes effect.
    fn applied(&mut self, index: u64, entry: &Entry) {
        self.authority.apply(entry);
        self.strangers.recorded(&entry.event);
        self.tell(Input::Recorded(entry));
        self.approved(&entry.event, index);
    }

    /// The ledger counts otherwise than the state: it is opened again, and what differs is found.
    fn out_of_step(&mut self) -> Unavailable {
        self.fail(
            Unavailable::Ledger,
            "its entries are out of step".to_owned(),
        );
        Unavailable::Ledger
    }

    fn append_failed(&mut self, error: &AppendError) -> Unavailable {
        let kind = match error {
            // Passing: as many entries wait as the queue holds. The next question may be lucky.
            AppendError::Full => return Unavailable::Ledger,
            AppendError::NoSpace if self.traffic.outage().is_none() => Unavailable::DiskFull,
            AppendError::NoSpace
            | AppendError::Failed
            | AppendError::Closed
            | AppendError::TooLarge
            | AppendError::Empty => Unavailable::Ledger,
        };
        self.fail(kind, error.to_string());
        self.traffic.refuse();
        kind
    }

    /// The ledger cannot take entries: from here on nothing new is admitted.
    pub(super) fn fail(&mut self, kind: Unavailable, cause: String) {
        tracing::error!(%cause, "the ledger cannot take entries; nothing new is admitted");
        let text = format!("nothing new is admitted: the log takes no entries: {cause}");
        self.conditions.failed(Part::Recording, text);
        if kind == Unavailable::Ledger {
            // A writer that failed stays failed; what it may have written is read again. Whoever
            // waits is told now, not when the disk is better.
            self.durability.give_up();
            self.writer = None;
        }
        let reserve = kind == Unavailable::DiskFull;
        self.tell(Input::Failed { cause, reserve });
    }

    /// A full disk may have room again.
    pub(super) fn look_for_space(&mut self) {
        let (Some(writer), Some(_)) = (&self.writer, self.traffic.outage()) else {
            return;
        };
        if writer.space() == Space::Ample {
            self.tell(Input::Back);
        } else {
            // Opened again, and full: ends go into the reserve.
            let cause = NO_SPACE.to_owned();
            let reserve = true;
            self.tell(Input::Failed { cause, reserve });
        }
    }

    /// The ledger was opened again, or not.
    pub(super) fn reopened(&mut self, result: Result<(Writer, u64), String>) {
        let (writer, size) = match result {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!(%error, "the ledger cannot be opened yet");
                let text = format!("nothing new is admitted: the log cannot be opened: {error}");
                self.conditions.failed(Part::Recording, text);
                return;
            }
        };
        // What had reached the disk is durable; the rest is written again, in the same order.
        self.forget_before(size);
        let gap = size < self.durability.size()
            || self
                .pending
                .front()
                .is_some_and(|(index, _)| *index != size);
        if gap {
            tracing::error!(size, "the ledger has lost durable entries; staying shut");
            let text = format!(
                "nothing is admitted any more: the log has lost durable entries and has {size} left; keep \
                 its files, and restore them from the archive"
            );
            self.conditions.failed(Part::Recording, text);
            return;
        }
        self.writer = Some(writer);
        self.handed = size;
        self.durability.resume(size);
        self.catch_up();
    }
}

/// An entry that is ready to be written.
struct Prepared {
    index: u64,
    entry: Entry,
    bytes: Vec<u8>,
    /// Values were staged for it.
    concealed: bool,
}
