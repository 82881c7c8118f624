//! The time during which the ledger cannot take entries.
//!
//! Nothing new is admitted. Sessions still end on time: their traffic is cut at the deadline and
//! the entry follows when the ledger is back. After a grace everything that is live is cut.

use std::collections::BTreeMap;
use std::time::Duration;

use curfew_authority::{Command, SessionId, Span, Timestamp};

use super::Unavailable;

/// Ends and closings that wait for the ledger. There is one for each permit that was out, and an
/// entry of each is under 1 KiB: at most 100 MB.
const DEFERRED_MAX: usize = 100_000;

/// What must be remembered until the ledger is back.
#[derive(Debug)]
pub(super) struct Outage {
    pub(super) kind: Unavailable,
    /// What went wrong, for the log.
    pub(super) cause: String,
    pub(super) since: Timestamp,
    /// Whether `recording.failed` could be written, into the reserve.
    pub(super) noted: bool,
    /// How many questions were refused.
    pub(super) refused: u64,
    /// When sessions were cut that could not be recorded as ended.
    pub(super) cut: BTreeMap<SessionId, Timestamp>,
    /// What is to be recorded once the ledger is back.
    deferred: Vec<Command>,
    /// Everything live has been cut because the grace ran out.
    pub(super) grace_over: bool,
}

impl Outage {
    pub(super) fn new(kind: Unavailable, cause: String, since: Timestamp) -> Self {
        Self {
            kind,
            cause,
            since,
            noted: false,
            refused: 0,
            cut: BTreeMap::new(),
            deferred: Vec::new(),
            grace_over: false,
        }
    }

    /// Whether ends can still be recorded, into the ledger's reserve.
    pub(super) fn has_reserve(&self) -> bool {
        self.kind == Unavailable::DiskFull
    }

    /// The moment from which live traffic must be cut, unless it has been.
    pub(super) fn grace_end(&self, grace: Duration) -> Option<Timestamp> {
        let grace = Span::from_duration(grace);
        (!self.grace_over).then(|| self.since.saturating_add(grace))
    }

    /// Keeps a command for when the ledger is back.
    pub(super) fn defer(&mut self, command: Command) {
        if self.deferred.len() < DEFERRED_MAX {
            self.deferred.push(command);
        } else {
            tracing::error!(
                ?command,
                "too much to remember during the outage; this is lost"
            );
        }
    }

    /// Everything that was kept, in order.
    pub(super) fn take_deferred(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.deferred)
    }
}
