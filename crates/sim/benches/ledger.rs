//! How fast entries become durable: `cargo xtask bench ledger`.
//!
//! A closed loop keeps a number of entries outstanding. Beside it, in the same run and in turns, the
//! raw limit: a bare loop that writes the very batches the ledger has just written, each with one
//! sync, into segments prepared in the same way, with as many entries under way at once as the ledger
//! had; and the same with as many batches under way as the ledger may have at most. Then SQLite (WAL,
//! synchronous=FULL), fjall, and the journal's daemon with sealing (0 where it cannot run), which commit
//! as many rows at a time as entries were outstanding. Arguments: `--seconds N` for each measurement, `--rounds N`, `--at DIR`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    reason = "a measurement prints its table, and one that cannot go on must stop"
)]

#[path = "ledger/journal.rs"]
mod journal;

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use curfew_ledger::{LogKey, Observer, Options, PublishError, RealDisk, WriteError, Writer};

/// Bytes of an entry: what an action takes.
const ENTRY_BYTES: usize = 300;

/// Entries kept outstanding.
const DEPTHS: [usize; 5] = [1, 16, 256, 1024, 4096];

/// Bytes of a segment, as the ledger makes them.
const SEGMENT_BYTES: u64 = curfew_ledger::options::SEGMENT_BYTES_DEFAULT;

#[derive(Parser)]
struct Arguments {
    /// Seconds for each measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Measurements of each; their medians are shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Entries kept outstanding, one measurement after the other.
    #[arg(long, value_delimiter = ',', default_values_t = DEPTHS)]
    depths: Vec<usize>,
    /// Only the ledger itself, for profiling. What it wrote stays.
    #[arg(long)]
    alone: bool,
    /// Where to write; what is written is removed at the end.
    #[arg(long, default_value = "target")]
    at: PathBuf,
    /// Given by `cargo bench`, and of no meaning.
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by `cargo test --benches`: nothing is measured.
    #[arg(long, hide = true)]
    test: bool,
}

/// Entries on their way, and what came back.
#[derive(Default)]
struct Flight {
    /// When entries were handed over that are not yet durable.
    sent: VecDeque<Instant>,
    durable: u64,
    /// Of each entry, in nanoseconds.
    waited: Vec<u64>,
    /// Entries of each batch.
    batches: Vec<u64>,
}

#[derive(Default)]
struct Watch {
    flight: Mutex<Flight>,
    landed: Condvar,
}

impl Observer for Watch {
    fn durable(&self, size: u64) {
        let now = Instant::now();
        let mut flight = self.flight.lock().unwrap();
        let count = size - flight.durable;
        flight.durable = size;
        flight.batches.push(count);
        for _ in 0..count {
            let sent = flight.sent.pop_front().unwrap();
            flight
                .waited
                .push(u64::try_from((now - sent).as_nanos()).unwrap());
        }
        drop(flight);
        self.landed.notify_one();
    }

    fn failed(&self, _: u64, error: &WriteError) {
        panic!("{error}");
    }

    fn publish_failed(&self, error: &PublishError) {
        panic!("{error}");
    }
}

struct Silent;

impl Observer for Silent {
    fn durable(&self, _: u64) {}

    fn failed(&self, _: u64, error: &WriteError) {
        panic!("{error}");
    }
}

/// What one measurement came to.
#[derive(Clone, Default)]
struct Measured {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// Processor time of this whole program for each entry, whoever hands it over included.
    cpu_ns: f64,
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn measured(count: u64, took: Duration, mut waited: Vec<u64>) -> Measured {
    waited.sort_unstable();
    let at = |part: usize| {
        waited
            .get(waited.len() * part / 100)
            .map_or(0.0, |ns| *ns as f64 / 1e3)
    };
    Measured {
        per_second: count as f64 / took.as_secs_f64(),
        p50_us: at(50),
        p99_us: at(99),
        cpu_ns: 0.0,
    }
}

/// Processor time that this program has had, user and system, in hundredths of a second.
fn cpu_ticks() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = text.rsplit_once(')').unwrap().1.split_whitespace();
    fields
        .skip(11)
        .take(2)
        .map(|field| field.parse::<f64>().unwrap())
        .sum()
}

