//! A log that is read over HTTP is proven like one in a directory, and a server can only fail to
//! answer: whatever it says that is not so, is found.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]
#![allow(
    clippy::disallowed_types,
    reason = "the program is run as its users run it"
)]

mod history;
mod pruned;
mod server;
mod stamped;
mod state;
mod witnessed;

use std::collections::BTreeSet;
use std::process::{Command as Program, Output};
use std::sync::{Arc, OnceLock};

use curfew_verify::ledger::VerifierKey;
use history::Log;
use server::{Answer, Server};

/// Two full bundles and a partial one, and a tile of level 1.
const SIZE: u64 = 700;

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let mut log = Log::new();
        log.grow(SIZE);
        log
    })
}

fn verify(log: &Log, url: &str, more: &[&str]) -> (Option<i32>, String) {
    verify_by(&log.key(), url, more)
}

fn verify_by(key: &VerifierKey, url: &str, more: &[&str]) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Program::new(env!("CARGO_BIN_EXE_curfew-verify"))
        .args(["--key", &key.to_string()])
        .args(more)
        .arg(url)
        .env_remove("CURFEW_TOKEN")
        .output()
        .unwrap();
    let text = String::from_utf8([stdout, stderr].concat()).unwrap();
    (status.code(), text)
}

/// Answers as the portal does.
fn honest(log: &Log) -> impl Fn(&str) -> Answer + Send + Sync + 'static {
    let dir = log.dir();
    move |name| {
        let found = std::fs::read(dir.join(name)).ok();
        found.map_or(Answer::status(404), Answer::ok)
    }
}

#[test]
fn a_served_log_is_proven_with_few_requests_at_once() {
    let log = log();
    let server = Server::start(honest(log));
    let (code, text) = verify(log, &server.url(), &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("entries     {SIZE} (")), "{text}");
    assert!(text.contains("(tiles only)"), "{text}");
    // As a whole run of the directory says.
    let (_, of_dir) = verify(log, log.dir().to_str().unwrap(), &[]);
    let line = |text: &str, word: &str| {
        let found = text.lines().find(|line| line.starts_with(word));
        found.unwrap().to_owned()
    };
    for word in ["time", "entries", "sessions", "integrity", "legitimacy"] {
        assert_eq!(line(&text, word), line(&of_dir, word));
    }
    let asked = server.asked();
    let names: BTreeSet<_> = asked.iter().collect();
    assert!(server.most_at_once() <= 5, "{}", server.most_at_once());
    // Whole tiles are fetched once.
    let whole = |name: &&&String| !name.contains(".p/");
    let once = asked.iter().filter(|name| whole(&name)).count();
    assert_eq!(once, names.iter().filter(whole).count(), "{asked:?}");
}

#[test]
fn each_file_that_is_not_as_it_was_is_found() {
    let log = log();
    let server = Server::start(honest(log));
    verify(log, &server.url(), &[]);
    let mut names: BTreeSet<String> = server.asked().into_iter().collect();
    // It was asked for, and there is none: see `pruned`.
    assert!(names.remove("horizon"));
    assert!(names.len() >= 8, "{names:?}");
    type Lie = fn(Vec<u8>) -> Answer;
    let lies: [(&str, Lie); 5] = [
        ("a flipped bit", |mut bytes| {
            let at = bytes.len() / 2;
            bytes[at] ^= 4;
            Answer::ok(bytes)
        }),
        ("cut short", |mut bytes| {
            bytes.pop();
            Answer::ok(bytes)
        }),
        ("a byte more", |mut bytes| {
            bytes.push(b'\n');
            Answer::ok(bytes)
        }),
        ("nothing", |_| Answer::ok(Vec::new())),
        ("gone", |_| Answer::status(404)),
    ];
    for target in names {
        for (lie, change) in lies {
            let (wanted, answer) = (target.clone(), honest(log));
            let server = Server::start(move |name| {
                let answer = answer(name);
                match answer.body {
                    Some(bytes) if name == wanted => change(bytes),
                    body => Answer { body, ..answer },
                }
            });
            let (code, text) = verify(log, &server.url(), &[]);
            // Without a checkpoint it is no log.
            let wanted = if (target.as_str(), lie) == ("checkpoint", "gone") {
                4
            } else {
                1
            };
            assert_eq!(code, Some(wanted), "{lie}: {target}: {text}");
        }
    }
}

