//! Accounts by the operator, with no gateway running: each change is an entry of the log.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod common;

use common::{CONFIG, POLICY, Place};
use serde_json::Value;

const PASSWORD: &str = "a long enough one 42\n";

fn kinds_of_change(place: &Place) -> Vec<String> {
    let ledger = place.path().join("data/ledger");
    let reader = curfew_verify::ledger::LogReader::open(&ledger).unwrap();
    let entries = reader.range(0..reader.size()).map(|entry| entry.unwrap().1);
    let entries = entries.map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
    entries
        .filter(|entry| entry["kind"] == "account.changed")
        .map(|entry| entry["change"].to_string())
        .collect()
}

#[test]
fn accounts_are_added_listed_disabled_and_renewed_and_all_is_recorded() {
    let place = Place::new(CONFIG, POLICY);
    let key = place.run(&["init"]).ok().out();
    assert!(key.starts_with("curfew.test/log+"), "{key}");
    assert_eq!(
        place.run(&["init"]).code(),
        Some(1),
        "keys are never overwritten"
    );

    let add = [
        "user",
        "add",
        "ana",
        "--role",
        "analyst",
        "--password-stdin",
    ];
    let text = place.run_with(&add, PASSWORD).ok().out();
    assert!(text.contains("otpauth://totp/"), "{text}");
    assert_eq!(
        place.run_with(&add, PASSWORD).code(),
        Some(1),
        "the name is taken"
    );
    let weak = [
        "user",
        "add",
        "bob",
        "--role",
        "analyst",
        "--password-stdin",
    ];
    assert_eq!(place.run_with(&weak, "short\n").code(), Some(1));

    place.run(&["user", "disable", "ana"]).ok();
    let listed = place.run(&["user", "list"]).ok().out();
    assert!(
        listed.contains("ana") && listed.contains("disabled"),
        "{listed}"
    );
    place.run(&["user", "enable", "ana"]).ok();
    place
        .run_with(
            &["user", "passwd", "ana", "--password-stdin"],
            "another long one 43\n",
        )
        .ok();
    let json = place.run(&["user", "totp", "ana", "--json"]).ok().out();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["enrolled"]["secret"].is_string(), "{json}");

    let changes = kinds_of_change(&place);
    let wanted = [
        r#"{"added":["analyst"]}"#,
        r#""disabled""#,
        r#""enabled""#,
        r#""password_set""#,
        r#""totp_set""#,
    ];
    assert_eq!(changes, wanted);
    let report = place.run(&["log", "verify"]).ok().out();
    assert!(report.contains("integrity   ✓ proven"), "{report}");
    assert!(report.contains("legitimacy  ✓ proven"), "{report}");
}

#[test]
fn what_needs_a_sign_in_says_so() {
    let place = Place::new(CONFIG, POLICY);
    for arguments in [
        &["whoami"][..],
        &["sessions", "list"],
        &["psql", "orders"],
        &["token"],
    ] {
        let ran = place.run(arguments);
        assert_eq!(ran.code(), Some(3), "{arguments:?}");
        assert!(ran.err().contains("curfew login"), "{}", ran.err());
    }
    let ran = place.run(&["whoami", "--server", "http://curfew.test"]);
    assert_eq!(ran.code(), Some(2), "a token never goes over plain http");
}

/// More than an entry can name: nothing is made that the log does not tell of.
#[test]
fn an_account_that_cannot_be_recorded_is_not_made() {
    let place = Place::new(CONFIG, POLICY);
    place.run(&["init"]).ok();
    let roles: Vec<String> = (0..257).map(|number| format!("role-{number}")).collect();
    let mut add = vec!["user", "add", "ana", "--password-stdin"];
    for role in &roles {
        add.extend(["--role", role.as_str()]);
    }
    let ran = place.run_with(&add, PASSWORD);
    assert_eq!(ran.code(), Some(1));
    assert!(ran.err().contains("257 roles"), "{}", ran.err());
    let listed = place.run(&["user", "list"]).ok().out();
    assert!(!listed.contains("ana"), "{listed}");
    assert!(kinds_of_change(&place).is_empty());
    // Of what does not exist nothing is recorded either.
    for arguments in [&["user", "disable", "bob"][..], &["user", "totp", "bob"]] {
        let ran = place.run(arguments);
        assert_eq!(ran.code(), Some(1));
        assert!(ran.err().contains("no account named bob"), "{}", ran.err());
    }
    assert!(kinds_of_change(&place).is_empty());
    let fewer = [
        "user",
        "add",
        "ana",
        "--role",
        "analyst",
        "--password-stdin",
    ];
    place.run_with(&fewer, PASSWORD).ok();
    assert_eq!(kinds_of_change(&place).len(), 1);
}
