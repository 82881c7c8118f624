//! Several frames under way at once: what lands first is not acknowledged first.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use curfew_ledger::disk::{DirEntry, DiskFile, DiskLock, OpenMode};
use curfew_ledger::{AppendError, Disk, Options, Writer};
use curfew_ledger_faults::FaultyDisk;

use crate::common::*;

#[derive(Debug, Default)]
struct GateState {
    /// The next frame is held up.
    armed: bool,
    /// One is; what is to become of it.
    held: Option<Result<(), io::ErrorKind>>,
    released: bool,
    /// Frames synced since it was armed.
    landed: usize,
}

/// Holds one frame up before it is written, while others pass.
#[derive(Debug, Clone, Default)]
struct Gate(Arc<(Mutex<GateState>, Condvar)>);

impl Gate {
    fn set(&self, change: impl FnOnce(&mut GateState)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn wait(&self, done: impl Fn(&GateState) -> bool) {
        let state = self.0.0.lock().unwrap();
        let limit = Duration::from_secs(30);
        let waited = self.0.1.wait_timeout_while(state, limit, |s| !done(s));
        assert!(!waited.unwrap().1.timed_out(), "waited for 30 s");
    }

    fn pass(&self) -> io::Result<()> {
        let mut state = self.0.0.lock().unwrap();
        if !std::mem::take(&mut state.armed) {
            return Ok(());
        }
        state.held = Some(Ok(()));
        self.0.1.notify_all();
        // Not for ever: a test that has failed waits for its writer.
        let limit = Duration::from_secs(60);
        let waited = self.0.1.wait_timeout_while(state, limit, |s| !s.released);
        let mut state = waited.unwrap().0;
        state.held.take().unwrap().map_err(io::Error::from)
    }

    fn release(&self, outcome: Result<(), io::ErrorKind>) {
        self.set(|state| {
            state.held = Some(outcome);
            state.released = true;
        });
    }
}

#[derive(Debug, Clone)]
struct GatedDisk(FaultyDisk, Gate);

#[derive(Debug)]
struct GatedFile(Box<dyn DiskFile>, Gate);

impl DiskFile for GatedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.1.pass()?;
        self.0.write_all_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        // A quick disk gets single frames one after the other.
        std::thread::sleep(Duration::from_millis(2));
        self.0.sync_data()?;
        self.1.set(|state| state.landed += 1);
        Ok(())
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.0.len_bytes()
    }

    fn set_len_bytes(&self, len_bytes: u64) -> io::Result<()> {
        self.0.set_len_bytes(len_bytes)
    }
}

impl Disk for GatedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let file = self.0.open(path, mode)?;
        let segment = path.extension().is_some_and(|end| end == "seg");
        Ok(match segment {
            true => Box::new(GatedFile(file, self.1.clone())),
            false => file,
        })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.0.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        self.0.try_lock(path)
    }

    fn permissions(&self, path: &Path) -> io::Result<u32> {
        self.0.permissions(path)
    }
}

/// A segment takes all that is written here.
fn roomy() -> Options {
    Options {
        segment_bytes: 1024 * 1024,
        ..options()
    }
}

/// Five entries, durable; then one that is held up, and three frames that land behind it.
fn held_up() -> (FaultyDisk, Gate, Writer, Arc<Acks>) {
    let (disk, gate, acks) = (disk(), Gate::default(), Arc::new(Acks::default()));
    let gated = Arc::new(GatedDisk(disk.clone(), gate.clone()));
    let (writer, _) = Writer::create(roomy(), gated, acks.clone()).unwrap();
    for index in 0..5 {
        writer.append(entry(index)).unwrap();
    }
    acks.wait_durable(5);
    gate.set(|state| {
        state.armed = true;
        state.landed = 0;
    });
    writer.append(entry(5)).unwrap();
    gate.wait(|state| state.held.is_some());
    for frame in 0..3 {
        for part in 0..2 {
            writer.append(vec![frame * 2 + part; 40_000]).unwrap();
        }
        gate.wait(|state| state.landed > usize::from(frame));
    }
    (disk, gate, writer, acks)
}

#[test]
fn what_lands_early_waits_for_what_is_before_it() {
    let (disk, gate, writer, acks) = held_up();
    assert_eq!(writer.durable_size(), 5);
    assert_eq!(acks.get().sizes.last(), Some(&5));
    gate.release(Ok(()));
    acks.wait_durable(12);
    let sizes = acks.get().sizes;
    assert!(sizes.is_sorted() && sizes.contains(&6), "{sizes:?}");
    writer.close().unwrap();
    assert_eq!(check(&disk).unwrap().size, 12);
}

#[test]
fn what_landed_behind_a_gap_is_gone_after_a_crash_and_no_damage() {
    let (disk, gate, writer, _) = held_up();
    for seed in 0..8 {
        let crashed = disk.after_crash(seed);
        let log = open(&crashed, roomy()).unwrap();
        assert_eq!(log.recovered.size, 5);
        assert!(log.recovered.torn_tail.is_some());
        log.fill_one_by_one(9);
        log.writer.close().unwrap();
        assert_eq!(check(&crashed).unwrap().size, 9);
    }
    gate.release(Ok(()));
    drop(writer);
}

#[test]
fn nothing_behind_a_frame_that_failed_is_acknowledged() {
    let (disk, gate, writer, acks) = held_up();
    gate.release(Err(io::ErrorKind::Other));
    let state = acks.wait(|state| !state.failed.is_empty());
    assert_eq!(state.failed.first().unwrap().0, 5);
    assert_eq!(writer.append(entry(12)), Err(AppendError::Failed));
    assert!(writer.close().is_err());
    assert_eq!(acks.get().sizes.last(), Some(&5));
    let log = open(&disk, roomy()).unwrap();
    assert_eq!(log.recovered.size, 5);
    log.writer.close().unwrap();
}

#[test]
fn a_lane_hears_of_a_write_that_was_lost_to_anothers_sync() {
    let disk = disk();
    let path = Path::new("/log-of-two");
    disk.open(path, OpenMode::Create).unwrap();
    let (one, other) = (
        disk.open(path, OpenMode::Write).unwrap(),
        disk.open(path, OpenMode::Write).unwrap(),
    );
    one.write_all_at(b"one", 0).unwrap();
    other.write_all_at(b"other", 512).unwrap();
    let mut failed = false;
    disk.set_plan(move |op| {
        let sync = matches!(op, curfew_ledger_faults::Op::Sync(_));
        let lose = curfew_ledger_faults::Fault::Lose(io::ErrorKind::Other);
        (sync && !std::mem::replace(&mut failed, true)).then_some(lose)
    });
    assert!(other.sync_data().is_err());
    assert!(one.sync_data().is_err());
    assert!(one.sync_data().is_ok());
}
