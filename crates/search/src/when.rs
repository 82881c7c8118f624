//! Moments as people write them: `2026-11-23T16:40:00Z`, `2026-11-23 16:40`, `2026-11-23`, `2h`.

use curfew_entry::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo};

/// How a moment may be written, for messages.
pub(crate) const HOW: &str =
    "write a moment as 2026-11-23T16:40:00Z, 2026-11-23 or 2h (two hours ago)";

/// Reads a moment. Without an offset it is in UTC, as entries are; a span lies before `now`.
pub(crate) fn moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    let utc = |at: DateTime| TimeZone::UTC.to_timestamp(at).ok();
    // A span first: `2h` is nothing else, and a bare `2026` is refused by all of them.
    if let Ok(span) = text.parse::<Span>() {
        let days = SpanRelativeTo::days_are_24_hours();
        let back = span.to_duration(days).ok()?.as_micros();
        let back = u64::try_from(back).ok()?;
        return Some(Timestamp::from_micros(now.as_micros().saturating_sub(back)));
    }
    let at = text
        .parse::<jiff::Timestamp>()
        .ok()
        .or_else(|| {
            text.parse::<Date>()
                .ok()
                .filter(|_| text.len() <= 10)
                .and_then(|day| utc(day.into()))
        })
        .or_else(|| text.parse::<DateTime>().ok().and_then(utc))?;
    u64::try_from(at.as_microsecond())
        .ok()
        .map(Timestamp::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        let now: Timestamp = serde_json::from_str("\"2026-11-23T16:40:00Z\"").unwrap();
        for (text, wanted) in [
            ("2h", "2026-11-23T14:40:00.000000Z"),
            ("90s", "2026-11-23T16:38:30.000000Z"),
            ("7d", "2026-11-16T16:40:00.000000Z"),
            ("1h 30m", "2026-11-23T15:10:00.000000Z"),
            ("2026-11-20", "2026-11-20T00:00:00.000000Z"),
            ("2026-11-20T08:00", "2026-11-20T08:00:00.000000Z"),
            ("2026-11-20 08:00:01", "2026-11-20T08:00:01.000000Z"),
            ("2026-11-20T08:00:00+02:00", "2026-11-20T06:00:00.000000Z"),
            ("2026-11-20T08:00:00.5Z", "2026-11-20T08:00:00.500000Z"),
        ] {
            assert_eq!(moment(text, now).unwrap().to_string(), wanted, "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2",
            "-2h",
            "2026-13-01",
            "1 month",
            "1960-01-01",
        ] {
            assert_eq!(moment(text, now), None, "{text}");
        }
    }
}
