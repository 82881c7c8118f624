//! The form of entries is for ever: these lines must be read, and written again byte for byte.

use std::collections::BTreeSet;

use curfew_entry::{ENTRY_BYTES_MAX, Entry, EntryError};
use proptest::prelude::*;

const GOLDEN: &str = include_str!("golden/entries.jsonl");

/// What tells others of the form.
const DOCS: &str = include_str!("../../../docs/ledger.md");

/// How many kinds of entry there are. One more kind needs one more line.
const KINDS: usize = 41;

#[test]
fn golden_entries_are_read_and_written_as_they_stand() {
    let mut kinds = BTreeSet::new();
    for line in GOLDEN.lines() {
        let entry = match Entry::from_bytes(line.as_bytes()) {
            Ok(entry) => entry,
            Err(error) => panic!("{error}: {line}"),
        };
        assert_eq!(String::from_utf8(entry.to_bytes().unwrap()).unwrap(), line);
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        kinds.insert(json["kind"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds.len(), KINDS, "{kinds:?}");
}

#[test]
fn the_documentation_shows_an_example_of_each_kind() {
    let (_, rest) = DOCS.split_once("```jsonl\n").unwrap();
    let (shown, _) = rest.split_once("```").unwrap();
    let (mut shown, mut golden) = (shown.lines(), GOLDEN.lines());
    loop {
        let (shown, golden) = (shown.next(), golden.next());
        assert_eq!(
            shown, golden,
            "docs/ledger.md and golden/entries.jsonl differ"
        );
        if golden.is_none() {
            return;
        }
    }
}

#[test]
fn only_the_canonical_form_is_read() {
    let line = GOLDEN
        .lines()
        .find(|line| line.contains("sql.read"))
        .unwrap();
    let ended = GOLDEN
        .lines()
        .find(|line| line.contains("session.ended"))
        .unwrap();
    let refused = |text: String| Entry::from_bytes(text.as_bytes()).unwrap_err();
    let canonical = |text: String| matches!(refused(text), EntryError::NotCanonical);
    assert!(canonical(line.replacen('{', "{ ", 1)));
    assert!(canonical(format!("{line}\n")));
    assert!(canonical(line.replace("\"rules\"", "\"more\":1,\"rules\"")));
    assert!(canonical(
        ended.replace("\"reason\"", "\"more\":1,\"reason\"")
    ));
    assert!(canonical(
        line.replace("\"passive\":true,", "\"passive\":false,")
    ));
    assert!(canonical(line.replace(".000119Z", ".000119+00:00")));
    assert!(canonical(line.replace("SELECT", "\\u0053ELECT")));
    // A field of another kind of action.
    assert!(canonical(
        line.replace("\"demands\"", "\"cause\":\"forbidden\",\"demands\"")
    ));
    assert!(matches!(
        refused(line.replace("\"v\":1", "\"v\":2")),
        EntryError::Version(2)
    ));
    assert!(matches!(
        refused("{\"v\":9,\"future\":true}".to_owned()),
        EntryError::Version(9)
    ));
    let malformed = |text: String| matches!(refused(text), EntryError::Malformed(_));
    assert!(malformed(line.replace("action.allowed", "action.dreamt")));
    assert!(malformed(line.replace("action.allowed", "action.denied")));
    assert!(malformed(line.replace("\"verb\":\"sql.read\",", "")));
    assert!(malformed(line.replace("s_00", "s_0")));
    assert!(malformed("{\"v\":1}".to_owned()));
    assert!(malformed(String::new()));
    let long = " ".repeat(ENTRY_BYTES_MAX + 1);
    assert!(matches!(refused(long), EntryError::TooLarge(_)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is read is written back as it was, and nothing makes reading fail otherwise.
    #[test]
    fn altered_bytes_are_refused_or_mean_what_they_say(
        place in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        len in 0..3_usize,
    ) {
        let lines: Vec<&str> = GOLDEN.lines().collect();
        let mut bytes = place.get(&lines).as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes.splice(at..(at + len).min(bytes.len()), [byte]);
        if let Ok(entry) = Entry::from_bytes(&bytes) {
            prop_assert_eq!(entry.to_bytes().unwrap(), bytes);
        }
    }
}
