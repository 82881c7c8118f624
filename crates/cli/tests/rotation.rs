//! The log's key is changed between two runs, as its operator does it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::{CONFIG, POLICY, Place};
use curfew_ledger::rotate::begin;
use curfew_ledger::{KeyFile, LogReader, Observer, Options, RealDisk, WriteError, Writer};
use serde_json::Value;

const PASSWORD: &str = "a long enough one 42\n";

struct Silent;

impl Observer for Silent {
    fn durable(&self, _: u64) {}
    fn failed(&self, _: u64, error: &WriteError) {
        unreachable!("{error}");
    }
}

/// A place whose log has some entries, and its verifier key.
fn set_up() -> (Place, String) {
    let place = Place::new(CONFIG, POLICY);
    let key = place.run(&["init"]).ok().out().trim().to_owned();
    let add = [
        "user",
        "add",
        "ana",
        "--role",
        "analyst",
        "--password-stdin",
    ];
    place.run_with(&add, PASSWORD).ok();
    (place, key)
}

fn rotate(place: &Place) -> String {
    let said = place.run(&["key", "rotate"]).ok().out();
    said.trim().to_owned()
}

fn public_key(place: &Place) -> String {
    let path = place.path().join("data/keys/ledger.pub");
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

fn key_path(place: &Place) -> PathBuf {
    place.path().join("data/keys/ledger.key")
}

fn options(place: &Place) -> Options {
    let key = KeyFile::open(Arc::new(RealDisk), &key_path(place)).unwrap();
    let data = place.path().join("data");
    Options::new(data.join("ledger"), data.join("guard/last-signed"), key)
}

/// What `curfew log verify` says to whoever knows this key alone.
fn verify(place: &Place, key: &str) -> (Option<i32>, Value) {
    let ledger = place.path().join("data/ledger");
    let ran = place.run(&[
        "log",
        "verify",
        "--json",
        "--key",
        key,
        ledger.to_str().unwrap(),
    ]);
    let said = serde_json::from_str(&ran.out()).unwrap();
    (ran.code(), said)
}

#[test]
fn a_changed_key_signs_on_and_each_of_them_verifies_all_of_the_log() {
    let (place, first) = set_up();
    let second = rotate(&place);
    assert_eq!(public_key(&place), second);
    assert_ne!(first, second);
    place.run(&["user", "disable", "ana"]).ok();
    // One that was announced before is the one that is taken.
    let third = place.run(&["key", "prepare"]).ok().out().trim().to_owned();
    assert_eq!(public_key(&place), second);
    assert_eq!(rotate(&place), third);
    place.run(&["user", "enable", "ana"]).ok();
    for key in [&first, &second, &third] {
        let (code, said) = verify(&place, key);
        assert_eq!(
            (code, &said["outcome"]),
            (Some(0), &"proven".into()),
            "{said}"
        );
        let changes = said["keys"].as_array().unwrap();
        assert_eq!(changes.len(), 2, "{said}");
        assert_eq!(
            (&changes[0]["old"], &changes[0]["new"]),
            (&first.as_str().into(), &second.as_str().into())
        );
        assert_eq!(changes[1]["new"], third.as_str());
    }
    let text = place.run(&["log", "verify"]).ok().out();
    assert!(
        text.contains(&format!("from {second} to {third}")),
        "{text}"
    );
    // Another log's key proves nothing.
    let other = Place::new(CONFIG, POLICY);
    let other = other.run(&["init"]).ok().out();
    assert_eq!(verify(&place, other.trim()).0, Some(1));
    // What is left of the old keys is what they have signed.
    let names = std::fs::read_dir(place.path().join("data/keys")).unwrap();
    let mut names: Vec<_> = names
        .map(|n| n.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "gateway.key",
            "ledger.key",
            "ledger.key.rotation",
            "ledger.pub"
        ]
    );
}

#[test]
fn a_change_that_was_cut_short_is_brought_to_its_end_by_the_next_start() {
    for by_start in [true, false] {
        let (place, first) = set_up();
        // As far as the statement, and no further.
        let new = KeyFile::open(Arc::new(RealDisk), &key_path(&place))
            .unwrap()
            .prepare()
            .unwrap();
        begin(options(&place), Arc::new(RealDisk)).unwrap();
        let size = LogReader::open(&place.path().join("data/ledger"))
            .unwrap()
            .size();
        assert_eq!(public_key(&place), first);
        if by_start {
            place.run(&["user", "disable", "ana"]).ok();
        } else {
            assert_eq!(rotate(&place), new.to_string());
        }
        assert_eq!(public_key(&place), new.to_string());
        let (code, said) = verify(&place, &first);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said["keys"][0]["entry"], size);
        assert!(!key_path(&place).with_extension("key.next").exists());
    }
}

#[test]
fn the_key_of_a_log_in_use_is_not_changed() {
    let (place, first) = set_up();
    let (writer, _) = Writer::open(options(&place), Arc::new(RealDisk), Arc::new(Silent)).unwrap();
    let ran = place.run(&["key", "rotate"]);
    assert_eq!(ran.code(), Some(1));
    assert!(
        ran.err().contains("stop `curfew serve` first"),
        "{}",
        ran.err()
    );
    writer.close().unwrap();
    assert_eq!(public_key(&place), first);
    assert_eq!(verify(&place, &first).1["keys"], Value::Null);
    // One that has never written anything has no entries to go on from.
    let fresh = Place::new(CONFIG, POLICY);
    fresh.run(&["init"]).ok();
    assert_eq!(fresh.run(&["key", "rotate"]).code(), Some(1));
}
