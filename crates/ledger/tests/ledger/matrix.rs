//! The crash matrix: every operation of a log's whole life fails in every way, then the power goes.
//!
//! A scripted life (create, commit, go on to the next segment, publish, swap the guard, recover from
//! a torn tail) is run once to learn its operations, and then once for each of them and each way to
//! fail, where the machine either goes on or dies there. Then the power is cut, and of what was not
//! synced all, nothing, or sectors in any order are kept. See [`Told::holds`] for what must be true.
//!
//! Random lives fail more than once, under load. An operation is named by its file and how often
//! that was asked before, so that a seed fails at the same places however the threads take turns.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use curfew_ledger::disk::OpenMode;
use curfew_ledger::{AppendError, Checkpoint, Disk, OpenError, Options, Writer};
use curfew_ledger_faults::{Fault, FaultyDisk, Kept, Op};

use crate::common::*;

const EIO: ErrorKind = ErrorKind::Other;

/// Segments are sealed as soon as they can be.
fn options() -> Options {
    Options {
        segments_kept: 2,
        ..crate::common::options()
    }
}

/// What an index holds, in every run: some are large, so that segments are changed.
fn content(index: u64) -> Vec<u8> {
    let filler = if matches!(index % 300, 4..16 | 258..268) {
        30_000
    } else {
        0
    };
    [entry(index), vec![b'z'; filler]].concat()
}

/// What the outside has been told, and may rely on.
#[derive(Clone, Default)]
struct Told {
    /// So many entries were said to be durable.
    durable: u64,
    /// The newest checkpoint that anybody could see.
    shown: Option<(u64, Vec<u8>)>,
}

impl Told {
    fn hear(&mut self, log: &Log, disk: &FaultyDisk) {
        let acks = log.acks.get();
        let said = acks.sizes.last().copied().unwrap_or_default();
        self.durable = self.durable.max(said).max(log.recovered.size);
        self.see(disk);
        for note in acks.published {
            self.note(note.as_bytes());
        }
    }

    fn see(&mut self, disk: &FaultyDisk) {
        if let Some(note) = disk.files().get(Path::new("/log/checkpoint")) {
            self.note(note);
        }
    }

    fn note(&mut self, note: &[u8]) {
        let size = Checkpoint::verify(note, &keys()).unwrap().size;
        if self.shown.as_ref().is_none_or(|(shown, _)| size >= *shown) {
            self.shown = Some((size, note.to_vec()));
        }
    }

    /// Opens the log, or creates it as long as nobody was told anything.
    fn open(&self, disk: &FaultyDisk, options: Options) -> Result<Log, OpenError> {
        match open(disk, options.clone()) {
            Err(OpenError::Missing { .. } | OpenError::GuardMissing { .. })
                if self.durable == 0 && self.shown.is_none() =>
            {
                let acks = Arc::new(Acks::default());
                let (writer, recovered) =
                    Writer::create(options, Arc::new(disk.clone()), acks.clone())?;
                Ok(Log {
                    writer,
                    recovered,
                    acks,
                })
            }
            outcome => outcome,
        }
    }

    /// What must be true of what a power cut has left. `whole` asks for all of it: another power
    /// cut, writing on, and the proof.
    fn holds(&self, disk: &FaultyDisk, whole: bool, case: &dyn Fn() -> String) {
        // The guard is never behind what was shown.
        if let Some((shown, _)) = &self.shown {
            let files = disk.files();
            let guard = files.get(Path::new(GUARD));
            let guard = guard.unwrap_or_else(|| panic!("{}: no guard", case()));
            let guard = Checkpoint::verify(guard, &keys())
                .unwrap_or_else(|error| panic!("{}: guard: {error}", case()));
            let size = guard.size;
            assert!(
                size >= *shown,
                "{}: the guard is at {size}, {shown} was shown",
                case()
            );
        }
        // The log opens, with every acknowledged entry and no half one.
        let log = self
            .open(disk, options())
            .unwrap_or_else(|error| panic!("{}: {error}", case()));
        let size = log.recovered.size;
        let acked = self.durable;
        assert!(
            size >= acked,
            "{}: {acked} were acknowledged, {size} are left",
            case()
        );
        let mut next = 0;
        for found in log.recovered.entries() {
            let (index, bytes) = found.unwrap_or_else(|error| panic!("{}: {error}", case()));
            assert!(
                index == next && bytes == content(index),
                "{}: entry {index}",
                case()
            );
            next += 1;
        }
        assert_eq!(next, size, "{}", case());
        if !whole {
            return;
        }
        // What recovery counts is durable by then.
        let again = disk.after_power_cut(Kept::Nothing);
        let again =
            open(&again, options()).unwrap_or_else(|error| panic!("{}: again: {error}", case()));
        assert_eq!(again.recovered.size, size, "{}: counted and lost", case());
        // It goes on, and is proved to go on from what was shown.
        for index in size..size + 2 {
            assert_eq!(log.append(&content(index)), index, "{}", case());
        }
        log.acks.wait_durable(size + 2);
        log.writer
            .close()
            .unwrap_or_else(|error| panic!("{}: close: {error}", case()));
        let shown = self.shown.as_ref().map(|(_, note)| note.as_slice());
        let report =
            check_with(disk, shown).unwrap_or_else(|failures| panic!("{}: {failures:?}", case()));
        let found = (report.size, report.unsigned(), report.torn_tail);
        assert_eq!(found, (size + 2, 0, None), "{}", case());
    }
}

