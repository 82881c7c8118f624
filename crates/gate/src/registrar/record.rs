//! From events to entries: append, apply, and what to do when the ledger cannot.

use curfew_authority::{Command, Decision};
use curfew_entry::{Entry, Event, SessionId, Timestamp};
use curfew_ledger::{AppendError, Space, Writer};

use super::outage::Outage;
use super::task::{NotDone, Task, Urgency};
use super::{Refusal, Unavailable};
use crate::conditions::Part;
use crate::permit::{Cut, CutCause};

/// Entries that may be under way to the disk when another decision is taken: half of what the
/// ledger's queue takes. At 300 bytes each they hold 10 MB. A decision is taken whole, however many
/// entries it has: at most one for each live session, smaller than what is held of that session.
const UNDURABLE_MAX: usize = 32_768;

/// Which entries may use the ledger's reserve: those that close things, and that say what failed.
fn may_use_reserve(event: &Event) -> bool {
    matches!(
        event,
        Event::SessionActive { .. }
            | Event::SessionEnded { .. }
            | Event::ActionClosed(_)
            | Event::RecordingFailed { .. }
            | Event::RecordingResumed { .. }
            | Event::GatewayStopped {}
    )
}

impl Task {
    /// Whether anything new may be admitted.
    pub(super) fn admitting(&mut self) -> Result<(), Refusal> {
        let full = self
            .writer
            .as_ref()
            .is_some_and(|writer| writer.space() != Space::Ample);
        if full && self.outage.is_none() {
            self.fail(
                Unavailable::DiskFull,
                "no space is left on the ledger's disk".to_owned(),
            );
        }
        match &mut self.outage {
            None => Ok(()),
            Some(outage) => {
                outage.refused += 1;
                Err(Refusal::Unavailable(outage.kind))
            }
        }
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
        let mut ended = self.cut_ended(&decision);
        if !ended.is_empty() {
            now = self.now();
            decision = self.authority.decide(command, now);
            // Whatever ran out in between is cut as well, before it is recorded.
            ended = self.cut_ended(&decision);
        }
        let recorded = self.take_events(decision, now, urgency);
        if recorded.is_err()
            && let Some(outage) = &mut self.outage
        {
            for session in ended {
                outage.note_cut(&session, now);
            }
        }
        recorded
    }

    /// Cuts the traffic of every session that the decision ends, and gives their names.
    fn cut_ended(&mut self, decision: &Decision) -> Vec<SessionId> {
        let mut ended = Vec::new();
        for event in &decision.events {
            if let Event::SessionEnded {
                session, reason, ..
            } = event
            {
                let cut = Cut::of(CutCause::SessionEnded(*reason));
                let had_traffic = self.live.end(session, cut);
                let now = self.now();
                if let Some(outage) = self.outage.as_mut().filter(|_| had_traffic) {
                    outage.note_cut(session, now);
                }
                ended.push(session.clone());
            }
        }
        ended
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
            self.date_back(&mut event);
            entries.push(Entry { time: now, event });
        }
        entries
    }

    /// A session that was cut during an outage ended then, not when the ledger came back.
    fn date_back(&self, event: &mut Event) {
        if let (
            Some(outage),
            Event::SessionEnded {
                session,
                deadline,
                effective,
                late,
                ..
            },
        ) = (&self.outage, event)
            && let Some(moment) = outage.effective(session, *deadline)
        {
            *effective = moment.min(*effective);
            *late = deadline.map(|deadline| effective.saturating_since(deadline));
        }
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

    fn forget_durable(&mut self) {
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
        if let Event::SessionReauthenticated { session, .. }
        | Event::SessionActive { session, .. }
        | Event::SessionLimited { session, .. }
        | Event::ActionAllowed { session, .. }
        | Event::ActionDenied { session, .. } = &entry.event
            && let Some(session) = self.authority.session(session)
        {
            self.live.follow(session);
        }
        if let Event::SessionLimited { session, .. } = &entry.event {
            self.live.recheck(session);
        }
        self.strangers.recorded(&entry.event);
        if let Event::PolicyLoaded { .. } | Event::ResourcesLoaded { .. } = &entry.event {
            self.live.follow_policy(&self.authority, entry.time);
        }
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
            AppendError::NoSpace if self.outage.is_none() => Unavailable::DiskFull,
            AppendError::NoSpace
            | AppendError::Failed
            | AppendError::Closed
            | AppendError::TooLarge
            | AppendError::Empty => Unavailable::Ledger,
        };
        self.fail(kind, error.to_string());
        if let Some(outage) = &mut self.outage {
            outage.refused += 1;
        }
        kind
    }

    /// The ledger cannot take entries: from here on nothing new is admitted.
    pub(super) fn fail(&mut self, kind: Unavailable, cause: String) {
        tracing::error!(%cause, "the ledger cannot take entries; nothing new is admitted");
        let text = format!("nothing new is admitted: the log takes no entries: {cause}");
        self.conditions.failed(Part::Recording, text);
        let now = self.now();
        match &mut self.outage {
            Some(outage) => outage.kind = kind,
            outage @ None => *outage = Some(Outage::new(kind, cause.clone(), now)),
        }
        if kind == Unavailable::Ledger {
            // A writer that failed stays failed; what it may have written is read again. Whoever
            // waits is told now, not when the disk is better.
            self.durability.give_up();
            self.writer = None;
        } else if self
            .carry_out(&Command::FailRecording { since: now, cause })
            .is_ok()
            && let Some(outage) = &mut self.outage
        {
            outage.noted = true;
        }
    }

    /// A full disk may have room again.
    pub(super) fn look_for_space(&mut self) {
        let (Some(writer), Some(outage)) = (&self.writer, &mut self.outage) else {
            return;
        };
        if writer.space() == Space::Ample {
            self.resume();
        } else {
            // Opened again, and full: ends go into the reserve.
            outage.kind = Unavailable::DiskFull;
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

    /// The ledger takes entries again: what could not be recorded is recorded now. Where it fails
    /// again, what is left waits for the next time.
    fn resume(&mut self) {
        if self.try_resume().is_ok() {
            let refused = self.outage.take().map_or(0, |outage| outage.refused);
            self.conditions.well(Part::Recording);
            tracing::warn!(refused, "the ledger takes entries again");
        }
    }

    fn try_resume(&mut self) -> Result<(), NotDone> {
        let Some(outage) = &self.outage else {
            return Ok(());
        };
        if !outage.noted {
            let (since, cause) = (outage.since, outage.cause.clone());
            self.carry_out(&Command::FailRecording { since, cause })?;
        }
        if let Some(outage) = &mut self.outage {
            outage.noted = true;
        }
        // What was done meanwhile kept sessions alive.
        for session in self.live.sessions() {
            self.observe(&session)?;
        }
        while let Some(command) = self.outage.as_mut().and_then(Outage::next_deferred) {
            if let Err(NotDone::Unavailable(kind)) = self.carry_out(&command) {
                if let Some(outage) = &mut self.outage {
                    outage.defer_again(command);
                }
                return Err(NotDone::Unavailable(kind));
            }
        }
        while self.has_due() {
            self.carry_out(&Command::Expire)?;
        }
        let refused = self.outage.as_ref().map_or(0, |outage| outage.refused);
        self.carry_out(&Command::ResumeRecording { refused })
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
