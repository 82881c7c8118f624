//! A log whose checkpoint a real timestamping authority, made with OpenSSL, has vouched for: what it
//! shows to others, and what it gives away of whoever holds key and disk and rewrites it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

#[path = "../../gateway/tests/shared/address.rs"]
mod address;
#[allow(dead_code, reason = "it misbehaves here in one way alone")]
#[path = "../../gateway/tests/shared/tsa.rs"]
mod tsa;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output};
use std::sync::Arc;

use curfew_authority::{Authority, Command};
use curfew_entry::{Entry, Timestamp};
use curfew_ledger::{LogKey, Observer, Options, RealDisk, WriteError, Writer};

use address::free_address;
use tsa::{Mode, Tsa, is_missing, openssl};

const ORIGIN: &str = "curfew.test/log";

struct Silent;

impl Observer for Silent {
    fn durable(&self, _: u64) {}
    fn failed(&self, _: u64, error: &WriteError) {
        panic!("{error}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes a log of the policies `word` 0 to `policies`, or lets one of `from` entries go on to them.
fn write_log(dir: &Path, key: &Path, word: &str, from: usize, policies: u64) {
    let key = LogKey::load(key).unwrap();
    let guard = dir.with_extension("guard");
    let options = Options::new(dir.to_path_buf(), guard, key);
    let (disk, silent) = (Arc::new(RealDisk), Arc::new(Silent));
    let writer = if from == 0 {
        Writer::create(options, disk, silent).unwrap().0
    } else {
        Writer::open(options, disk, silent).unwrap().0
    };
    let mut authority = Authority::new();
    let origin = ORIGIN.to_owned();
    let mut commands = vec![Command::OpenLog { origin }];
    commands.extend((0..policies).map(|at| Command::LoadPolicy {
        text: format!(
            "@id(\"{word}{at}\") @idle(\"15m\") @reauth(\"1h\") @lifetime(\"8h\") \
             permit (principal, action == Action::\"session.start\", resource);"
        ),
    }));
    for (at, command) in commands.iter().enumerate() {
        let time = Timestamp::from_micros(1_764_000_000_000_000 + at as u64);
        for event in authority.decide(command, time).events {
            let entry = Entry { time, event };
            authority.apply(&entry);
            if at >= from {
                writer.append(entry.to_bytes().unwrap()).unwrap();
            }
        }
    }
    writer.close().unwrap();
}

struct World {
    folder: tempfile::TempDir,
    tsa: Arc<Tsa>,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    /// A log of 8 entries and an authority; `None` where OpenSSL is not installed.
    fn new() -> Option<Self> {
        if is_missing() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = LogKey::create(&path, ORIGIN).unwrap();
        fs::write(folder.path().join("key.pub"), key.verifier().to_string()).unwrap();
        write_log(&folder.path().join("log"), &path, "a", 0, 7);
        let tsa = Tsa::new(free_address());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(tsa.serve());
        fs::copy(tsa.root(), folder.path().join("tsa-root.pem")).unwrap();
        fs::copy(tsa.stranger_root(), folder.path().join("other-root.pem")).unwrap();
        Some(Self {
            folder,
            tsa,
            _runtime: runtime,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn stamp(&self, log: &str, root: &str) -> Output {
        let (dir, root) = (self.path(log), self.path(root));
        let mut process = Process::new(env!("CARGO_BIN_EXE_curfew"));
        process.args(["log", "timestamp", "--url", &self.tsa.url()]);
        let words = ["--tsa-ca", text(&root), "--dir", text(&dir), "--json"];
        process.args(words).output().unwrap()
    }

    fn verify(&self, log: &str, root: &str) -> (i32, String) {
        let (dir, root, key) = (self.path(log), self.path(root), self.path("key.pub"));
        let mut process = Process::new(env!("CARGO_BIN_EXE_curfew"));
        process.args(["log", "verify", "--key-file", text(&key)]);
        let output = process.args(["--tsa-ca", text(&root), text(&dir)]).output();
        let output = output.unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), format!("{told}{errors}"))
    }
}

#[test]
fn a_token_over_the_newest_checkpoint_is_kept_and_proves_when_its_entries_existed() {
    let Some(world) = World::new() else { return };
    let (code, told) = world.verify("log", "tsa-root.pem");
    assert_eq!(code, 6, "{told}");
    assert!(told.contains("timestamps  ✗ NONE"), "{told}");

    let output = world.stamp("log", "tsa-root.pem");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["size"], &told["kept"]), (&8.into(), &false.into()));
    let again = world.stamp("log", "tsa-root.pem");
    let again: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(
        (&again["time"], &again["kept"]),
        (&told["time"], &true.into())
    );

    let (code, report) = world.verify("log", "tsa-root.pem");
    assert_eq!(code, 0, "{report}");
    let time = told["time"].as_str().unwrap();
    let wanted = format!("everything up to entry 7 existed before {time}");
    assert!(report.contains(&wanted), "{wanted}: {report}");
    assert!(report.contains("CN=tsa"), "{report}");

    // Anybody else's tool says the same.
    let words = "ts -verify -data log/timestamps/8.checkpoint -in log/timestamps/8.tsr \
                 -CAfile tsa-root.pem";
    openssl(world.folder.path(), words);

    let (code, report) = world.verify("log", "other-root.pem");
    assert_eq!(code, 6, "{report}");
    assert!(
        report.contains("✗ timestamps/8.tsr: the certificate of CN=tsa"),
        "{report}"
    );
}

#[test]
fn a_receipt_carries_the_token_away() {
    let Some(world) = World::new() else { return };
    let output = world.stamp("log", "tsa-root.pem");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let time = told["time"].as_str().unwrap();
    let (dir, file, key) = (world.path("log"), world.path("one"), world.path("key.pub"));
    let run = |words: &[&str]| {
        let mut process = Process::new(env!("CARGO_BIN_EXE_curfew"));
        let output = process.args(words).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), format!("{told}{errors}"))
    };
    let words = [
        "log",
        "receipt",
        "3",
        "--dir",
        text(&dir),
        "--out",
        text(&file),
    ];
    let (code, report) = run(&words);
    assert!(
        code == 0 && report.contains("entry 3: timestamped"),
        "{report}"
    );
    let check = |more: &[&str]| {
        let words = [
            "log",
            "verify",
            "--key-file",
            text(&key),
            "--receipt",
            text(&file),
            text(&dir),
        ];
        run(&[&words, more].concat())
    };
    let (code, report) = check(&[]);
    assert!(
        code == 0 && report.contains("signed with 8 entries"),
        "{report}"
    );
    let root = world.path("tsa-root.pem");
    let (code, report) = check(&["--tsa-ca", text(&root)]);
    assert_eq!(code, 0, "{report}");
    assert!(report.contains("timestamped with 8 entries"), "{report}");
    assert!(
        report.contains(&format!("existed before {time}")),
        "{report}"
    );

