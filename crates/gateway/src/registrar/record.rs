//! From events to entries: append, apply, and what to do when the ledger cannot.

use curfew_authority::{Command, Decision, Entry, Event, Timestamp};
use curfew_ledger::{AppendError, Space, Writer};

use super::outage::Outage;
use super::task::Task;
use super::{Refusal, Unavailable};
use crate::permit::{Cut, CutCause};

/// Entries that may be under way to the disk: half of what the ledger's queue takes, so that a
/// decision is appended whole or not at all. At 300 bytes each they hold 10 MB.
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

    /// Records what a decision says happened, and lets it take effect. Gives the index of the
    /// last entry.
    ///
    /// Sessions that end are cut before anything else, and the decision is then made again for
    /// the moment after the cut, so that the entry tells when the end took effect.
    pub(super) fn record(
        &mut self,
        command: &Command,
        mut decision: Decision,
        mut now: Timestamp,
    ) -> Result<Option<u64>, Unavailable> {
        if self.cut_ended(&decision) {
            now = self.clock.now();
            decision = self.authority.decide(command, now);
            // Whatever ran out in between is cut as well, before it is recorded.
            self.cut_ended(&decision);
        }
        self.forget_durable();
        if self.pending.len().saturating_add(decision.events.len()) > UNDURABLE_MAX {
            return Err(Unavailable::Ledger);
        }
        let mut last = None;
        for mut event in decision.events {
            if !self.strangers.admit(&event, now) {
                continue;
            }
            self.date_back(&mut event);
            last = Some(self.append(Entry { time: now, event })?);
        }
        Ok(last)
    }

    /// Cuts the traffic of every session that the decision ends. True where there is one.
    fn cut_ended(&mut self, decision: &Decision) -> bool {
        let mut any = false;
        for event in &decision.events {
            if let Event::SessionEnded {
                session, reason, ..
            } = event
            {
                any = true;
                self.live
                    .end(session, Cut::of(CutCause::SessionEnded(*reason)));
            }
        }
        any
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
            && let Some(cut_at) = outage.cut.get(session)
        {
            *effective = *cut_at;
            *late = deadline.map(|deadline| cut_at.saturating_since(deadline));
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

    fn append(&mut self, mut entry: Entry) -> Result<u64, Unavailable> {
        let Some(expected) = self.writer.as_ref().map(Writer::size) else {
            return Err(Unavailable::Ledger);
        };
        let concealed = match &self.concealer {
            Some(concealer) => concealer.conceal(&mut entry.event, expected, &self.authority),
            None => Ok(false),
        };
        let concealed = concealed.map_err(|error| {
            tracing::error!(%error, "the values of an entry cannot be kept");
            Unavailable::Ledger
        })?;
        let appended = self.append_as_it_is(&entry);
        if let (true, Err(_), Some(concealer)) = (concealed, &appended, &self.concealer) {
            concealer.store.unstage(expected);
        }
        appended
    }

    fn append_as_it_is(&mut self, entry: &Entry) -> Result<u64, Unavailable> {
        let bytes = entry.to_bytes().map_err(|error| {
            tracing::error!(%error, "an entry could not be written");
            Unavailable::Ledger
        })?;
        let Some(writer) = &self.writer else {
            return Err(Unavailable::Ledger);
        };
        let appended = if may_use_reserve(&entry.event) {
            writer.append_reserved(&bytes)
        } else {
            writer.append(&bytes)
        };
        let index = match appended {
            Ok(index) => index,
            Err(error) => return Err(self.append_failed(&error)),
        };
        self.forget_durable();
        self.pending.push_back((index, bytes));
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
        self.approved(&entry.event, index);
        Ok(index)
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
        let now = self.clock.now();
        match &mut self.outage {
            Some(outage) => outage.kind = kind,
            outage @ None => *outage = Some(Outage::new(kind, cause.clone(), now)),
        }
        if kind == Unavailable::Ledger {
            // A writer that failed stays failed; what it may have written is read again.
            self.writer = None;
        } else if self.carry_out(&Command::FailRecording { since: now, cause }, now)
            && let Some(outage) = &mut self.outage
        {
            outage.noted = true;
        }
    }

    /// A full disk may have room again.
    pub(super) fn look_for_space(&mut self) {
        let ample = self
            .writer
            .as_ref()
            .is_some_and(|writer| writer.space() == Space::Ample);
        if ample && self.outage.is_some() {
            self.resume();
        }
    }

    /// The ledger was opened again, or not.
    pub(super) fn reopened(&mut self, result: Result<(Writer, u64), String>) {
        let (writer, size) = match result {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!(%error, "the ledger cannot be opened yet");
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
            return;
        }
        for (index, bytes) in &self.pending {
            let again = writer.append_reserved(bytes);
            if !matches!(again, Ok(at) if at == *index) {
                tracing::error!(index, "an entry could not be written again");
                return;
            }
        }
        self.writer = Some(writer);
        self.durability.resume(size);
        self.resume();
    }

    /// The ledger takes entries again: what could not be recorded is recorded now.
    fn resume(&mut self) {
        let Some(outage) = &mut self.outage else {
            return;
        };
        let deferred = outage.take_deferred();
        let (noted, since, cause) = (outage.noted, outage.since, outage.cause.clone());
        let refused = outage.refused;
        let now = self.clock.now();
        let failed = Command::FailRecording { since, cause };
        let mut whole = noted || self.carry_out(&failed, now);
        for command in deferred {
            whole = whole && self.carry_out(&command, self.clock.now());
        }
        whole = whole && self.carry_out(&Command::Expire, self.clock.now());
        whole = whole && self.carry_out(&Command::ResumeRecording { refused }, self.clock.now());
        if whole {
            self.outage = None;
            tracing::warn!(refused, "the ledger takes entries again");
        }
    }
}
