//! `curfew check`: what `curfew serve` would start with, and not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod common;

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use common::{CONFIG, POLICY, Place};
use serde_json::Value;

const PORTAL: &str = "curfew.localhost";

/// Everything as it should be.
fn good() -> Place {
    let place = Place::new(CONFIG, POLICY);
    place.certify(&[PORTAL]);
    place.run(&["init"]).ok();
    place
}

/// What it finds besides what this machine is like.
fn found(place: &Place) -> Vec<(String, String, String)> {
    let ran = place.run(&["check", "--json"]);
    let json: Value = serde_json::from_str(&ran.out()).unwrap();
    let text = |problem: &Value, field: &str| problem[field].as_str().unwrap().to_owned();
    let all = json["problems"].as_array().unwrap();
    let told: Vec<_> = all
        .iter()
        .map(|it| (text(it, "severity"), text(it, "place"), text(it, "what")))
        .filter(|(_, place, _)| {
            !["clock", "[tuning]", "data"].contains(&place.as_str()) || all.is_empty()
        })
        .collect();
    let errors = all.iter().any(|it| it["severity"] == "error");
    assert_eq!(ran.code(), Some(if errors { 2 } else { 0 }), "{json}");
    assert!(all.iter().all(|it| !text(it, "fix").is_empty()), "{json}");
    told
}

#[track_caller]
fn finds(place: &Place, severity: &str, wanted: &str) {
    let found = found(place);
    let hit = found
        .iter()
        .any(|(grave, _, what)| grave == severity && what.contains(wanted));
    assert!(hit, "{severity}: {wanted} in {found:?}");
}

/// `serve` says the same and does not start.
#[track_caller]
fn refuses(place: &Place, wanted: &str) {
    finds(place, "error", wanted);
    let ran = place.run(&["serve"]);
    assert_eq!(ran.code(), Some(2), "{}", ran.err());
    assert!(ran.err().contains(wanted), "{}", ran.err());
}

#[test]
fn what_is_as_it_should_be_has_no_problem() {
    assert_eq!(found(&good()), []);
}

#[test]
fn a_folder_that_was_not_made_and_another_logs_name_stop_it() {
    let place = Place::new(CONFIG, POLICY);
    place.certify(&[PORTAL]);
    let ran = place.run(&["check"]);
    assert_eq!(ran.code(), Some(2));
    assert!(ran.out().contains("curfew init"), "{}", ran.out());
    place.run(&["init"]).ok();
    let other = CONFIG.replace("curfew.test/log", "other.test/log");
    std::fs::write(place.path().join("curfew.toml"), other).unwrap();
    refuses(&place, "the log in");
}

#[test]
fn certificates_that_are_of_no_use_and_secrets_that_others_read_stop_it() {
    let place = good();
    place.certify(&["elsewhere.localhost"]);
    refuses(&place, "does not name curfew.localhost");
    place.certify(&[PORTAL]);
    let key = place.path().join("certificate.key");
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    refuses(&place, "open to everybody");
    std::fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    finds(&place, "warning", "open to a group");
    let strict = place.run(&["check", "--offline", "--strict"]);
    assert_eq!(strict.code(), Some(2));
}

#[test]
fn what_is_behind_it_and_cannot_be_reached_is_told() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let behind = format!(
        "[[web]]\nname = \"shop\"\nenvironment = \"x\"\nhost = \"shop.localhost\"\n\
         upstream = \"http://{address}\"\n\
         [[postgres]]\nname = \"orders\"\nenvironment = \"x\"\nhost = \"127.0.0.1\"\nport = {}\n\
         database = \"d\"\nuser = \"u\"\ntls = \"disable\"\ntrust = \"classifier\"\n",
        address.port()
    );
    let listen = "[listen]\npostgres = \"127.0.0.1:0\"";
    let config = CONFIG.replace("[listen]", listen) + &behind;
    let place = Place::new(&config, POLICY);
    place.certify(&[PORTAL, "shop.localhost"]);
    place.run(&["init"]).ok();
    finds(&place, "warning", "cannot be reached");
    finds(&place, "warning", "cannot be used");
    let offline = place.run(&["check", "--offline", "--json"]).out();
    assert!(!offline.contains("cannot be"), "{offline}");
}

#[test]
fn a_port_that_is_taken_and_a_wrong_configuration_are_in_the_list() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let place = Place::new(&CONFIG.replace("127.0.0.1:0", &address), POLICY);
    place.certify(&[PORTAL]);
    place.run(&["init"]).ok();
    finds(&place, "error", "cannot listen on");
    let wrong = CONFIG.replace("curfew.localhost", "curfew.localhost:8443");
    std::fs::write(place.path().join("curfew.toml"), wrong).unwrap();
    finds(&place, "error", "is not a host name");
}

#[test]
fn a_role_that_no_rule_speaks_of_is_told() {
    let place = good();
    let rule = r#"@id("x") permit (principal in Role::"analyst", action == Action::"log.read", resource == Resource::"gateway");"#;
    std::fs::write(
        place.path().join("policy.cedar"),
        format!("{POLICY}{rule}\n"),
    )
    .unwrap();
    let add = [
        "user",
        "add",
        "ana",
        "--role",
        "analist",
        "--password-stdin",
    ];
    let ran = place.run_with(&add, "a long enough one 42\n").ok();
    assert!(
        ran.err().contains("did you mean `analyst`?"),
        "{}",
        ran.err()
    );
    finds(
        &place,
        "warning",
        "speaks of the role `analist`, and ana has it",
    );
}
