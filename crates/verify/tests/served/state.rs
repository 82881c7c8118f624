//! A verification that goes on from a remembered one says what a whole one says, of what is new.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::history::Log;
use crate::server::Server;
use crate::{honest, verify};

/// A state file that is not there yet.
pub(crate) fn state() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state").to_str().unwrap().to_owned();
    (folder, path)
}

/// The report as JSON, without what is the run's own.
pub(crate) fn report(log: &Log, place: &str, more: &[&str]) -> (Option<i32>, Value, Option<u64>) {
    let (code, text) = verify(log, place, &[more, &["--json"]].concat());
    let mut json: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    let earlier = json["earlier"].as_u64();
    json.as_object_mut().unwrap().remove("earlier");
    (code, json, earlier)
}

/// A copy of tiles alone.
pub(crate) fn tiles(log: &Log) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args(["checkpoint", "tile"].map(|name| log.dir().join(name)))
        .arg(folder.path())
        .status();
    assert!(copied.unwrap().success());
    let path = folder.path().to_path_buf();
    (folder, path)
}

#[test]
fn two_parts_say_what_the_whole_says_in_a_directory_of_tiles_alone_and_served() {
    // Within a bundle, at its end, with nothing new, over several.
    let sizes = [6, 256, 300, 300, 1_100];
    let mut log = Log::new();
    let kept = [state(), state(), state()];
    let mut before = [None; 3];
    for size in sizes {
        if log.size() < size {
            log.grow(size);
        }
        let dir = log.dir();
        let (_folder, copy) = tiles(&log);
        let server = Server::start(honest(&log));
        let places = [dir.to_str().unwrap(), copy.to_str().unwrap(), &server.url()];
        for ((place, (_, file)), before) in places.iter().zip(&kept).zip(&mut before) {
            let (code, whole, _) = report(&log, place, &[]);
            assert_eq!(code, Some(0), "{whole}");
            let asked = server.asked().len();
            let (code, onward, earlier) = report(&log, place, &["--state", file]);
            assert_eq!((code, &onward), (Some(0), &whole), "{place}");
            assert_eq!(earlier, *before, "{place}");
            *before = Some(size);
            let mode = std::fs::metadata(file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            if size == 1_100 && place.starts_with("http") {
                // Of what was read before, only the bundle that has grown since.
                let again = &server.asked()[asked..];
                assert!(
                    !again.iter().any(|name| name == "tile/entries/000"),
                    "{again:?}"
                );
            }
        }
    }
}

/// What is not signed yet is looked at again once it is.
#[test]
fn what_is_forged_after_the_state_is_found_as_in_a_whole_run() {
    let mut log = Log::new();
    let (_folder, file) = state();
    let number = log.start();
    log.read(number);
    log.write();
    let dir = log.dir();
    let place = dir.to_str().unwrap();
    assert_eq!(report(&log, place, &["--state", &file]).0, Some(0));
    let kept = std::fs::read(&file).unwrap();
    // An action of a session that ended since, which had started before.
    log.read(number);
    let mut forged = log.pending[0].clone();
    log.end(number);
    forged.time = log.pending.last().unwrap().time;
    log.pending.push(forged);
    log.write();
    let (code, whole, _) = report(&log, place, &[]);
    assert_eq!(code, Some(3), "{whole}");
    for _ in 0..2 {
        let (code, onward, earlier) = report(&log, place, &["--state", &file]);
        assert_eq!((code, &onward), (Some(3), &whole));
        assert!(earlier.is_some());
        // From what is not good nobody goes on.
        assert_eq!(std::fs::read(&file).unwrap(), kept);
    }
}

#[test]
fn what_is_changed_or_cut_after_the_state_is_found() {
    let mut log = Log::new();
    log.grow(300);
    let (_folder, file) = state();
    let dir = log.dir();
    assert_eq!(
        report(&log, dir.to_str().unwrap(), &["--state", &file]).0,
        Some(0)
    );
    let (_older, older) = tiles(&log);
    let (_other, other_file) = state();
    log.grow(700);
    assert_eq!(
        report(&log, dir.to_str().unwrap(), &["--state", &other_file]).0,
        Some(0)
    );
    let key = log.key();
    let run =
        |dir: &Path, file: &str| crate::verify_by(&key, dir.to_str().unwrap(), &["--state", file]);
    let (_copy, copy) = tiles(&log);
    assert_eq!(run(&copy, &file).0, Some(0));
    std::fs::copy(&other_file, &file).unwrap();
    // The older copy has fewer entries than were verified.
    let (code, text) = run(&older, &file);
    assert!(
        code == Some(1) && text.contains("700 entries were signed"),
        "{text}"
    );
    // A bit of what is new, and of what the incomplete bundle held before.
    log.grow(900);
    let (_copy, copy) = tiles(&log);
    let bundle = copy.join("tile/entries/002");
    let whole = std::fs::read(&bundle).unwrap();
    for at in [30, whole.len() - 30] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&bundle, bytes).unwrap();
        assert_eq!(run(&copy, &file).0, Some(1), "byte {at}");
    }
    std::fs::write(&bundle, whole).unwrap();
    assert_eq!(run(&copy, &file).0, Some(0));
    // A record of `checkpoints` before which everything was verified is gone.
    let records = dir.join("checkpoints");
    let text = std::fs::read_to_string(&records).unwrap();
    let second = text[1..].find("checkpoint ").unwrap() + 1;
    std::fs::write(&records, &text[second..]).unwrap();
    assert_eq!(run(&dir, &file).0, Some(1));
}

#[test]
fn a_state_that_is_damaged_open_or_of_another_log_is_refused() {
    let mut log = Log::new();
    log.grow(20);
    let (_folder, file) = state();
    let dir = log.dir();
    let place = dir.to_str().unwrap();
    let refused = |log: &Log, hint: &str| {
        let (code, text) = verify(log, log.dir().to_str().unwrap(), &["--state", &file]);
        assert!(code == Some(2) && text.contains(hint), "{text}");
    };
    assert_eq!(report(&log, place, &["--state", &file]).0, Some(0));
    let kept = std::fs::read(&file).unwrap();
    for at in (0..kept.len()).step_by(97) {
        let mut bytes = kept.clone();
        bytes[at] ^= 2;
        std::fs::write(&file, bytes).unwrap();
        refused(&log, "or it is damaged");
    }
    std::fs::write(&file, &kept[..kept.len() / 2]).unwrap();
    refused(&log, "or it is damaged");
    std::fs::write(&file, &kept).unwrap();
    // Another log, though of the same name.
    refused(&Log::new(), "of another log or key");
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&file, mode).unwrap();
    refused(&log, "chmod 600");
}
