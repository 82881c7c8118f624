//! The form of what is kept is for ever: these texts must be read by every later version.

use curfew_authority::{AUDITOR_FORM, Auditor, Policy, RecallError};
use curfew_entry::Entry;
use proptest::prelude::*;

const GOLDEN: &str = include_str!("../../entry/tests/golden/entries.jsonl");

#[test]
fn the_golden_policy_still_passes() {
    let line = GOLDEN
        .lines()
        .find(|line| line.contains("policy.loaded"))
        .unwrap();
    let json: serde_json::Value = serde_json::from_str(line).unwrap();
    let text = json["text"].as_str().unwrap();
    let policy = Policy::parse("golden.cedar", text).unwrap();
    assert_eq!(policy.digest().as_str(), json["digest"].as_str().unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every text is a policy or refused with problems that have a place in it.
    #[test]
    fn no_text_breaks_the_policy_checks(
        parts in prop::collection::vec(prop::sample::select(vec![
            "@id(\"a\")", "@id(\"é\")", "@idle(\"5m\")", "@idle(\"\")", "@idle", "@", "permit", "forbid",
            "(principal, action, resource)", "(principal, action == Action::\"sql.read\", resource)",
            "when { context.aal > 1 }", "when { \"//;@id\" == \"\\\"\" }", ";", "// ;@id(\"x\")\n", "\u{a0}", "\n", "é", "\"",
        ]), 0..12),
    ) {
        let text = parts.concat();
        if let Err(error) = Policy::parse("p.cedar", &text) {
            prop_assert!(!error.problems().is_empty());
            for problem in error.problems() {
                let (line, column) = problem.place();
                prop_assert!(line >= 1 && column >= 1);
            }
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

/// What stands for entries that are gone must be read for ever.
#[test]
fn an_auditor_that_stands_for_entries_is_read_by_every_later_version() {
    const KEPT: &str = include_str!("golden/heir-2.json");
    /// How many lines there were when it was kept.
    const KEPT_ENTRIES: usize = 41;
    let mut auditor = Auditor::new();
    for (index, line) in (0..).zip(GOLDEN.lines().take(KEPT_ENTRIES)) {
        auditor.check(index, &Entry::from_bytes(line.as_bytes()).unwrap());
    }
    let inherited = Auditor::inherit(KEPT.trim_end().as_bytes()).unwrap();
    assert_eq!(inherited.authority(), auditor.authority());
    let kept = String::from_utf8(auditor.bequeath().unwrap()).unwrap();
    let same = Auditor::inherit(kept.as_bytes()).unwrap();
    assert_eq!(same.authority(), auditor.authority());
    let form = format!("\"form\":{AUDITOR_FORM}");
    let later = kept.replacen(&form, "\"form\":3000", 1);
    assert!(matches!(
        Auditor::inherit(later.as_bytes()),
        Err(RecallError::Later(3000))
    ));
    Auditor::inherit(b"{}").unwrap_err();
}