/// What an operation is done to, and how: what makes it the same one in another run.
type Place = (&'static str, PathBuf);

fn place(op: &Op) -> Option<Place> {
    Some(match op {
        Op::Read(_) => return None,
        Op::Write(path, ..) => ("write", path.clone()),
        Op::Sync(path) => ("sync", path.clone()),
        Op::SyncDir(path) => ("sync of directory", path.clone()),
        Op::Create(path) => ("create", path.clone()),
        Op::Rename(path) => ("rename to", path.clone()),
        Op::SetLen(path) => ("length of", path.clone()),
        Op::Remove(path) => ("remove", path.clone()),
        Op::CreateDir(path) => ("create directory", path.clone()),
    })
}

/// Counts how often each place came up.
#[derive(Default)]
struct Counter(BTreeMap<Place, u64>);

impl Counter {
    fn count(&mut self, place: &Place) -> u64 {
        let count = self.0.entry(place.clone()).or_default();
        *count += 1;
        *count - 1
    }
}

/// Appends up to `goal`, one by one or all at once, as far as the log takes it.
fn append(log: &Log, goal: u64, one_by_one: bool) {
    let heard = |size| {
        log.acks
            .wait(|state| state.sizes.last() >= Some(&size) || !state.failed.is_empty());
    };
    let from = log.writer.size();
    let mut index = from;
    while index < goal {
        match log.writer.append(content(index)) {
            Ok(_) => index += 1,
            Err(AppendError::Full) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => break,
        }
        if one_by_one && index > from {
            heard(index);
        }
    }
    if index > from {
        heard(index);
    }
}

/// Half a frame behind the last one, as an interrupted write leaves it.
fn tear(disk: &FaultyDisk) {
    let files = disk.files();
    let mut segments = files
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "seg"));
    let Some((path, bytes)) = segments.next_back() else {
        return;
    };
    let used = bytes.iter().rposition(|byte| *byte != 0);
    let end = used.map_or(0, |last| (last + 1).next_multiple_of(4096));
    if end + 4096 <= bytes.len()
        && let Ok(file) = disk.open(path, OpenMode::Write)
    {
        let _ = file.write_all_at(&[7; 1500], end as u64);
    }
}

/// The scripted life. What is left open at its end is given back.
fn live(disk: &FaultyDisk, told: &mut Told) -> Option<Log> {
    let mut left = None;
    for (goal, one_by_one) in [(3, true), (15, true), (270, false), (273, true)] {
        if goal == 273 {
            tear(disk);
        }
        // What failed once may be tried again.
        let log = told
            .open(disk, options())
            .or_else(|_| told.open(disk, options()));
        let log = log.ok()?;
        told.hear(&log, disk);
        append(&log, goal, one_by_one);
        told.hear(&log, disk);
        if goal == 273 {
            left = Some(log);
        } else {
            let acks = log.acks.clone();
            let _ = log.writer.close();
            for note in acks.get().published {
                told.note(note.as_bytes());
            }
            told.see(disk);
        }
    }
    left
}

fn faults_of(what: &str) -> &'static [(&'static str, Fault)] {
    const FAILS: (&str, Fault) = ("fails and is not stored", Fault::Fail(EIO));
    const STORED: (&str, Fault) = ("fails but is stored", Fault::FailAfter(EIO));
    match what {
        // Shorter writes are torn at their first sector, or are not begun.
        "write" => &[FAILS, STORED, ("is torn", Fault::Torn(512, EIO))],
        "sync" => &[FAILS, STORED, ("fails and forgets", Fault::Lose(EIO))],
        _ => &[FAILS, STORED],
    }
}

