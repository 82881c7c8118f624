//! Limits and deadlines: how long a session may go on for what is being done.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::{Span, Timestamp};

/// The three limits of a session, each measured on its own clock (DESIGN: three clocks).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Limits {
    /// Longest time without activity, measured from `active_at`.
    #[serde(rename = "idle_us")]
    pub idle: Span,
    /// Longest age of the last authentication, measured from `authenticated_at`.
    #[serde(rename = "reauth_us")]
    pub reauth: Span,
    /// Longest life, measured from `started_at`.
    #[serde(rename = "lifetime_us")]
    pub lifetime: Span,
}

/// What policy demands of a session for one action. Absent means: no demand of its own.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Demands {
    /// Longest time without activity.
    #[serde(rename = "idle_us", skip_serializing_if = "Option::is_none", default)]
    pub idle: Option<Span>,
    /// Longest age of the last authentication.
    #[serde(rename = "reauth_us", skip_serializing_if = "Option::is_none", default)]
    pub reauth: Option<Span>,
    /// Longest life of the session.
    #[serde(
        rename = "lifetime_us",
        skip_serializing_if = "Option::is_none",
        default
    )]
    pub lifetime: Option<Span>,
    /// Least authenticator assurance level.
    #[serde(rename = "aal", skip_serializing_if = "Option::is_none", default)]
    pub assurance: Option<Aal>,
    /// How far the action's entry must have come before it takes effect, beyond being durable.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub record: Option<RecordLevel>,
}

/// How far an entry has come beyond being durable.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordLevel {
    /// A signed checkpoint covers it.
    Signed,
    /// A quorum of witnesses has cosigned such a checkpoint.
    Witnessed,
    /// A timestamping authority has said when such a checkpoint existed; and a quorum of witnesses has
    /// cosigned one, where there are witnesses.
    Timestamped,
}

impl RecordLevel {
    /// The word for it, in policy and log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Witnessed => "witnessed",
            Self::Timestamped => "timestamped",
        }
    }
}

impl Limits {
    /// Both limits at once: the strictest of each wins.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            idle: self.idle.min(other.idle),
            reauth: self.reauth.min(other.reauth),
            lifetime: self.lifetime.min(other.lifetime),
        }
    }
}

impl Demands {
    /// Both demands at once: the strictest of each wins.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        fn least(a: Option<Span>, b: Option<Span>) -> Option<Span> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (one, None) | (None, one) => one,
            }
        }
        Self {
            idle: least(self.idle, other.idle),
            reauth: least(self.reauth, other.reauth),
            lifetime: least(self.lifetime, other.lifetime),
            assurance: self.assurance.max(other.assurance),
            record: self.record.max(other.record),
        }
    }

    /// The session's limits tightened by these demands.
    #[must_use]
    pub fn within(self, limits: Limits) -> Limits {
        Limits {
            idle: self.idle.map_or(limits.idle, |span| span.min(limits.idle)),
            reauth: self
                .reauth
                .map_or(limits.reauth, |span| span.min(limits.reauth)),
            lifetime: self
                .lifetime
                .map_or(limits.lifetime, |span| span.min(limits.lifetime)),
        }
    }
}

/// Authenticator assurance level (NIST SP 800-63B-4).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Aal {
    /// One factor.
    One,
    /// Two factors.
    Two,
    /// Two factors, one of them bound to hardware and phishing-resistant.
    Three,
}

impl TryFrom<u8> for Aal {
    type Error = &'static str;
    fn try_from(level: u8) -> Result<Self, Self::Error> {
        match level {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            3 => Ok(Self::Three),
            _ => Err("an assurance level is 1, 2 or 3"),
        }
    }
}

impl From<Aal> for u8 {
    fn from(aal: Aal) -> Self {
        match aal {
            Aal::One => 1,
            Aal::Two => 2,
            Aal::Three => 3,
        }
    }
}

/// The moment at which something must stop, and the clock that says so.
///
/// Valid before `at`, over from `at` on. Ordered by moment; on a tie idle, then reauth, then
/// lifetime.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Deadline {
    /// The first moment that is too late.
    pub at: Timestamp,
    /// Which limit runs out then.
    pub cause: DeadlineCause,
}

/// Which of the three limits a deadline comes from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadlineCause {
    /// No activity for too long.
    Idle,
    /// The authentication is too old.
    Reauth,
    /// The session is too old.
    Lifetime,
}

impl fmt::Display for DeadlineCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Reauth => "reauth",
            Self::Lifetime => "lifetime",
        })
    }
}
