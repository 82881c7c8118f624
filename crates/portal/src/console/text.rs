//! Moments and spans as people read them.

use curfew_entry::{DeadlineCause, Span, Timestamp};

/// A moment to the second, in UTC: `2026-11-23 16:40:00`.
pub(super) fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    let seconds = text
        .split_once('.')
        .map_or(text.as_str(), |(seconds, _)| seconds);
    seconds.trim_end_matches('Z').replacen('T', " ", 1)
}

/// A span to the nearest unit that matters: `8 h 5 min`, `14 min`, `45 s`.
pub(super) fn span(span: Span) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let secs = span.as_duration().as_secs();
    let pair = |big: u64, big_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big} {big_unit}"),
        _ => format!("{big} {big_unit} {small} {small_unit}"),
    };
    match secs {
        0..MINUTE => format!("{secs} s"),
        MINUTE..HOUR => pair(
            secs / MINUTE,
            "min",
            if secs < 10 * MINUTE { secs % MINUTE } else { 0 },
            "s",
        ),
        HOUR..DAY => pair(secs / HOUR, "h", secs % HOUR / MINUTE, "min"),
        _ => pair(secs / DAY, "d", secs % DAY / HOUR, "h"),
    }
}

/// Which clock ends something, in a few words.
pub(super) fn cause(cause: DeadlineCause) -> &'static str {
    match cause {
        DeadlineCause::Idle => "without activity",
        DeadlineCause::Reauth => "without a new sign-in",
        DeadlineCause::Lifetime => "longest duration",
    }
}

/// The first `chars_max` characters, marked where something was left out.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short_and_exact_where_it_matters() {
        let cases = [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (95, "1 min 35 s"),
            (14 * 60 + 59, "14 min"),
            (3_600, "1 h"),
            (3_600 * 8 + 300, "8 h 5 min"),
            (86_400 * 2 + 3_600, "2 d 1 h"),
        ];
        for (secs, wanted) in cases {
            assert_eq!(span(Span::from_secs(secs)), wanted);
        }
    }

    #[test]
    fn moments_are_in_utc_to_the_second() {
        assert_eq!(
            moment(Timestamp::from_micros(1_700_000_000_123_456)),
            "2023-11-14 22:13:20"
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äöü…");
    }
}
