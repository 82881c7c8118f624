//! Moments and spans, in whole microseconds. There is no way here to ask what time it is.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment of ledger time: microseconds since 1970-01-01T00:00:00Z.
///
/// Ledger time is the wall clock read once at start, carried on by a clock that counts suspend
/// and never steps. It never runs backwards within one ledger.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last moment that can be told: the end of what RFC 3339 and jiff can write,
    /// 9999-12-30T22:00:00.999999Z.
    pub const MAX: Self = Self(253_402_207_200_999_999);

    /// The moment `micros` microseconds after the Unix epoch, or the last that can be told.
    pub const fn from_micros(micros: u64) -> Self {
        if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Self(micros)
        }
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// This moment plus `span`, or the last moment that can be told.
    pub const fn saturating_add(self, span: Span) -> Self {
        Self::from_micros(self.0.saturating_add(span.0))
    }

    /// This moment less `span`, or the first that can be told.
    pub const fn saturating_sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    /// The span from `earlier` to here; zero when `earlier` lies later.
    pub const fn saturating_since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with six fractional digits: `2026-11-23T16:40:00.123456Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = i64::try_from(self.0)
            .ok()
            .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
            .unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{moment:.6}")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let moment = jiff::Timestamp::deserialize(deserializer)?;
        u64::try_from(moment.as_microsecond())
            .map(Self)
            .map_err(|_| serde::de::Error::custom("a moment before 1970"))
    }
}

/// A length of time in microseconds. In JSON a whole number; the field's name ends in `_us`.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct Span(u64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A span of `micros` microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// A span of `millis` milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// A span of `secs` seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// A span as long as the standard library's duration, or the longest that can be told.
    pub fn from_duration(duration: std::time::Duration) -> Self {
        Self(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }

    /// Microseconds.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// As the standard library's duration, for timers.
    pub const fn as_duration(self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0)
    }
}

impl fmt::Display for Span {
    /// The short form people write in a policy: `5m`, `1h 30m`, `250ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0).unwrap_or(i64::MAX);
        let duration = jiff::SignedDuration::from_micros(micros);
        write!(f, "{duration:#}")
    }
}
