//! The bytes of an entry: one canonical JSON object, `v`, `time`, `kind`, then the kind's fields.

mod fast;

use serde::Deserialize;

use crate::event::{ENTRY_BYTES_MAX, Entry, EntryError, Event};
use crate::time::Timestamp;

/// The version of the entries this program writes and reads.
const VERSION: u64 = 1;

impl Entry {
    /// The canonical JSON form, without a line end.
    ///
    /// # Errors
    ///
    /// [`EntryError::TooLarge`] where it exceeds [`ENTRY_BYTES_MAX`]; what
    /// [`crate::Authority::decide`] gives never does.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EntryError> {
        let mut bytes = Vec::with_capacity(512);
        self.write(&mut bytes)?;
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), EntryError> {
        bytes.extend_from_slice(b"{\"v\":1,\"time\":");
        serde_json::to_writer(&mut *bytes, &self.time)?;
        let brace = bytes.len();
        serde_json::to_writer(&mut *bytes, &self.event)?;
        // The event is an object of its own: its opening brace becomes the comma.
        if let Some(byte) = bytes.get_mut(brace) {
            *byte = b',';
        }
        Ok(())
    }

    /// Reads the canonical form and no other.
    ///
    /// # Errors
    ///
    /// See [`EntryError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge(bytes.len()));
        }
        match fast::read(bytes) {
            Some(entry) => Ok(entry),
            None => Self::from_bytes_plainly(bytes),
        }
    }

    /// Reads, writes again and compares: what defines the language.
    fn from_bytes_plainly(bytes: &[u8]) -> Result<Self, EntryError> {
        let entry = Self::read(bytes)?;
        let mut again = Vec::with_capacity(bytes.len());
        entry.write(&mut again)?;
        // This also refuses unknown and repeated fields, other orders, other spellings.
        if again != bytes {
            return Err(EntryError::NotCanonical);
        }
        Ok(entry)
    }

    fn read(bytes: &[u8]) -> Result<Self, EntryError> {
        let head: Head = serde_json::from_slice(bytes)?;
        if head.v != VERSION {
            return Err(EntryError::Version(head.v));
        }
        let time = head.time.ok_or_else(|| missing("time"))?;
        // The event ignores the two fields before it.
        let event: Event = serde_json::from_slice(bytes)?;
        Ok(Self { time, event })
    }
}

#[derive(Deserialize)]
struct Head {
    v: u64,
    // Optional, so that an entry of a later version is told as such whatever it holds.
    time: Option<Timestamp>,
}

fn missing(field: &'static str) -> EntryError {
    EntryError::Malformed(serde::de::Error::missing_field(field))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    const GOLDEN: &str = include_str!("../tests/golden/entries.jsonl");

    /// Entries of the kinds read fast, with what the golden file has only once each.
    const MORE: &[&str] = &[
        r#"{"v":1,"time":"2024-02-29T23:59:59.999999Z","kind":"action.allowed","session":"s_00112233445566778899aabb","verb":"web.read","resource":"wiki","path":"/\\\"a\n\t\r\b\fü","rules":[],"demands":{"reauth_us":0,"aal":1}}"#,
        r#"{"v":1,"time":"1970-01-01T00:00:00.000000Z","kind":"action.denied","session":"s_00112233445566778899aabb","verb":"web.read","resource":"wiki","cause":"not_permitted"}"#,
        r#"{"v":1,"time":"9999-12-29T22:00:00.999999Z","kind":"action.closed","session":"s_00112233445566778899aabb","action":0,"by":"upstream","closed":"2000-02-29T00:00:00.000000Z","bytes_in":18446744073709551615,"bytes_out":0}"#,
        r#"{"v":1,"time":"2100-03-01T00:00:00.000000Z","kind":"action.allowed","session":"s_00112233445566778899aabb","verb":"web.read","resource":"wiki","context":{"address":"::ffff:192.0.2.1","network":"x"},"rules":["a"],"demands":{"aal":3}}"#,
        r#"{"v":1,"time":"2024-02-29T23:59:59.999999Z","kind":"action.allowed","session":"s_00112233445566778899aabb","verb":"web.write","resource":"wiki","rules":["a"],"demands":{"record":"witnessed"}}"#,
        r#"{"v":1,"time":"2024-02-29T23:59:59.999999Z","kind":"action.allowed","session":"s_00112233445566778899aabb","verb":"web.write","resource":"wiki","rules":["a"],"demands":{"idle_us":7,"aal":2,"record":"signed"}}"#,
        r#"{"v":1,"time":"2024-02-29T23:59:59.999999Z","kind":"action.denied","session":"s_00112233445566778899aabb","verb":"web.read","resource":"wiki","concealed":{"path":"0000000000000000000000000000000000000000000000000000000000000000","search":"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"},"cause":"forbidden"}"#,
    ];

    /// Pieces that bend an entry without breaking its JSON, or nearly so.
    const PIECES: &[&str] = &[
        "\"",
        "\\",
        "\\u001f",
        "\\u0041",
        "\\/",
        "\\n",
        " ",
        ",",
        "}",
        "{}",
        "[]",
        "0",
        "00",
        "1e1",
        "-1",
        "18446744073709551616",
        "null",
        "true",
        "false",
        "\u{7f}",
        "ü",
        "2023-02-29",
        "24:00:00",
        "23:59:60",
        ",\"passive\":false",
        ",\"passive\":true",
        ",\"demands\":{}",
        "\"record\":\"signed\"",
        ",\"record\":\"durable\"",
        ",\"rules\":[]",
        ",\"concealed\":{}",
        "\"client\":\"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\",",
        "+00:00",
        "9999-12-31",
        "1969-12-31",
        "::FFFF",
        "010.0.0.1",
    ];

    fn agree(bytes: &[u8]) {
        let plain = Entry::from_bytes_plainly(bytes).ok();
        if let Some(fast) = fast::read(bytes) {
            assert_eq!(Some(fast), plain, "{}", String::from_utf8_lossy(bytes));
        }
    }

    fn lines() -> Vec<&'static str> {
        GOLDEN.lines().chain(MORE.iter().copied()).collect()
    }

    #[test]
    fn the_common_kinds_are_read_fast() {
        for line in lines() {
            assert!(Entry::from_bytes(line.as_bytes()).is_ok(), "{line}");
            agree(line.as_bytes());
            let common = line.contains("\"kind\":\"action.") || line.contains("session.active");
            assert_eq!(fast::read(line.as_bytes()).is_some(), common, "{line}");
        }
    }

    #[test]
    fn every_change_of_one_byte_is_judged_alike() {
        for line in lines() {
            let mut bytes = line.as_bytes().to_vec();
            for at in 0..bytes.len() {
                let kept = bytes[at];
                for other in *b"\"\\{}[],:019azZ-. \n\x1f\x80" {
                    bytes[at] = other;
                    agree(&bytes);
                }
                bytes[at] = kept;
                agree(&bytes[..at]);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn what_is_read_fast_is_read_plainly_as_well(
            line in any::<Index>(),
            edits in prop::collection::vec((any::<Index>(), 0_usize..8, any::<Index>()), 1..4),
        ) {
            let lines = lines();
            let mut bytes = lines[line.index(lines.len())].as_bytes().to_vec();
            for (at, cut, piece) in edits {
                let at = at.index(bytes.len() + 1);
                let end = (at + cut).min(bytes.len());
                let piece = PIECES[piece.index(PIECES.len())];
                bytes.splice(at..end, piece.bytes());
            }
            agree(&bytes);
        }
    }
}
