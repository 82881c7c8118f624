//! What is wrong with a configuration or a policy is told with file, line and a hint.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod common;

use common::{CONFIG, POLICY, Place};

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let ran = Place::new(&CONFIG.replace("portal", "portall"), POLICY).run(&["serve"]);
    assert_eq!(ran.code(), Some(2));
    let text = ran.err();
    assert!(text.contains("unknown field `portall`"), "{text}");
    assert!(text.contains("curfew.toml:4"), "{text}");
    assert!(text.contains("docs/configuration.md"), "{text}");
}

#[test]
fn a_policy_without_a_lifetime_is_refused_with_its_line() {
    let place = Place::new(CONFIG, &POLICY.replace(r#" @lifetime("24h")"#, ""));
    for arguments in [&["serve"][..], &["policy", "check", "policy.cedar"]] {
        let ran = place.run(arguments);
        assert_eq!(ran.code(), Some(2), "{arguments:?}");
        let text = ran.err();
        assert!(text.contains("lifetime"), "{text}");
        assert!(
            text.contains("policy.cedar:1") || text.contains("policy.cedar:2"),
            "{text}"
        );
    }
}

#[test]
fn a_missing_file_and_an_unfit_certificate_are_named() {
    let place = Place::new(CONFIG, POLICY);
    let ran = place.run(&["serve", "--config", "elsewhere.toml"]);
    assert_eq!(ran.code(), Some(2));
    assert!(ran.err().contains("elsewhere.toml"), "{}", ran.err());
    let ran = place.run(&["serve"]);
    assert_eq!(ran.code(), Some(2));
    assert!(ran.err().contains("certificate.pem"), "{}", ran.err());
    assert!(ran.err().contains("`curfew init`"), "{}", ran.err());
}

#[test]
fn a_policy_that_names_what_is_not_configured_is_refused() {
    let rule = r#"@id("x") permit (principal, action == Action::"web.read", resource == Resource::"shpo");"#;
    let place = Place::new(CONFIG, &format!("{POLICY}{rule}\n"));
    place.run(&["policy", "check", "policy.cedar"]).ok();
    let ran = place.run(&["policy", "check", "policy.cedar", "--config", "curfew.toml"]);
    assert_eq!(ran.code(), Some(2));
    assert!(ran.err().contains("no resource `shpo`"), "{}", ran.err());
}

#[test]
fn explain_names_the_rule_of_each_limit() {
    let erase = r#"@id("erasers") permit (principal, action == Action::"log.erase", resource == Resource::"gateway");"#;
    let place = Place::new(CONFIG, &format!("{POLICY}{erase}\n"));
    let explained = |action: &str| {
        let asked = ["policy", "explain", "--subject", "ana", "--action", action];
        place.run(&asked)
    };
    let text = explained("session.start").ok().out();
    assert!(
        text.contains("permitted") && text.contains("from sessions"),
        "{text}"
    );
    let text = explained("log.erase").ok().out();
    let built_in = text.lines().find(|line| line.contains("built in"));
    let built_in = built_in.unwrap_or_else(|| panic!("{text}"));
    assert!(built_in.contains("reauth     5m"), "{text}");
    assert_eq!(explained("log.read").code(), Some(4));
    assert!(
        explained("log.raed").err().contains("log.read"),
        "the actions are listed"
    );
}
