//! What clients without a live session tried, where that is told in numbers.

use serde::{Deserialize, Serialize};

use super::notes::is_default;
use crate::time::Timestamp;

/// How many attempts have no entries of their own, since when, and from how many addresses.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AttemptsSummarized {
    /// When the first of them came.
    pub since: Timestamp,
    /// From how many addresses, an IPv6 /64 being one: no fewer than this many, since what counts
    /// them holds a limited number.
    pub addresses: u64,
    /// How many of each kind.
    pub counts: Attempts,
}

/// How many attempts of each kind, by the kind of entry that each would have had. A kind of which
/// there were none is left out.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Attempts {
    /// Sign-ins that were refused.
    #[serde(
        rename = "sign_in.refused",
        default,
        skip_serializing_if = "is_default"
    )]
    pub sign_in_refused: u64,
    /// Further uses of credentials of ended sessions. The first of each session has its own entry.
    #[serde(
        rename = "session.used_after_end",
        default,
        skip_serializing_if = "is_default"
    )]
    pub session_used_after_end: u64,
    /// Credentials that Curfew never issued.
    #[serde(
        rename = "credential.unknown",
        default,
        skip_serializing_if = "is_default"
    )]
    pub credential_unknown: u64,
    /// Credentials of live sessions that opened nothing.
    #[serde(
        rename = "credential.refused",
        default,
        skip_serializing_if = "is_default"
    )]
    pub credential_refused: u64,
    /// Device codes (RFC 8628) that were not given out, since too many waited. These have no entries
    /// of their own at all.
    #[serde(rename = "device.refused", default, skip_serializing_if = "is_default")]
    pub device_refused: u64,
}

impl Attempts {
    /// These and those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            sign_in_refused: self.sign_in_refused.saturating_add(other.sign_in_refused),
            session_used_after_end: self
                .session_used_after_end
                .saturating_add(other.session_used_after_end),
            credential_unknown: self
                .credential_unknown
                .saturating_add(other.credential_unknown),
            credential_refused: self
                .credential_refused
                .saturating_add(other.credential_refused),
            device_refused: self.device_refused.saturating_add(other.device_refused),
        }
    }

    /// All of them together.
    pub fn total(&self) -> u64 {
        [
            self.sign_in_refused,
            self.session_used_after_end,
            self.credential_unknown,
            self.credential_refused,
            self.device_refused,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}
