//! How fast a log is proved, and in how much memory: `cargo xtask bench verify`.
//!
//! Makes honest histories through the real authority and the real writer, then proves each: its
//! integrity alone on one core, and all of it with the program. Sizes are given as arguments, in
//! entries; without any, ten thousand and one million are measured.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    reason = "a measurement prints its table, and one that cannot go on must stop"
)]

#[path = "shared/history.rs"]
mod history;

use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew_verify::ledger::verify::{Verify, verify};
use curfew_verify::ledger::{RealDisk, VerifierKey};

use history::write_log;

/// How often a program's memory is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Most memory that a program has held, in KiB, once it is done.
fn watch(child: &mut Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let held = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        most = most.max(held.unwrap_or(0));
        std::thread::sleep(LOOK);
    }
    most
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn measure(entries: u64) {
    let folder = tempfile::tempdir().unwrap();
    let vkey = write_log(folder.path(), entries, || {});
    let dir = folder.path().join("ledger");
    let key = VerifierKey::parse(&vkey).unwrap();
    let what = Verify {
        dir: &dir,
        keys: &[key],
        remembered: None,
        from: None,
        disk: Arc::new(RealDisk),
    };
    // Once before, so that it is the processor that is measured: the newest segments are not in memory.
    verify(&what, &mut ()).unwrap();
    let start = Instant::now();
    let report = verify(&what, &mut ()).unwrap();
    let integrity = start.elapsed().as_secs_f64();
    let size = report.size as f64;
    let start = Instant::now();
    let mut child = Program::new(env!("CARGO_BIN_EXE_curfew-verify"))
        .args(["--key", &vkey])
        .arg(&dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let most = watch(&mut child);
    let both = start.elapsed().as_secs_f64();
    assert!(child.wait().unwrap().success(), "the log is not proven");
    println!(
        "{:>12} {:>14.0} {:>14.0} {:>9.0} ns {:>9.0} ns {:>8} MiB",
        report.size,
        size / integrity,
        size / both,
        integrity * 1e9 / size,
        both * 1e9 / size,
        most / 1024
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let sizes: Vec<u64> = arguments
        .iter()
        .filter_map(|size| size.parse().ok())
        .collect();
    let sizes = if sizes.is_empty() {
        vec![10_000, 1_000_000]
    } else {
        sizes
    };
    println!(
        "{:>12} {:>14} {:>14} {:>12} {:>12} {:>12}",
        "entries", "integrity/s", "both/s", "integrity", "both", "memory"
    );
    for size in sizes {
        measure(size);
    }
}