/// Keeps `depth` entries outstanding for a time. Gives also the batches that came of it.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn ledger(folder: &Path, depth: usize, time: Duration) -> (Measured, Vec<u64>) {
    let key = LogKey::create(&folder.join("key"), "bench.example/log").unwrap();
    let options = Options::new(folder.join("ledger"), folder.join("guard"), key);
    let watch = Arc::new(Watch::default());
    let (writer, _) = Writer::create(options, Arc::new(RealDisk), watch.clone()).unwrap();
    settle();
    let mut entry = vec![b'x'; ENTRY_BYTES];
    let (begun, ticks) = (Instant::now(), cpu_ticks());
    let mut sent = 0_u64;
    loop {
        let now = Instant::now();
        if now - begun >= time {
            break;
        }
        let mut flight = watch.flight.lock().unwrap();
        while flight.sent.len() >= depth {
            flight = watch.landed.wait(flight).unwrap();
        }
        let room = depth - flight.sent.len();
        // Known to be under way before it is, so that it cannot land earlier.
        flight.sent.resize(depth, Instant::now());
        drop(flight);
        for left in (0..room).rev() {
            entry[..8].copy_from_slice(&sent.to_be_bytes());
            // Full: the disk is slower than this loop. What is outstanding lands first.
            if writer.append(&entry).is_err() {
                let mut flight = watch.flight.lock().unwrap();
                let under_way = flight.sent.len() - left - 1;
                flight.sent.truncate(under_way);
                break;
            }
            sent += 1;
        }
    }
    let (took, ticks) = (begun.elapsed(), cpu_ticks() - ticks);
    let mut flight = watch.flight.lock().unwrap();
    let (durable, waited) = (flight.durable, std::mem::take(&mut flight.waited));
    let batches = std::mem::take(&mut flight.batches);
    drop(flight);
    writer.close().unwrap();
    let mut measured = measured(durable, took, waited);
    measured.cpu_ns = ticks * 1e7 / durable.max(1) as f64;
    (measured, batches)
}

/// Lets the disk come to rest: segments are prepared beside the first batches otherwise.
fn settle() {
    std::thread::sleep(Duration::from_millis(500));
}

/// Makes files of zeros, prepared like the ledger's segments: what is written goes into them. Earlier
/// ones are written over.
fn zeroed(folder: &Path, bytes: u64) {
    let zeros = vec![0; 4 << 20];
    for n in 0..bytes.div_ceil(SEGMENT_BYTES) {
        let path = folder.join(format!("raw-{n}"));
        let file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .open(path);
        let file = file.unwrap();
        let mut at = 0;
        while at < SEGMENT_BYTES {
            file.write_all_at(&zeros, at).unwrap();
            at += zeros.len() as u64;
        }
        file.sync_all().unwrap();
    }
}

/// The bytes of a frame of so many entries: whole blocks, as the ledger pads them.
fn frame_bytes(count: u64) -> usize {
    let payload = usize::try_from(count).unwrap() * (ENTRY_BYTES + 2);
    curfew_ledger::segment::frame_bytes(payload)
        .try_into()
        .unwrap()
}

/// Where each of these batches goes: file, offset, bytes.
fn plan(batches: &[u64]) -> Vec<(usize, u64, usize)> {
    let (mut file, mut at) = (0, 0);
    let place = |count: &u64| {
        let bytes = frame_bytes(*count);
        if at + bytes as u64 > SEGMENT_BYTES {
            (file, at) = (file + 1, 0);
        }
        let place = (file, at, bytes);
        at += bytes as u64;
        place
    };
    batches.iter().map(place).collect()
}

/// How many batches make up `depth` entries, at most as many as the ledger may have under way.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small number"
)]
fn lanes(depth: usize, batches: &[u64]) -> usize {
    let mean = batches.iter().sum::<u64>() as f64 / batches.len() as f64;
    let most = curfew_ledger::options::WRITES_IN_FLIGHT_LIMIT;
    ((depth as f64 / mean).round() as usize).clamp(1, most)
}

