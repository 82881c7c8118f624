//! Signals to `curfew serve`: asked to stop before it listens, and while it runs, to reload, or anything else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod common;

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{CONFIG, POLICY, Place};
use curfew_entry::Event;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take on a machine that has much to do.
const LONG: Duration = Duration::from_secs(120);

fn serve(place: &Place) -> Child {
    Command::new(env!("CARGO_BIN_EXE_curfew"))
        .args(["serve", "--json"])
        .current_dir(place.path())
        .env_remove("CURFEW_CONFIG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Waits until it has ended as it should.
fn ended(mut child: Child, place: &Place) {
    let end = Instant::now() + LONG;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            unreachable!("it does not stop");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(status.success(), "{status}");
    assert_eq!(place.events().last(), Some(&Event::GatewayStopped {}));
}

/// It starts, since it was told to, and stops as it does at any other time: with an entry that says so.
#[test]
fn a_signal_before_it_listens_is_heard() {
    let place = Place::new(CONFIG, POLICY);
    place.certify(&["curfew.localhost"]);
    place.run(&["init"]).ok();
    // It waits for its policy, before all else.
    let pipe = place.path().join("policy.cedar");
    std::fs::remove_file(&pipe).unwrap();
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mut child = serve(&place);
    let end = Instant::now() + LONG;
    // Opened only once it reads there.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
    let mut policy = loop {
        let opened = OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(&pipe);
        match opened {
            Ok(opened) => break opened,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    send(&child, Signal::TERM);
    policy.write_all(POLICY.as_bytes()).unwrap();
    drop(policy);
    let mut told = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut told).unwrap();
    assert!(told.contains("\"ready\":true"), "{told}");
    ended(child, &place);
}

/// A running gateway, and what it says.
struct Running {
    child: Child,
    said: std::sync::mpsc::Receiver<String>,
}

impl Running {
    fn start(place: &Place) -> Self {
        let mut child = serve(place);
        let mut told = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut told).unwrap();
        assert!(told.contains("\"ready\":true"), "{told}");
        let (sender, said) = std::sync::mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, said }
    }

    /// Waits until it says something like this.
    #[track_caller]
    fn says(&self, wanted: &str) {
        let end = Instant::now() + LONG;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(line) if line.contains(wanted) => return,
                Ok(_) => {}
                Err(error) => unreachable!("it never says {wanted}: {error}"),
            }
        }
    }
}

fn policies(place: &Place) -> usize {
    let events = place.events();
    let loaded = events
        .iter()
        .filter(|event| matches!(event, Event::PolicyLoaded { .. }));
    loaded.count()
}

#[test]
fn a_hang_up_takes_in_policy_and_certificate_and_ends_nothing() {
    let place = Place::new(CONFIG, POLICY);
    place.certify(&["curfew.localhost"]);
    place.run(&["init"]).ok();
    let running = Running::start(&place);
    send(&running.child, Signal::HUP);
    running.says("policy and certificate are as before");
    assert_eq!(policies(&place), 1);

    let policy = place.path().join("policy.cedar");
    std::fs::write(&policy, POLICY.replace("15m", "10m")).unwrap();
    place.certify(&["curfew.localhost"]);
    send(&running.child, Signal::HUP);
    running.says("reloaded: certificate");
    running.says("reloaded: policy");
    assert_eq!(policies(&place), 2, "it is recorded as any other");

    // What is wrong is said, and what was in force stays.
    std::fs::write(&policy, "permit (").unwrap();
    send(&running.child, Signal::HUP);
    running.says("nothing is reloaded");
    let status = place.run(&["status"]).ok().out();
    assert!(status.contains("reload since"), "{status}");
    std::fs::write(&policy, POLICY).unwrap();
    let config = format!("{CONFIG}connections_max = 100\n");
    std::fs::write(place.path().join("curfew.toml"), config).unwrap();
    send(&running.child, Signal::HUP);
    running.says("[tuning] has changed, which takes a restart");
    running.says("reloaded: policy");
    assert_eq!(policies(&place), 3);
    let status = place.run(&["status"]).ok().out();
    assert!(!status.contains("reload since"), "{status}");

    for signal in [Signal::USR1, Signal::USR2] {
        send(&running.child, signal);
        running.says("means nothing to Curfew");
    }
    send(&running.child, Signal::QUIT);
    ended(running.child, &place);
}

/// As when the terminal is closed, or the program that read along is gone.
#[test]
fn it_goes_on_when_nobody_reads_what_it_says() {
    let place = Place::new(CONFIG, POLICY);
    place.certify(&["curfew.localhost"]);
    place.run(&["init"]).ok();
    let mut child = serve(&place);
    let mut told = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut told).unwrap();
    drop(stdout);
    drop(child.stderr.take());
    for _ in 0..3 {
        // Each has it say something.
        send(&child, Signal::HUP);
        place.run(&["status"]).ok();
    }
    assert!(child.try_wait().unwrap().is_none());
    send(&child, Signal::INT);
    ended(child, &place);
}
