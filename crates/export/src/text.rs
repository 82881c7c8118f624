//! Text that cannot break out of its place: what is invisible is spelled out.

use std::borrow::Cow;
use std::fmt::Write;

/// Characters that move the cursor, end lines, or turn the direction of what follows.
///
/// Besides the control characters of Unicode (C0, DEL, C1): the line and paragraph separators,
/// the bidirectional controls of UAX #9, the byte order mark and the zero-width space.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The text with each invisible character as `\uXXXX`. In a JSON text this is the same JSON.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_invisible) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_invisible(c) {
            // All of them lie in the basic plane, so four digits are enough.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// At most `bytes_max` bytes of the text, cut between characters and marked with `…`.
pub(crate) fn cut(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    const MARK: &str = "…";
    let mut end = bytes_max.saturating_sub(MARK.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}{MARK}", text.get(..end).unwrap_or_default()))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_invisible_is_spelled_out_and_the_rest_is_left_alone() {
        assert!(matches!(visible("SELECT 'ü | \\'"), Cow::Borrowed(_)));
        assert_eq!(
            visible("a\r\nb\0\u{7f}\u{9b}\u{202e}\u{2028}"),
            "a\\u000d\\u000ab\\u0000\\u007f\\u009b\\u202e\\u2028"
        );
    }

    #[test]
    fn cutting_keeps_characters_whole() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("äöüäöü", 8), "äö…");
        assert_eq!(cut("ä", 1), "…");
    }
}
