//! What the log says of itself must fit what it says already: `decide` writes nothing else, and the
//! auditor finds what does not.

use curfew_entry::{Event, LogTimestamped, Timestamp};

use super::Authority;

impl Authority {
    /// In what a note at `index` contradicts the entries before it, or itself.
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "what is no note says nothing of the log"
    )]
    pub(crate) fn contradiction(
        &self,
        index: u64,
        event: &Event,
        now: Timestamp,
    ) -> Option<&'static str> {
        match event {
            Event::LogWitnessed {
                size, checkpoint, ..
            } => {
                let line = checkpoint.split('\n').nth(1);
                let other = line != Some(size.to_string().as_str());
                other
                    .then_some("its checkpoint is not one of so many entries")
                    .or_else(|| not_there(*size, index))
            }
            Event::LogQuorumLost { size, .. }
            | Event::LogQuorumMet { size }
            | Event::LogTimestamped(LogTimestamped { size, .. })
            | Event::LogTimestampsStopped { size, .. }
            | Event::LogTimestampsResumed { size } => not_there(*size, index),
            Event::LogSigningFailed { since, size, .. } => self
                .unsigned_from()
                .map(|_| SAID)
                .or_else(|| not_yet(*since, now))
                .or_else(|| not_there(*size, index)),
            Event::LogSigningResumed { size } => match self.unsigned_from() {
                None => Some(NOT_SAID),
                Some(from) if *size < from => Some("fewer entries than had been signed before"),
                Some(_) => not_there(*size, index),
            },
            Event::LogArchivingFailed(told) => self
                .is_archiving_failed()
                .then_some(SAID)
                .or_else(|| not_yet(told.since, now))
                .or_else(|| not_there(told.size.unwrap_or(0), index)),
            Event::LogArchivingResumed { size } => (!self.is_archiving_failed())
                .then_some(NOT_SAID)
                .or_else(|| not_there(*size, index)),
            // The same again is no harm: what was said last may not have been carried out.
            Event::LogPruned(told) if told.size < self.pruned() || told.size == 0 => {
                Some("so many entries were given up before")
            }
            Event::LogPruned(told) => not_there(told.size, index),
            _ => None,
        }
    }
}

const SAID: &str = "it was said already, and not that it is over";
const NOT_SAID: &str = "it was not said that it had begun";

fn not_there(size: u64, index: u64) -> Option<&'static str> {
    (size > index).then_some("so many entries were not there yet")
}

fn not_yet(since: Timestamp, now: Timestamp) -> Option<&'static str> {
    (since > now).then_some("it says since when, and that is after it")
}
