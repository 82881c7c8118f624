//! The end of what was allowed.

use serde::{Deserialize, Serialize};

use crate::ids::SessionId;
use crate::limits::Deadline;
use crate::time::{Span, Timestamp};

/// The end of a connection or stream.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ActionClosed {
    /// Which session.
    pub session: SessionId,
    /// The index of the `action.allowed` entry that opened it.
    pub action: u64,
    /// What closed it.
    pub by: ClosedBy,
    /// The deadline that cut it, if one did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deadline: Option<Deadline>,
    /// When the last byte could flow.
    pub closed: Timestamp,
    /// `closed` minus the deadline's moment.
    #[serde(rename = "late_us", skip_serializing_if = "Option::is_none", default)]
    pub late: Option<Span>,
    /// Bytes from the client to the resource.
    pub bytes_in: u64,
    /// Bytes from the resource to the client.
    pub bytes_out: u64,
}

/// What is wrong where [`ActionClosed::agrees`] does not hold.
pub const CLOSE_DISAGREES: &str = "its moment, deadline and lateness do not agree";

impl ActionClosed {
    /// How long after the deadline that cut it the last byte could flow.
    pub fn lateness(&self) -> Option<Span> {
        let deadline = self.deadline?;
        Some(self.closed.saturating_since(deadline.at))
    }

    /// Whether it does not contradict itself, told at `now`.
    pub fn agrees(&self, now: Timestamp) -> bool {
        let cut = self.by == ClosedBy::Limit;
        self.late == self.lateness() && self.closed <= now && (!cut || self.deadline.is_some())
    }
}

/// What closed a connection or stream.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClosedBy {
    /// The client.
    Client,
    /// The protected resource.
    Upstream,
    /// Curfew, because a limit of this resource ran out.
    Limit,
    /// Curfew, because the session ended.
    SessionEnd,
    /// Curfew, because a new policy no longer permits what the connection can do.
    Policy,
    /// Curfew, because what was sent broke the protocol or a limit on sizes.
    Protocol,
    /// Curfew, because the ledger could not take its entry, or the entry did not come as far in
    /// time as its rules demand: nothing of it was let out.
    Unrecorded,
    /// The protected resource, which skipped it after an error in what came before: it was allowed
    /// and never done.
    Skipped,
    /// Curfew, because it is stopping.
    Shutdown,
}
