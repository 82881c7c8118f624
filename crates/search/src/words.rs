//! Words: what a text is cut into, the same way in entries and in questions.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The longest word in bytes. Longer ones are cut, in entries and in questions alike; a SHA-256 in
/// hexadecimal has 64.
pub(crate) const WORD_BYTES_MAX: usize = 64;

/// Length of a moment as entries write it: `2026-11-23T16:40:00.123456Z`.
const MOMENT_BYTES: usize = 27;

/// Hands on each word of a text, in lower case. A word is letters, digits and `_`; what has a `_`
/// inside is a word as a whole and, in entries, one more for each part.
pub(crate) fn words(text: &str, parts: bool, take: &mut impl FnMut(&str)) {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for found in text.split(|c| !is_word(c)).filter(|word| !word.is_empty()) {
        let lower = found.to_lowercase();
        let whole = cut(&lower);
        take(whole);
        if parts && lower.contains('_') {
            for part in lower.split('_') {
                if !part.is_empty() && part.len() < lower.len() {
                    take(cut(part));
                }
            }
        }
    }
}

fn cut(word: &str) -> &str {
    word.get(..word.floor_char_boundary(WORD_BYTES_MAX))
        .unwrap_or(word)
}

/// Hands on each word of an entry: of all its values that are texts, but moments.
/// What is no JSON has no words.
pub(crate) fn words_of_entry(entry: &[u8], take: &mut impl FnMut(&str)) {
    let mut json = serde_json::Deserializer::from_slice(entry);
    // A broken entry has the words before the break; the ledger's verifier judges it.
    let _ = Texts(&mut |text: &str| {
        if !is_moment(text) {
            words(text, true, take);
        }
    })
    .deserialize(&mut json);
}

fn is_moment(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == MOMENT_BYTES && bytes.ends_with(b"Z") && bytes.get(10) == Some(&b'T')
}

/// Walks over a JSON value and hands on its texts, keys left out.
struct Texts<'f, F>(&'f mut F);

impl<'de, F: FnMut(&str)> DeserializeSeed<'de> for Texts<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(&str)> Visitor<'de> for Texts<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        (self.0)(text);
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Texts(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_key::<Skipped>()?.is_some() {
            fields.next_value_seed(Texts(&mut *self.0))?;
        }
        Ok(())
    }
}

/// A key, not looked at.
struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, parts: bool) -> Vec<String> {
        let mut found = Vec::new();
        words(text, parts, &mut |word| found.push(word.to_owned()));
        found
    }

    #[test]
    fn a_text_is_cut_into_words() {
        assert_eq!(
            of("SELECT count(*) FROM Orders", true),
            ["select", "count", "from", "orders"]
        );
        assert_eq!(of("user_id", true), ["user_id", "user", "id"]);
        assert_eq!(of("user_id", false), ["user_id"]);
        assert_eq!(of("/a/Ünder?x=1", true), ["a", "ünder", "x", "1"]);
        assert_eq!(of(" .,- ", true), [""; 0]);
        assert_eq!(of("_", true), ["_"]);
        let long = "é".repeat(100);
        let cut = of(&long, true).remove(0);
        assert!(cut.len() <= WORD_BYTES_MAX && long.starts_with(&cut));
    }

    #[test]
    fn the_words_of_an_entry_are_those_of_its_values() {
        let entry = br#"{"v":1,"time":"2026-11-23T16:40:00.123456Z","kind":"action.allowed","demands":{"a":[true,null,-1,1.5,"Deep er"]}}"#;
        let mut found = Vec::new();
        words_of_entry(entry, &mut |word| found.push(word.to_owned()));
        assert_eq!(found, ["action", "allowed", "deep", "er"]);
        words_of_entry(b"\xff{", &mut |word| panic!("{word}"));
    }
}
