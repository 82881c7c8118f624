//! Texts from outside where people read them: what is invisible is spelled out, and a value cannot
//! be taken for what stands around it.

use std::borrow::Cow;
use std::fmt::Write;

/// Characters that show nothing, move the cursor, end lines, or turn the direction of what follows:
/// control characters (C0, DEL, C1), the line and paragraph separators, the bidirectional controls
/// of UAX #9, and what Unicode calls `Default_Ignorable_Code_Point` (zero-width characters, the byte
/// order mark, fillers, variation selectors, tags).
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{17b4}'
                | '\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// The text with each invisible character as `\uXXXX`, two of them for one beyond U+FFFF, as in JSON
/// (RFC 8259 section 7). Within the strings of a JSON text this is the same JSON.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_invisible) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_invisible(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The text as the value of a `name=value` pair: visible, and in quotation marks wherever it could be
/// taken for more than one value or for another pair.
pub fn quoted(text: &str) -> Cow<'_, str> {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\\' | '=' | ',' | '(' | ')');
    if !text.is_empty() && !text.contains(ends) {
        return visible(text);
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push_str(&visible(c.encode_utf8(&mut [0; 4])));
    }
    out.push('"');
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_invisible_is_spelled_out_and_the_rest_is_left_alone() {
        assert!(matches!(visible("SELECT 'ü | \\' 👍"), Cow::Borrowed(_)));
        assert_eq!(
            visible("a\r\nb\0\u{7f}\u{9b}\u{202e}\u{2028}\u{200d}\u{e0041}"),
            "a\\u000d\\u000ab\\u0000\\u007f\\u009b\\u202e\\u2028\\u200d\\udb40\\udc41"
        );
    }

    #[test]
    fn json_stays_the_same_json() {
        let json = serde_json::json!({"a": "\u{9b}\u{202e}\u{e0041}x\u{7f}", "b": ["\u{feff}"]});
        let text = json.to_string();
        let shown = visible(&text);
        assert_ne!(shown, text);
        let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(read, json);
    }

    #[test]
    fn a_value_cannot_feign_another_pair() {
        for plain in ["/orders/7", "sql.read", "ada@example.com", "ü"] {
            assert_eq!(quoted(plain), plain);
        }
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("a subject=root"), "\"a subject=root\"");
        assert_eq!(quoted("a=b"), "\"a=b\"");
        assert_eq!(quoted("a\u{a0}b"), "\"a\u{a0}b\"");
        assert_eq!(quoted("\" kind=x\\"), "\"\\\" kind=x\\\\\"");
        assert_eq!(quoted("\u{1b}[2J"), "\\u001b[2J");
        assert_eq!(quoted("a\nb"), "\"a\\u000ab\"");
    }
}
