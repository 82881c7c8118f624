//! Why and when live traffic has to stop.

use curfew_entry::{ClosedBy, Deadline, DeadlineCause, EndReason, Limits, Span};

/// Why live traffic has to stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cut {
    /// What happened.
    pub cause: CutCause,
    /// The deadline, where a clock did it.
    pub deadline: Option<Deadline>,
    /// The limit that ran out, where a clock did it.
    pub limit: Option<Span>,
}

/// What took a permit back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CutCause {
    /// The session ended.
    SessionEnded(EndReason),
    /// A limit of this one resource ran out; the session goes on.
    Limit(DeadlineCause),
    /// A new policy no longer permits what the connection can do; the session goes on.
    PolicyChanged,
    /// The ledger could not take entries for longer than the grace.
    LedgerFailed,
    /// The gateway is stopping.
    Shutdown,
    /// Its holder gave the permit back: what it covered was over.
    Released,
}

impl Cut {
    /// A cut that no clock made.
    pub const fn of(cause: CutCause) -> Self {
        Self {
            cause,
            deadline: None,
            limit: None,
        }
    }

    /// A cut at a deadline under these limits.
    pub(super) const fn at(cause: CutCause, deadline: Deadline, limits: &Limits) -> Self {
        let limit = match deadline.cause {
            DeadlineCause::Idle => limits.idle,
            DeadlineCause::Reauth => limits.reauth,
            DeadlineCause::Lifetime => limits.lifetime,
        };
        Self {
            cause,
            deadline: Some(deadline),
            limit: Some(limit),
        }
    }
}

impl CutCause {
    /// How the closing entry names it.
    pub const fn closed_by(self) -> ClosedBy {
        match self {
            Self::SessionEnded(_) => ClosedBy::SessionEnd,
            Self::Limit(_) => ClosedBy::Limit,
            Self::PolicyChanged => ClosedBy::Policy,
            Self::LedgerFailed => ClosedBy::Unrecorded,
            // After it was given back nothing of it is recorded any more.
            Self::Shutdown | Self::Released => ClosedBy::Shutdown,
        }
    }
}
