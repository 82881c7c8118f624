//! What an entry says, for people: each field with its value, in words, and nothing of it invisible.

use curfew_entry::{Span, visible};
use serde_json::Value;

use super::text;

/// Characters of a hash that are shown: enough to tell two apart.
const HASH_CHARS: usize = 12;

/// A field of an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Detail {
    pub(super) name: String,
    pub(super) value: String,
}

impl Detail {
    /// What stands for those that were left out.
    pub(super) fn more() -> Self {
        Self {
            name: String::new(),
            value: "…".to_owned(),
        }
    }
}

/// The text of a field; empty where it has none.
pub(super) fn text_of(entry: &Value, field: &str) -> String {
    let text = entry.get(field).and_then(Value::as_str);
    visible(text.unwrap_or_default()).into_owned()
}

/// All fields, in the order in which the JSON reader gives them.
pub(super) fn fields(entry: &Value) -> Vec<Detail> {
    let fields = entry.as_object().into_iter().flatten();
    fields
        .map(|(name, value)| Detail {
            name: visible(name.strip_suffix("_us").unwrap_or(name)).into_owned(),
            value: plain(name, value, true),
        })
        .collect()
}

/// A value in a few words: lists with commas, spans as people write them, hashes by their head. Within
/// others a text is in quotation marks where it could be taken for more than one.
fn plain(name: &str, value: &Value, alone: bool) -> String {
    match value {
        Value::String(text) if is_hash(text) => text::cut(text, HASH_CHARS),
        Value::String(text) if alone => {
            let words: Vec<&str> = text.split_whitespace().collect();
            visible(&words.join(" ")).into_owned()
        }
        Value::String(text) => curfew_entry::quoted(text).into_owned(),
        Value::Number(number) if name.ends_with("_us") && name != "boot_us" => {
            number.as_u64().map_or_else(
                || number.to_string(),
                |us| Span::from_micros(us).to_string(),
            )
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| plain(name, item, false)).collect();
            items.join(", ")
        }
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(name, value)| {
                let shown = name.strip_suffix("_us").unwrap_or(name);
                format!("{} {}", visible(shown), plain(name, value, false))
            });
            pairs.collect::<Vec<_>>().join(", ")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_for_people() {
        let entry = serde_json::json!({
            "kind": "x", "roles": ["a", "b, c"], "limits": {"idle_us": 900_000_000_u64},
            "hash": "0123456789abcdef".repeat(4), "text": "a\n  b", "passive": true,
            "statement": "SELECT \u{202e}1\u{1b}[2J", "by": {"host": "a idle 1"},
        });
        let mut told: Vec<_> = fields(&entry)
            .into_iter()
            .map(|detail| (detail.name, detail.value))
            .collect();
        told.sort();
        let wanted = [
            ("by", "host \"a idle 1\""),
            ("hash", "0123456789ab…"),
            ("kind", "x"),
            ("limits", "idle 15m"),
            ("passive", "true"),
            ("roles", "a, \"b, c\""),
            ("statement", "SELECT \\u202e1\\u001b[2J"),
            ("text", "a b"),
        ];
        let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(told, wanted);
    }
}