    let root = world.path("other-root.pem");
    let (code, report) = check(&["--tsa-ca", text(&root)]);
    assert!(
        code == 6 && report.contains("timestamp   ✗ NONE: the certificate"),
        "{report}"
    );
}

#[test]
fn an_answer_that_is_not_to_be_believed_is_not_kept() {
    let Some(world) = World::new() else { return };
    let refused = |root: &str, wanted: &str| {
        let output = world.stamp("log", root);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(wanted), "{told}");
        assert!(!world.path("log/timestamps").exists());
    };
    refused("other-root.pem", "does not hold at the time of the token");
    world.tsa.behave(Mode::Stale);
    refused("tsa-root.pem", "another nonce");
}

#[test]
fn a_log_that_was_rewritten_or_cut_after_its_token_is_broken() {
    let Some(world) = World::new() else { return };
    assert!(world.stamp("log", "tsa-root.pem").status.success());
    let key = world.path("key");
    let move_tokens = |log: &str| {
        let (from, to) = (
            world.path("log/timestamps"),
            world.path(log).join("timestamps"),
        );
        fs::create_dir(&to).unwrap();
        for name in ["8.tsr", "8.checkpoint"] {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    };
    write_log(&world.path("cut"), &key, "a", 0, 3);
    move_tokens("cut");
    let (code, report) = world.verify("cut", "tsa-root.pem");
    assert_eq!(code, 1, "{report}");
    assert!(report.contains("the end was cut off"), "{report}");

    write_log(&world.path("other"), &key, "b", 0, 7);
    move_tokens("other");
    let (code, report) = world.verify("other", "tsa-root.pem");
    assert_eq!(code, 1, "{report}");
    assert!(report.contains("another history existed"), "{report}");

    // The log itself may go on.
    write_log(&world.path("log"), &key, "a", 8, 9);
    let (code, report) = world.verify("log", "tsa-root.pem");
    assert_eq!(code, 0, "{report}");
    let token = |size: u64, ending: &str| world.path(&format!("log/timestamps/{size}.{ending}"));
    fs::write(token(9, "tsr"), "nothing").unwrap();
    let (code, report) = world.verify("log", "tsa-root.pem");
    assert_eq!(code, 6, "{report}");
    assert!(
        report.contains("9.tsr: the checkpoint it is over is missing"),
        "{report}"
    );
    for ending in ["tsr", "checkpoint"] {
        fs::rename(token(8, ending), token(9, ending)).unwrap();
    }
    let (code, report) = world.verify("log", "tsa-root.pem");
    assert_eq!(code, 6, "{report}");
    assert!(report.contains("it is over 8 entries"), "{report}");
}
