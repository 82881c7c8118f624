//! Indexes and times on a log that was really written.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::sync::Arc;

use curfew_export::LogReader;
use curfew_export::range::{Place, checkpoint, first_at, origin};
use curfew_ledger::{LogKey, Observer, Options, RealDisk, WriteError, Writer};

struct Silent;

impl Observer for Silent {
    fn durable(&self, _size: u64) {}
    fn failed(&self, _size: u64, _error: &WriteError) {}
}

#[test]
fn times_and_indexes_find_their_entries() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, guard) = (folder.path().join("ledger"), folder.path().join("guard"));
    let key = LogKey::from_seed("log.example/curfew", &[7; 32]).unwrap();
    let options = Options::new(&dir, guard, key);
    let (writer, _) = Writer::create(options, Arc::new(RealDisk), Arc::new(Silent)).unwrap();
    let entries = include_str!("../../authority/tests/golden/entries.jsonl");
    for line in entries.lines() {
        writer.append(line).unwrap();
    }
    writer.close().unwrap();
    let reader = LogReader::open(&dir).unwrap();
    let size = reader.size();
    assert_eq!(checkpoint(&dir).unwrap().size, size);
    assert_eq!(origin(&dir, &reader).unwrap(), "log.example/curfew");
    let at = |text: &str| first_at(&reader, text.parse::<Place>().unwrap(), size).unwrap();
    assert_eq!(at("5"), 5);
    assert_eq!(at("999999"), size);
    assert_eq!(at("2026-11-23"), 0);
    assert_eq!(at("2026-11-23T16:40:00.000105Z"), 5);
    assert_eq!(at("2026-11-24"), size);
    assert!("yesterday".parse::<Place>().is_err());
}
