//! Shared by the tests.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use curfew_ledger::verify::{Failure, Report, Verify, verify};
use curfew_ledger::{
    AppendError, Disk, LogKey, Observer, OpenError, Options, Recovered, VerifierKey, WriteError,
    Writer,
};
use curfew_ledger_faults::FaultyDisk;

pub const DIR: &str = "/log";
pub const GUARD: &str = "/keep/last-signed";

pub fn key() -> LogKey {
    LogKey::from_seed("example.com/curfew", &[7; 32]).unwrap()
}

pub fn keys() -> Vec<VerifierKey> {
    vec![key().verifier()]
}

/// Small segments; no checkpoint but those asked for by closing, so that runs are repeatable.
pub fn options() -> Options {
    Options {
        segment_bytes: 256 * 1024,
        publish_interval: Duration::from_secs(3600),
        segments_kept: usize::MAX,
        ..Options::new(DIR, GUARD, key())
    }
}

pub fn disk() -> FaultyDisk {
    let disk = FaultyDisk::new();
    disk.create_dir_all(Path::new("/keep")).unwrap();
    disk
}

pub fn entry(index: u64) -> Vec<u8> {
    // Lengths vary, and content does not repeat.
    let filler = "x".repeat((index * 7 % 90) as usize);
    format!("entry {index} {filler}").into_bytes()
}

#[derive(Default)]
pub struct Acks {
    state: Mutex<AckState>,
    changed: Condvar,
}

#[derive(Default, Clone, Debug)]
pub struct AckState {
    pub sizes: Vec<u64>,
    pub failed: Vec<(u64, String)>,
    pub published: Vec<String>,
    pub publish_failed: Vec<String>,
    pub up_to_date: Vec<u64>,
    pub seal_failed: Vec<String>,
}

impl Observer for Acks {
    fn durable(&self, size: u64) {
        self.state.lock().unwrap().sizes.push(size);
        self.changed.notify_all();
    }

    fn failed(&self, size: u64, error: &WriteError) {
        self.state
            .lock()
            .unwrap()
            .failed
            .push((size, error.to_string()));
        self.changed.notify_all();
    }

    fn published(&self, note: &str) {
        self.state.lock().unwrap().published.push(note.to_owned());
        self.changed.notify_all();
    }

    fn up_to_date(&self, size: u64) {
        self.state.lock().unwrap().up_to_date.push(size);
        self.changed.notify_all();
    }

    fn publish_failed(&self, error: &curfew_ledger::PublishError) {
        self.state
            .lock()
            .unwrap()
            .publish_failed
            .push(error.to_string());
        self.changed.notify_all();
    }

    fn seal_failed(&self, error: &curfew_ledger::PublishError) {
        let error = error.to_string();
        self.state.lock().unwrap().seal_failed.push(error);
        self.changed.notify_all();
    }
}

impl Acks {
    pub fn get(&self) -> AckState {
        self.state.lock().unwrap().clone()
    }

    pub fn wait(&self, done: impl Fn(&AckState) -> bool) -> AckState {
        let state = self.state.lock().unwrap();
        let limit = Duration::from_secs(30);
        let (state, timeout) = self
            .changed
            .wait_timeout_while(state, limit, |state| !done(state))
            .unwrap();
        assert!(!timeout.timed_out(), "waited for 30 s");
        state.clone()
    }

    pub fn wait_durable(&self, size: u64) {
        self.wait(|state| state.sizes.last().is_some_and(|last| *last >= size));
    }
}

pub struct Log {
    pub writer: Writer,
    pub recovered: Recovered,
    pub acks: Arc<Acks>,
}

pub fn create(disk: &FaultyDisk, options: Options) -> Log {
    let acks = Arc::new(Acks::default());
    let made = Writer::create(options, Arc::new(disk.clone()), acks.clone());
    let (writer, recovered) = made.unwrap();
    Log {
        writer,
        recovered,
        acks,
    }
}

pub fn open(disk: &FaultyDisk, options: Options) -> Result<Log, OpenError> {
    let acks = Arc::new(Acks::default());
    let (writer, recovered) = Writer::open(options, Arc::new(disk.clone()), acks.clone())?;
    Ok(Log {
        writer,
        recovered,
        acks,
    })
}

impl Log {
    /// Appends entries up to `size`, each durable before the next.
    pub fn fill_one_by_one(&self, size: u64) {
        for index in self.writer.size()..size {
            assert_eq!(self.writer.append(entry(index)).unwrap(), index);
            self.acks.wait_durable(index + 1);
        }
    }

    /// Appends one entry, waiting while the queue is full.
    pub fn append(&self, bytes: &[u8]) -> u64 {
        loop {
            match self.writer.append(bytes) {
                Ok(index) => return index,
                Err(AppendError::Full) => std::thread::sleep(Duration::from_millis(1)),
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// Appends entries up to `size` as fast as they are taken, and waits for the last.
    pub fn fill(&self, size: u64) {
        for index in self.writer.size()..size {
            assert_eq!(self.append(&entry(index)), index);
        }
        self.acks.wait_durable(size);
    }

    pub fn check_entries(&self, size: u64) {
        assert_eq!(self.recovered.size, size);
        let mut count = 0;
        for found in self.recovered.entries() {
            let (index, bytes) = found.unwrap();
            assert_eq!((index, bytes), (count, entry(count)));
            count += 1;
        }
        assert_eq!(count, size);
    }
}

pub fn check(disk: &FaultyDisk) -> Result<Report, Vec<Failure>> {
    check_with(disk, None)
}

pub fn check_with(disk: &FaultyDisk, remembered: Option<&[u8]>) -> Result<Report, Vec<Failure>> {
    let disk = Arc::new(disk.clone());
    verify(
        &Verify {
            dir: Path::new(DIR),
            keys: &keys(),
            remembered,
            from: None,
            disk,
        },
        &mut (),
    )
}

pub fn segment(first: u64) -> PathBuf {
    Path::new(DIR).join(format!("segments/{first:020}.seg"))
}