/// Writes these batches and syncs each, no more; so many at once.
fn raw(folder: &Path, batches: &[u64], lanes: usize, time: Duration) -> Measured {
    let plan = plan(batches);
    let files = plan.last().map_or(0, |(file, ..)| *file as u64 + 1);
    zeroed(folder, files * SEGMENT_BYTES);
    settle();
    let buffer = vec![b'x'; plan.iter().map(|place| place.2).max().unwrap()];
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    let lane = || {
        let mut open = None;
        let (mut count, mut waited) = (0, Vec::with_capacity(batches.len()));
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let start = Instant::now();
            let Some((at, offset, bytes)) = plan.get(number).copied() else {
                break;
            };
            if start - begun >= time {
                break;
            }
            let (_, file) = match open.take() {
                Some((held, file)) if held == at => open.insert((held, file)),
                _ => open.insert((at, reopened(folder, at))),
            };
            file.write_all_at(&buffer[..bytes], offset).unwrap();
            file.sync_data().unwrap();
            count += batches[number];
            waited.push(u64::try_from(start.elapsed().as_nanos()).unwrap());
        }
        (count, waited)
    };
    let (count, waited) = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        let all = lanes.into_iter().map(|lane| lane.join().unwrap());
        all.fold((0, Vec::new()), |(sum, mut waits), (count, waited)| {
            waits.extend(waited);
            (sum + count, waits)
        })
    });
    measured(count, begun.elapsed(), waited)
}

fn reopened(folder: &Path, file: usize) -> File {
    let path = folder.join(format!("raw-{file}"));
    File::options().write(true).open(path).unwrap()
}

/// Runs `commit` with ever new numbers of rows for a time.
fn commits(rows: usize, time: Duration, mut commit: impl FnMut(u64)) -> Measured {
    settle();
    let (mut count, mut waited) = (0, Vec::new());
    let begun = Instant::now();
    while begun.elapsed() < time {
        let start = Instant::now();
        commit(count);
        count += rows as u64;
        waited.push(u64::try_from(start.elapsed().as_nanos()).unwrap());
    }
    measured(count, begun.elapsed(), waited)
}

fn sqlite(folder: &Path, rows: usize, time: Duration) -> Measured {
    let mut db = rusqlite::Connection::open(folder.join("log.sqlite")).unwrap();
    db.pragma_update(None, "journal_mode", "wal").unwrap();
    db.pragma_update(None, "synchronous", "full").unwrap();
    db.execute_batch("create table log (id integer primary key, entry blob not null)")
        .unwrap();
    let entry = vec![b'x'; ENTRY_BYTES];
    commits(rows, time, |first| {
        let change = db.transaction().unwrap();
        let mut insert = change
            .prepare_cached("insert into log values (?1, ?2)")
            .unwrap();
        for id in first..first + rows as u64 {
            insert
                .execute((i64::try_from(id).unwrap(), &entry))
                .unwrap();
        }
        drop(insert);
        change.commit().unwrap();
    })
}

