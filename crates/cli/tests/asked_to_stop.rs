//! `curfew serve` is asked to stop before it listens.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod common;

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{CONFIG, POLICY, Place};
use curfew_authority::{Entry, Event};
use curfew_ledger::LogReader;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take on a machine that has much to do.
const LONG: Duration = Duration::from_secs(120);

/// It starts, since it was told to, and stops as it does at any other time: with an entry that says so.
#[test]
fn a_signal_before_it_listens_is_heard() {
    let place = Place::new(CONFIG, POLICY);
    place.run(&["init"]).ok();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = place.path().join("certificate.key");
    std::fs::write(key, made.signing_key.serialize_pem()).unwrap();
    // It waits for its certificate, after it has read its configuration and before all else.
    let pipe = place.path().join("certificate.pem");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_curfew"))
        .args(["serve", "--json"])
        .current_dir(place.path())
        .env_remove("CURFEW_CONFIG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + LONG;
    // Opened only once it reads there.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
    let mut certificate = loop {
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
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    certificate.write_all(made.cert.pem().as_bytes()).unwrap();
    drop(certificate);
    let output = loop {
        if child.try_wait().unwrap().is_some() {
            break child.wait_with_output().unwrap();
        }
        if Instant::now() > end {
            child.kill().unwrap();
            unreachable!("it does not stop");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(output.status.success(), "{}", output.status);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("\"ready\":true"), "{told}");
    let log = LogReader::open(&place.path().join("data/ledger")).unwrap();
    let last = Entry::from_bytes(&log.entry(log.size() - 1).unwrap()).unwrap();
    assert_eq!(last.event, Event::GatewayStopped {});
}
