//! Entries that others follow from, and the others.

use curfew_entry::{Entry, Event, SessionId, Timestamp};

use super::{Auditor, FindingKind, Found, found};
use crate::command::{Command, Verdict};
use crate::policy::Policy;

/// The session an expected event is about.
fn session_of(event: &Event) -> Option<&SessionId> {
    if let Event::SessionEnded { session, .. }
    | Event::SessionLimited { session, .. }
    | Event::CredentialRevoked { session, .. } = event
    {
        Some(session)
    } else {
        None
    }
}

/// Whether `event` stands where `expected` should, altered.
fn stands_for(event: &Event, expected: &Event) -> bool {
    std::mem::discriminant(event) == std::mem::discriminant(expected)
        && session_of(event) == session_of(expected)
}

/// The command that an entry others follow from must have come from.
fn command_of(event: &Event) -> Option<Command> {
    if let Event::GatewayStarted {
        version,
        clock,
        boot_id,
        boot_us,
        wall,
    } = event
    {
        return Some(Command::StartGateway {
            version: version.clone(),
            clock: *clock,
            boot_id: boot_id.clone(),
            boot_us: *boot_us,
            wall: *wall,
        });
    }
    if let Event::PolicyLoaded { text, .. } = event {
        return Some(Command::LoadPolicy { text: text.clone() });
    }
    if let Event::ResourcesLoaded { resources } = event {
        return Some(Command::LoadResources {
            resources: resources.clone(),
        });
    }
    if let Event::AccountChanged {
        subject,
        change,
        by,
    } = event
    {
        return Some(Command::ChangeAccount {
            subject: subject.clone(),
            change: change.clone(),
            by: by.clone(),
        });
    }
    None
}

impl Auditor {
    /// What the log says of itself must fit what it says already.
    pub(super) fn note(&self, event: &Event, now: Timestamp, out: &mut Vec<Found>) {
        let Some(problem) = self.authority.contradiction(self.index, event, now) else {
            return;
        };
        let kind = if matches!(
            event,
            Event::LogSigningFailed { .. } | Event::LogSigningResumed { .. }
        ) {
            FindingKind::SigningWrong
        } else if matches!(
            event,
            Event::LogArchivingFailed(_) | Event::LogArchivingResumed { .. }
        ) {
            FindingKind::ArchivingWrong
        } else if matches!(event, Event::LogPruned(_)) {
            FindingKind::PrunedWrong
        } else if matches!(
            event,
            Event::LogWitnessed { .. } | Event::LogQuorumLost { .. } | Event::LogQuorumMet { .. }
        ) {
            FindingKind::WitnessedWrong
        } else {
            FindingKind::TimestampedWrong
        };
        out.push((kind, None, problem.to_owned()));
    }

    /// An entry that others follow from.
    pub(super) fn lead(&mut self, entry: &Entry, out: &mut Vec<Found>) {
        if let Event::PolicyLoaded { digest, text } = &entry.event
            && *digest != Policy::digest_of(text)
        {
            let detail = format!("the text's digest is not {digest}");
            out.push((FindingKind::PolicyDigestWrong, None, detail));
        }
        if matches!(entry.event, Event::GatewayStarted { .. }) {
            // Nothing that is open outlives the process that held it.
            self.traces.clear();
            self.ended.clear();
            self.outage = None;
        }
        let Some(command) = command_of(&entry.event) else {
            return;
        };
        let decision = self.authority.decide(&command, entry.time);
        if let Verdict::Refused(refusal) = &decision.verdict {
            let kind = if matches!(entry.event, Event::PolicyLoaded { .. }) {
                FindingKind::PolicyUnreadable
            } else {
                FindingKind::ResourcesWrong
            };
            out.push((kind, None, refusal.to_string()));
            return;
        }
        // What follows from it is judged entry by entry, and found where it does not come.
        let lead = decision.events.into_iter();
        let lead =
            lead.filter(|it| std::mem::discriminant(it) == std::mem::discriminant(&entry.event));
        for event in lead {
            let same_text = matches!(event, Event::PolicyLoaded { .. });
            if event != entry.event && !same_text {
                let detail = "it is not in the form a gateway writes".to_owned();
                out.push((FindingKind::ResourcesWrong, None, detail));
            }
        }
    }

    /// Whether the entry is one that had to follow. Reports those that had to come before it.
    pub(super) fn follows(&mut self, entry: &Entry, out: &mut Vec<Found>) -> bool {
        if self.expected.is_empty() {
            return false;
        }
        if matches!(entry.event, Event::GatewayStarted { .. }) {
            // The gateway was interrupted in the middle of a decision. Whatever was left over must
            // be caught up now, and is expected again.
            self.expected.clear();
            return false;
        }
        if matches!(entry.event, Event::LogKeyRotated { .. }) {
            // It was interrupted and is not started yet: that is still to come.
            return false;
        }
        let in_time = entry.time == self.expected_at;
        let same = |event: &&Event| in_time && **event == entry.event;
        let place = self
            .expected
            .iter()
            .take_while(|event| !same(event))
            .count();
        if place < self.expected.len() {
            for _ in 0..place {
                self.miss_next(out);
            }
            self.expected.pop_front();
            self.apply(entry);
            return true;
        }
        let altered = self
            .expected
            .iter()
            .position(|event| stands_for(&entry.event, event));
        let Some(place) = altered else {
            self.miss_all(out);
            return false;
        };
        for _ in 0..place {
            self.miss_next(out);
        }
        if let Some(event) = self.expected.pop_front() {
            let kind = if matches!(event, Event::SessionLimited { .. }) {
                FindingKind::LimitsWrong
            } else if matches!(event, Event::SessionEnded { .. }) {
                FindingKind::EndWrong
            } else {
                FindingKind::RevocationMissing
            };
            let detail = "it is not what had to follow from the entry before".to_owned();
            out.push((kind, session_of(&event).cloned(), detail));
            // Go on with what should have been.
            self.apply(&Entry {
                time: self.expected_at,
                event,
            });
        }
        true
    }

    /// Nothing that was expected came.
    pub(super) fn miss_all(&mut self, out: &mut Vec<Found>) {
        while !self.expected.is_empty() {
            self.miss_next(out);
        }
    }

    fn miss_next(&mut self, out: &mut Vec<Found>) {
        if let Some(event) = self.expected.pop_front() {
            self.miss(&event, out);
        }
    }

    /// Reports that an event did not come, and goes on as if it had.
    fn miss(&mut self, event: &Event, out: &mut Vec<Found>) {
        let (kind, detail) = if let Event::SessionEnded { reason, .. } = event {
            let detail = format!("it had to end: {reason:?}");
            (FindingKind::EndMissing, detail)
        } else if matches!(event, Event::SessionLimited { .. }) {
            let detail = "its limits had to change".to_owned();
            (FindingKind::LimitsWrong, detail)
        } else {
            let detail = "a credential had to be revoked".to_owned();
            (FindingKind::RevocationMissing, detail)
        };
        if let Some(session) = session_of(event) {
            out.push(found(kind, session, detail));
            if matches!(event, Event::SessionEnded { .. }) {
                self.presumed.insert(session.clone());
            }
        }
        let entry = Entry {
            time: self.authority.time(),
            event: event.clone(),
        };
        self.apply(&entry);
    }
}
