//! A log that has given up its oldest entries is proven from its horizon on.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew_authority::{Auditor, Command};
use curfew_entry::{Entry, LogPruned, Span};
use curfew_verify::ledger::{Disk, KeyChain, Prunable, PrunePoint, RealDisk};

use crate::history::Log;
use crate::honest;
use crate::server::Server;
use crate::state::{report, state, tiles};

/// More than two segments, with checkpoints in between.
const SIZES: [u64; 4] = [1_000, 3_000, 5_000, 8_000];

fn grown() -> Log {
    let mut log = Log::new();
    for size in SIZES {
        log.grow(size);
    }
    log
}

/// What stands for the oldest entries, and the log's entry that says so, which is not written yet.
fn prepared(log: &mut Log) -> PrunePoint {
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::read_dir(log.dir().join("segments"))
        .unwrap()
        .count()
        > 3
    {
        assert!(Instant::now() < deadline, "it is not sealed");
        // Sealing goes on when it is opened again.
        log.write();
    }
    let (disk, keys, dir): (Arc<dyn Disk>, _, _) =
        (Arc::new(RealDisk), KeyChain::new(&[log.key()]), log.dir());
    let prunable = Prunable {
        dir: &dir,
        disk: &disk,
        keys: &keys,
        prune_point: None,
    };
    let place = prunable.checkpoint(3_100).unwrap().unwrap();
    let mut auditor = Auditor::new();
    let milestone = prunable.advance(&place, |index, bytes| {
        let entry = Entry::from_bytes(bytes).unwrap();
        auditor.check(index, &entry).is_empty()
    });
    let horizon = PrunePoint::new(milestone.unwrap(), None, auditor.bequeath().unwrap());
    log.carry_out(&Command::Prune(LogPruned {
        size: horizon.size(),
        digest: horizon.digest(),
        keep: Span::from_secs(1),
        archived: false,
    }));
    horizon
}

fn put(log: &Log, horizon: &PrunePoint) {
    horizon.put(&RealDisk, &log.dir()).unwrap();
    assert!(horizon.clear(&RealDisk, &log.dir()).unwrap() > 3);
    assert!(!log.dir().join("tile/entries/000").exists());
}

fn outcome(log: &Log, place: &Path, more: &[&str]) -> (Option<i32>, String) {
    let (code, json, _) = report(log, place.to_str().unwrap(), more);
    (code, json.to_string())
}

#[test]
fn what_is_left_is_proven_in_a_directory_of_tiles_alone_and_served_and_onward() {
    let mut log = grown();
    let (_folder, early) = state();
    let before = report(&log, log.dir().to_str().unwrap(), &["--state", &early]);
    assert_eq!(before.0, Some(0), "{}", before.1);
    let horizon = prepared(&mut log);
    log.write();
    put(&log, &horizon);
    let number = log.start();
    log.read(number);
    log.end(number);
    let size = log.write();

    let (copies, copy) = tiles(&log);
    std::fs::copy(log.dir().join("horizon"), copy.join("horizon")).unwrap();
    let server = Server::start(honest(&log));
    for place in [
        log.dir().to_str().unwrap(),
        copy.to_str().unwrap(),
        &server.url(),
    ] {
        let (code, json, _) = report(&log, place, &[]);
        assert_eq!(code, Some(0), "{place}: {json}");
        assert_eq!(json["pruned"], horizon.size());
        assert_eq!(json["size"], size);
    }
    drop(copies);
    let asked = server.asked();
    assert!(
        !asked.iter().any(|name| name == "tile/entries/000"),
        "{asked:?}"
    );
    // From before the horizon and from behind it.
    let dir = log.dir();
    let place = dir.to_str().unwrap();
    let (code, json, earlier) = report(&log, place, &["--state", &early]);
    assert_eq!(
        (code, json["pruned"].as_u64()),
        (Some(0), Some(horizon.size()))
    );
    assert_eq!(earlier, Some(8_000));
    let (code, text) = crate::verify(&log, place, &[]);
    let said = format!("pruned      {} of them", horizon.size());
    assert!(code == Some(0) && text.contains(&said), "{text}");
}

#[test]
fn what_stands_for_the_pruned_part_must_be_what_an_entry_names() {
    let mut log = grown();
    let horizon = prepared(&mut log);
    let told = log.pending.pop().unwrap();
    put(&log, &horizon);
    let (code, text) = outcome(&log, &log.dir(), &[]);
    assert!(
        code == Some(3) && text.contains("horizon_unproven"),
        "{text}"
    );
    log.pending.push(told);
    log.write();
    assert_eq!(outcome(&log, &log.dir(), &[]).0, Some(0));

    // A session is made to live on that has ended.
    let path = log.dir().join("horizon");
    let kept = std::fs::read_to_string(&path).unwrap();
    let forged = kept.replacen("\"disabled\":[]", "\"disabled\":[\"eve\"]", 1);
    assert_ne!(kept, forged);
    std::fs::write(&path, forged).unwrap();
    let (code, text) = outcome(&log, &log.dir(), &[]);
    assert!(
        code == Some(3) && text.contains("horizon_unproven"),
        "{text}"
    );
    std::fs::write(&path, kept.split_once("\"auditor\"").unwrap().0).unwrap();
    assert_eq!(outcome(&log, &log.dir(), &[]).0, Some(1));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(outcome(&log, &log.dir(), &[]).0, Some(1));
}

#[test]
fn an_action_of_a_session_that_ended_in_the_pruned_part_is_found() {
    let mut log = grown();
    log.read(1);
    assert!(
        log.pending
            .iter()
            .all(|entry| entry.event.kind() != "action.allowed")
    );
    log.pending.clear();
    let mut other = Log::new();
    let number = other.start();
    other.read(number);
    let mut forged = other.pending.pop().unwrap();
    assert_eq!(forged.event.kind(), "action.allowed");
    let horizon = prepared(&mut log);
    forged.time = log.pending.last().unwrap().time;
    log.pending.push(forged);
    log.write();
    put(&log, &horizon);
    let (code, text) = outcome(&log, &log.dir(), &[]);
    assert!(
        code == Some(3) && text.contains("outside_session"),
        "{text}"
    );
}
