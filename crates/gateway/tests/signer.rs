//! The signer in a process of its own: here in a thread, over a real socket, under a real log.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    unreachable_pub
)]

#[path = "shared/config.rs"]
mod config;
#[path = "shared/gateway.rs"]
mod gateway;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use curfew_authority::{Auditor, Command};
use curfew_custody::signer::RemoteSigner;
use curfew_custody::signer::server::{SignerServer, begin};
use curfew_entry::{Entry, Event, SigningFault};
use curfew_ledger::{
    LogKey, LogReader, Observer, Options, PublishError, RealDisk, VerifierKey, WriteError, Writer,
};
use gateway::Gateway;

#[derive(Debug, Default)]
struct Heard {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    durable: u64,
    published: String,
    failed: Option<String>,
}

impl Heard {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait(&self, done: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap();
        let limit = Duration::from_secs(30);
        let waited = self
            .changed
            .wait_timeout_while(state, limit, |state| !done(state));
        assert!(!waited.unwrap().1.timed_out(), "waited for 30 s");
    }
}

impl Observer for Heard {
    fn durable(&self, size: u64) {
        self.set(|state| state.durable = size);
    }

    fn failed(&self, _size: u64, error: &WriteError) {
        unreachable!("{error}");
    }

    fn published(&self, note: &str) {
        self.set(|state| note.clone_into(&mut state.published));
    }

    fn publish_failed(&self, error: &PublishError) {
        self.set(|state| state.failed = Some(error.to_string()));
    }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The process is never told to stop: its thread goes with the test.
fn serve(key: &Path, socket: &Path, uid: u32) {
    let server = SignerServer::bind(key, socket, uid).unwrap();
    std::thread::spawn(move || server.serve());
}

/// One with a new key that answers this user, at the socket that [`options`] name.
fn signer(folder: &Path, uid: u32) -> VerifierKey {
    let key_file = folder.join("key");
    let key = LogKey::create(&key_file, "example.com/log").unwrap();
    assert_eq!(begin(&key_file, None).unwrap(), key.verifier().to_string());
    serve(&key_file, &folder.join("signer.sock"), uid);
    key.verifier()
}

fn options(folder: &Path, key: &VerifierKey) -> Options {
    let signer = RemoteSigner::new(&folder.join("signer.sock"), key.clone());
    Options {
        publish_interval: Duration::from_millis(1),
        segment_bytes: 256 * 1024,
        ..Options::new(folder.join("log"), folder.join("last-signed"), signer)
    }
}

#[test]
fn a_log_is_signed_by_another_process_and_waits_for_it_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let key = signer(path, own_uid());
    let (key_file, socket) = (path.join("key"), path.join("signer.sock"));
    assert!(begin(&key_file, None).is_err(), "it remembers already");

    let heard = Arc::new(Heard::default());
    let disk = Arc::new(RealDisk);
    let (writer, _) = Writer::create(options(path, &key), disk, heard.clone()).unwrap();
    for size in [1_u64, 2, 300] {
        while writer.size() < size {
            writer.append(format!("entry {}", writer.size())).unwrap();
        }
        heard.wait(|state| state.published.contains(&format!("\n{size}\n")));
    }

    // Nobody answers: what is appended is durable, and signed once somebody does.
    let away = path.join("away.sock");
    std::fs::rename(&socket, &away).unwrap();
    writer.append("while it was away").unwrap();
    heard.wait(|state| state.durable == 301);
    heard.wait(|state| {
        state
            .failed
            .as_ref()
            .is_some_and(|text| text.contains("signer"))
    });
    std::fs::rename(&away, &socket).unwrap();
    heard.wait(|state| state.published.contains("\n301\n"));
    writer.close().unwrap();

    // Another key than the one on file is not taken.
    let other = LogKey::from_seed("example.com/log", &[3; 32]).unwrap();
    let opened = Writer::open(options(path, &other.verifier()), Arc::new(RealDisk), heard);
    assert!(opened.is_err());
}