/// Learns the operations of the scripted life: those of every one of some runs, since a burst falls
/// into more batches now than another time.
fn operations() -> Vec<(Place, u64)> {
    let mut common: Option<BTreeMap<Place, u64>> = None;
    for _ in 0..8 {
        let seen = operations_once();
        common = Some(match common {
            None => seen,
            Some(common) => common
                .into_iter()
                .filter_map(|(place, count)| {
                    let again = *seen.get(&place)?;
                    Some((place, count.min(again)))
                })
                .collect(),
        });
    }
    let common = common.unwrap_or_default().into_iter();
    common
        .flat_map(|(place, count)| (0..count).map(move |nth| (place.clone(), nth)))
        .collect()
}

/// How often each place came up in one run.
fn operations_once() -> BTreeMap<Place, u64> {
    let disk = disk();
    let seen = Arc::new(Mutex::new(Counter::default()));
    let record = seen.clone();
    disk.set_plan(move |op| {
        record.lock().unwrap().count(&place(op)?);
        None
    });
    let mut told = Told::default();
    drop(live(&disk, &mut told).unwrap());
    assert_eq!(told.durable, 273);
    let seen = seen.lock().unwrap();
    seen.0.clone()
}

/// Runs jobs on a few threads, since much of a run is waiting for another thread.
fn in_parallel(jobs: usize, job: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    if at >= jobs {
                        return;
                    }
                    job(at);
                }
            });
        }
    });
}

#[test]
fn every_operation_fails_in_every_way_and_nothing_is_lost() {
    let full = asked("CURFEW_CRASH_FULL").is_some();
    let operations = operations();
    let mut jobs = Vec::new();
    for ((what, path), nth) in &operations {
        for (how, fault) in faults_of(what) {
            for dies in [false, true] {
                jobs.push(((*what, path.clone()), *nth, *how, *fault, dies));
            }
        }
    }
    let (cases, missed) = (AtomicU64::new(0), AtomicU64::new(0));
    in_parallel(jobs.len(), |at| {
        let (target, nth, how, fault, dies) = jobs[at].clone();
        let disk = disk();
        let hit = Arc::new(AtomicU64::new(0));
        let (struck, mut counter, aim) = (hit.clone(), Counter::default(), target.clone());
        disk.set_plan(move |op| {
            if struck.load(Ordering::SeqCst) > 0 {
                return dies.then_some(Fault::Fail(EIO));
            }
            let place = place(op)?;
            if counter.count(&place) == nth && place == aim {
                struck.store(1, Ordering::SeqCst);
                return Some(fault);
            }
            None
        });
        let mut told = Told::default();
        let left = live(&disk, &mut told);
        missed.fetch_add(1 - hit.load(Ordering::SeqCst), Ordering::SeqCst);
        let seed = at as u64;
        let all = [Kept::All, Kept::Nothing, Kept::Some(seed)];
        let chosen = if full {
            &all[..]
        } else {
            &all[at % 3..=at % 3]
        };
        for kept in chosen.iter().copied() {
            let after = disk.after_power_cut(kept);
            let whole = matches!(kept, Kept::Some(_)) || at % 4 == 0;
            told.holds(&after, whole, &|| {
                let then = if dies { "dies" } else { "goes on" };
                let (what, path) = (target.0, target.1.display());
                format!("{what} {path} (number {nth}) {how}, the machine {then}, {kept:?} is kept")
            });
            cases.fetch_add(1, Ordering::SeqCst);
        }
        drop(left);
    });
    let places: BTreeSet<_> = operations.iter().map(|(place, _)| place).collect();
    let (cases, missed) = (cases.into_inner(), missed.into_inner());
    println!(
        "crash matrix: {} operations on {} places, {} runs, {cases} cases; {missed} runs met no fault",
        operations.len(),
        places.len(),
        jobs.len(),
    );
    // How a burst falls into batches varies a little; nothing else does.
    assert!(
        missed * 10 < jobs.len() as u64,
        "{missed} of {}",
        jobs.len()
    );
    everything_is_there(&places);
}