#[test]
fn a_bundle_with_the_entries_of_another_is_found() {
    let log = log();
    let answer = honest(log);
    let server = Server::start(move |name| match name {
        "tile/entries/001" => answer("tile/entries/000"),
        name => answer(name),
    });
    let (code, text) = verify(log, &server.url(), &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("tile/0/001") && text.contains("entry 256"),
        "{text}"
    );
}

#[test]
fn a_log_that_grows_while_it_is_read_is_proven_to_the_checkpoint_fetched_first() {
    let mut log = Log::new();
    log.grow(300);
    let before = std::fs::read(log.dir().join("checkpoint")).unwrap();
    log.grow(600);
    // What was partial is there in full now, and its partial forms are gone.
    let _ = std::fs::remove_dir_all(log.dir().join("tile/entries/001.p"));
    let _ = std::fs::remove_dir_all(log.dir().join("tile/0/001.p"));
    let answer = honest(&log);
    let server = Server::start(move |name| match name {
        "checkpoint" => Answer::ok(before.clone()),
        name => answer(name),
    });
    let (code, text) = verify(&log, &server.url(), &["--json"]);
    assert_eq!(code, Some(0), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["size"], &json["signed"]), (&300.into(), &300.into()));
    // Who has seen more keeps them to it.
    let kept = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(log.dir().join("checkpoint"), kept.path()).unwrap();
    let (code, text) = verify(
        &log,
        &server.url(),
        &["--since", kept.path().to_str().unwrap()],
    );
    assert_eq!(code, Some(1), "{text}");
}

#[test]
fn a_server_that_is_busy_is_asked_again_and_not_for_ever() {
    let log = log();
    let answer = honest(log);
    let tried = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let server = Server::start(move |name| {
        // Each file but at the second try.
        match tried.lock().unwrap().insert(name.to_owned()) {
            true if name.contains("tile/0/") => Answer::broken(),
            true => Answer::status(429),
            false => answer(name),
        }
    });
    let (code, text) = verify(log, &server.url(), &[]);
    assert_eq!(code, Some(0), "{text}");
    // What is refused for good is not asked for again.
    for (status, hint) in [
        (401, "the token is missing"),
        (403, "may not do `log.read`"),
        (500, "500"),
    ] {
        let server = Server::start(move |_| Answer::status(status));
        let (code, text) = verify(log, &server.url(), &[]);
        assert_eq!(code, Some(4), "{text}");
        assert!(text.contains(hint), "{text}");
        assert_eq!(server.asked(), ["checkpoint"]);
    }
    // More than a file may have is not read.
    let endless = honest(log);
    let server = Server::start(move |name| match name {
        "tile/0/000" => Answer::ok(vec![0; 100_000]),
        name => endless(name),
    });
    let (code, text) = verify(log, &server.url(), &[]);
    assert!(code != Some(0) && text.contains("tile/0/000"), "{text}");
    // Where nobody listens.
    let url = server.url();
    drop(server);
    let (code, text) = verify(log, &url.replace("/log", "/nothing"), &["--json"]);
    assert_eq!(code, Some(4), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["outcome"], "unreadable");
}

#[test]
fn the_token_is_sent_and_goes_nowhere_else() {
    let log = log();
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    for kept in [
        "s3cret-token\n",
        r#"{"server":"https://x/","token":"s3cret-token","ca":null}"#,
    ] {
        std::fs::write(path, kept).unwrap();
        let server = Server::guarded("s3cret-token", honest(log));
        let (code, text) = verify(log, &server.url(), &["--token-file", path]);
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(verify(log, &server.url(), &[]).0, Some(4));
        // Whoever leads elsewhere is not followed.
        let (to, before) = (server.url(), server.asked().len());
        let elsewhere = Server::start(move |_| Answer::to(&to));
        let (code, text) = verify(log, &elsewhere.url(), &["--token-file", path]);
        assert_eq!(code, Some(4), "{text}");
        assert_eq!(server.asked().len(), before);
    }
    for wrong in ["", "{\"server\":\"x\"}", "two words"] {
        std::fs::write(path, wrong).unwrap();
        let (code, text) = verify(log, "https://127.0.0.1:1/log", &["--token-file", path]);
        assert_eq!(code, Some(2), "{wrong}: {text}");
    }
    let plain = verify(log, "http://192.0.2.1/log/", &[]);
    assert!(
        plain.0 == Some(2) && plain.1.contains("use https"),
        "{plain:?}"
    );
}