#[test]
fn a_log_that_was_rolled_back_gets_no_signature() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let key = signer(path, own_uid());
    let make = |text: &str| {
        let heard = Arc::new(Heard::default());
        let opened = Writer::create(options(path, &key), Arc::new(RealDisk), heard.clone());
        opened.map(|(writer, _)| {
            writer.append(text).unwrap();
            writer.close().unwrap();
        })
    };
    make("the first history").unwrap();
    // Whoever holds the log wipes it, guard and all, and begins another history of the same name.
    std::fs::remove_dir_all(path.join("log")).unwrap();
    std::fs::remove_file(path.join("last-signed")).unwrap();
    let refused = make("the second history").unwrap_err().to_string();
    assert!(refused.contains("1 were signed"), "{refused}");
}

#[test]
fn another_user_is_not_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let key = signer(path, own_uid().wrapping_add(1));
    let heard = Arc::new(Heard::default());
    let made = Writer::create(options(path, &key), Arc::new(RealDisk), heard);
    let refused = made.map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("may ask"), "{refused}");
}

const CONFIG: &str = "[log]\nsigner = \"signer.sock\"\nsigning_alarm_after = \"300ms\"\n";

const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("12h") @lifetime("24h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
"#;

fn entries(gateway: &Gateway) -> Vec<Entry> {
    let reader = LogReader::open(&gateway.ledger()).unwrap();
    let entries = reader.range(0..reader.size());
    entries
        .map(|entry| Entry::from_bytes(&entry.unwrap().1).unwrap())
        .collect()
}

/// Waits until so many entries about signing are there, and gives them with their indexes.
async fn about_signing(gateway: &Gateway, count: usize) -> Vec<(u64, Event)> {
    for _ in 0..3_000 {
        let told: Vec<(u64, Event)> = (0..)
            .zip(entries(gateway).into_iter().map(|entry| entry.event))
            .filter(|(_, event)| event.kind().starts_with("log.signing_"))
            .collect();
        if told.len() >= count {
            return told;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    unreachable!("waited for 30 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_that_nothing_was_signed_and_from_where_to_where() {
    let (gateway, socket) = Gateway::start(
        &["curfew.localhost"],
        &config::config(CONFIG),
        POLICY,
        |dir, data| {
            let (key, socket) = (dir.join("signer.key"), dir.join("signer.sock"));
            let made = data.public_key().with_file_name("ledger.key");
            std::fs::rename(made, &key).unwrap();
            begin(&key, None).unwrap();
            serve(&key, &socket, own_uid());
            socket
        },
    )
    .await;
    let away = socket.with_extension("away");
    let mut told = 0;
    for _ in 0..2 {
        std::fs::rename(&socket, &away).unwrap();
        let command = Command::StepClock { wall_offset_us: 1 };
        let registrar = gateway.running.registrar();
        registrar.carry_out(command).await.unwrap();
        let failed = about_signing(&gateway, told + 1).await;
        std::fs::rename(&away, &socket).unwrap();
        let resumed = about_signing(&gateway, told + 2).await;
        assert_eq!(failed[..], resumed[..=told], "it is said once");
        let (at, Event::LogSigningFailed { size, cause, .. }) = &resumed[told] else {
            unreachable!("{resumed:?}");
        };
        assert_eq!(*cause, SigningFault::SignerAway);
        let (_, Event::LogSigningResumed { size: again }) = &resumed[told + 1] else {
            unreachable!("{resumed:?}");
        };
        assert!(size <= at && again > at, "{resumed:?}");
        told += 2;
    }
    let mut auditor = Auditor::new();
    for (index, entry) in (0..).zip(entries(&gateway)) {
        assert_eq!(auditor.check(index, &entry), []);
    }
    gateway.running.stop().await.unwrap();
}