/// The script leaves out no part of the pipeline.
fn everything_is_there(places: &BTreeSet<&Place>) {
    for needed in [
        "/log/segments/prepared-segment.tmp",
        "/log/checkpoints",
        "/log/checkpoint.tmp",
        "/keep/last-signed.tmp",
        "/log/tile.tmp",
    ] {
        let place = ("write", PathBuf::from(needed));
        assert!(places.contains(&place), "{needed} is not written");
    }
    assert!(places.contains(&("rename to", GUARD.into())));
    for (what, path) in [
        ("sync", PathBuf::from("/log/tile/entries/000")),
        ("sync of directory", PathBuf::from("/log/tile/entries")),
        ("remove", segment(0)),
    ] {
        assert!(places.contains(&(what, path)), "nothing is sealed");
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// A plan that fails one operation in `rarity`, chosen by seed, place and number.
fn random_plan(seed: u64, rarity: u64, fired: Arc<AtomicU64>) -> impl FnMut(&Op) -> Option<Fault> {
    let mut counter = Counter::default();
    move |op| {
        let place = place(op)?;
        let nth = counter.count(&place);
        let mut mixed = seed ^ nth.wrapping_mul(0x9e37_79b9);
        for byte in place.0.bytes().chain(place.1.to_string_lossy().bytes()) {
            mixed = mixed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte);
        }
        let mut random = Random(mixed);
        if random.below(rarity) > 0 {
            return None;
        }
        fired.fetch_add(1, Ordering::SeqCst);
        let torn = 512 * random.below(9) as usize;
        let faults = [
            Fault::Fail(EIO),
            Fault::FailAfter(EIO),
            Fault::Lose(EIO),
            Fault::Torn(torn, EIO),
            Fault::Fail(ErrorKind::StorageFull),
        ];
        Some(faults[random.below(5) as usize])
    }
}

/// Some power cuts and faults in the life of one log; gives the number of each.
fn random_life(seed: u64) -> (u64, u64) {
    let mut random = Random(seed);
    let mut disk = disk();
    let mut told = Told::default();
    let fired = Arc::new(AtomicU64::new(0));
    let cuts = 3 + random.below(5);
    for cut in 0..cuts {
        let options = Options {
            publish_interval: [Duration::from_millis(1), Duration::from_secs(3600)]
                [random.below(2) as usize],
            batch_bytes_max: [1, 2_000, 1 << 20][random.below(3) as usize],
            ..options()
        };
        let rarity = [4, 15, 60][random.below(3) as usize];
        let plan = random_plan(seed + (cut << 32), rarity, fired.clone());
        // Recovery fails too, now and then.
        let early = random.below(2) == 0;
        let mut plan = Some(plan);
        if early {
            disk.set_plan(plan.take().unwrap());
        }
        let log = match told.open(&disk, options.clone()) {
            // A failing disk is no reason to call a log damaged or old.
            Err(OpenError::File(_)) if early => None,
            Err(error) => panic!("seed {seed}, cut {cut}: {error}"),
            Ok(log) => Some(log),
        };
        if let Some(plan) = plan {
            disk.set_plan(plan);
        }
        if let Some(log) = &log {
            told.hear(log, &disk);
            for _ in 0..random.below(6) {
                let goal = log.writer.size() + 1 + random.below(60);
                append(log, goal, random.below(4) == 0);
            }
            // More, of which nobody waits for the end.
            for index in log.writer.size()..log.writer.size() + random.below(30) {
                if log.writer.append(content(index)).is_err() {
                    break;
                }
            }
            told.hear(log, &disk);
        }
        let kept = match random.below(5) {
            0 => Kept::All,
            1 => Kept::Nothing,
            _ => Kept::Some(random.below(u64::MAX)),
        };
        let after = disk.after_power_cut(kept);
        drop(log);
        disk = after;
        let last = cut + 1 == cuts;
        let proved = disk.copy();
        told.holds(&proved, last, &|| {
            format!("seed {seed}, cut {cut}, {kept:?} is kept")
        });
    }
    (fired.load(Ordering::SeqCst), cuts)
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a test runs is asked for from outside"
)]
fn asked(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

/// `cargo xtask crash` runs this for longer, and from another seed.
#[test]
fn random_faults_lose_nothing() {
    let goal = asked("CURFEW_CRASH_FAULTS").unwrap_or(400);
    let first = asked("CURFEW_CRASH_SEED").unwrap_or(1);
    let lives = AtomicU64::new(0);
    let faults = AtomicU64::new(0);
    let cuts = AtomicU64::new(0);
    in_parallel(2, |_| {
        while faults.load(Ordering::SeqCst) < goal {
            let seed = first + lives.fetch_add(1, Ordering::SeqCst);
            let life = std::panic::catch_unwind(|| random_life(seed));
            let (fired, cut) = life.unwrap_or_else(|_| {
                panic!("again with: cargo xtask crash --faults 1 --seed {seed}")
            });
            cuts.fetch_add(cut, Ordering::SeqCst);
            let before = faults.fetch_add(fired, Ordering::SeqCst);
            let now = before + fired;
            if before / 1_000 < now / 1_000 {
                println!("{now} faults, {} lives", lives.load(Ordering::SeqCst));
            }
        }
    });
    let count = |number: &AtomicU64| number.load(Ordering::SeqCst);
    println!(
        "random faults: {} in {} lives of a log, {} power cuts; nothing was lost",
        count(&faults),
        count(&lives),
        count(&cuts),
    );
}