fn fjall(folder: &Path, rows: usize, time: Duration) -> Measured {
    let db = fjall::Database::builder(folder.join("fjall"))
        .open()
        .unwrap();
    let log = db
        .keyspace("log", fjall::KeyspaceCreateOptions::default)
        .unwrap();
    let entry = vec![b'x'; ENTRY_BYTES];
    commits(rows, time, |first| {
        let mut batch = db.batch().durability(Some(fjall::PersistMode::SyncData));
        for id in first..first + rows as u64 {
            batch.insert(&log, id.to_be_bytes(), entry.as_slice());
        }
        batch.commit().unwrap();
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The medians of several measurements.
fn middle(all: &[Measured]) -> Measured {
    let of = |part: fn(&Measured) -> f64| median(all.iter().map(part).collect());
    Measured {
        per_second: of(|one| one.per_second),
        p50_us: of(|one| one.p50_us),
        p99_us: of(|one| one.p99_us),
        cpu_ns: of(|one| one.cpu_ns),
    }
}

/// The ledger without anything beside it.
fn alone(depth: usize, arguments: &Arguments, used: &mut Vec<tempfile::TempDir>) {
    let time = Duration::from_secs_f64(arguments.seconds);
    for _ in 0..arguments.rounds {
        used.push(tempfile::tempdir_in(&arguments.at).unwrap());
        let (ours, batches) = ledger(used.last().unwrap().path(), depth, time);
        println!(
            "{depth} outstanding: {:.0}/s, p50 {:.0} µs, p99 {:.0} µs, processor {:.0} ns; {} batches",
            ours.per_second,
            ours.p50_us,
            ours.p99_us,
            ours.cpu_ns,
            batches.len()
        );
    }
    used.drain(..).for_each(|folder| drop(folder.keep()));
}

#[expect(clippy::cast_precision_loss, reason = "a mean is shown")]
fn measure(depth: usize, arguments: &Arguments, used: &mut Vec<tempfile::TempDir>) {
    let time = Duration::from_secs_f64(arguments.seconds);
    let mut all: [Vec<Measured>; 6] = Default::default();
    let (mut ratios, mut syncs, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        used.push(tempfile::tempdir_in(&arguments.at).unwrap());
        let folder = used.last().unwrap().path();
        let (ours, batches) = ledger(folder, depth, time);
        let bare = raw(folder, &batches, lanes(depth, &batches), time * 4);
        let most = depth.min(curfew_ledger::options::WRITES_IN_FLIGHT_LIMIT);
        let four = raw(folder, &batches, most, time * 4);
        ratios.push(ours.per_second / bare.per_second);
        syncs.push(ours.p50_us / bare.p50_us);
        sizes.push(batches.iter().sum::<u64>() as f64 / batches.len() as f64);
        let rivals = [
            sqlite(folder, depth, time),
            fjall(folder, depth, time),
            journal::journal(folder, depth, time).unwrap_or_default(),
        ];
        let ours = [ours, bare, four].into_iter();
        for (kept, one) in all.iter_mut().zip(ours.chain(rivals)) {
            kept.push(one);
        }
    }
    let [ours, bare, four, sqlite, fjall, journal] = all.map(|all| middle(&all));
    println!(
        "| {depth} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {:.0} | {:.1} | {:.0} | {:.0} | {:.1} | {:.0} | {:.1} | {:.0} |",
        ours.per_second,
        ours.p50_us,
        ours.p99_us,
        ours.cpu_ns,
        bare.per_second,
        median(ratios),
        bare.p50_us,
        median(syncs),
        four.per_second,
        sqlite.per_second,
        ours.per_second / sqlite.per_second,
        fjall.per_second,
        ours.per_second / fjall.per_second,
        journal.per_second,
    );
    println!("<!-- {:.0} entries a batch -->", median(sizes));
}

fn main() {
    let arguments = Arguments::parse();
    if arguments.test {
        return;
    }
    std::fs::create_dir_all(&arguments.at).unwrap();
    println!(
        "entries of {ENTRY_BYTES} bytes; medians of {} rounds\n",
        arguments.rounds
    );
    println!(
        "| outstanding | ledger/s | ack p50 µs | p99 µs | processor ns | bare loop/s | ledger ÷ bare | bare sync p50 µs | ack ÷ bare sync | bare, most at once | SQLite/s | ledger ÷ SQLite | fjall/s | ledger ÷ fjall | journal/s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    // Removed at the end: for seconds after many files are deleted, ext4 makes new ones slowly.
    let mut used = Vec::new();
    for depth in arguments.depths.iter().copied() {
        if arguments.alone {
            alone(depth, &arguments, &mut used);
        } else {
            measure(depth, &arguments, &mut used);
        }
    }
    if arguments.alone {
        return;
    }
    used.push(tempfile::tempdir_in(&arguments.at).unwrap());
    let took = recovery(used.last().unwrap().path(), 1 << 30);
    println!("a tail of 1 GiB that was not published is opened in {took:.2} s");
}

/// Writes a tail that nothing was published of, and opens the log on it. Gives seconds.
fn recovery(folder: &Path, bytes: u64) -> f64 {
    let key = LogKey::create(&folder.join("key"), "bench.example/log").unwrap();
    let options = Options {
        publish_interval: Duration::from_secs(86_400),
        ..Options::new(folder.join("ledger"), folder.join("guard"), key)
    };
    let made = Writer::create(options.clone(), Arc::new(RealDisk), Arc::new(Silent));
    let writer = made.unwrap().0;
    let entry = vec![b'x'; ENTRY_BYTES];
    let count = bytes / (ENTRY_BYTES as u64 + 2);
    for _ in 0..count {
        while writer.append(&entry).is_err() {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    // As a crash leaves it: all durable, nothing signed.
    drop(writer);
    let begun = Instant::now();
    let opened = Writer::open(options, Arc::new(RealDisk), Arc::new(Silent));
    let took = begun.elapsed().as_secs_f64();
    assert_eq!(opened.unwrap().1.size, count);
    took
}
