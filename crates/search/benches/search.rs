//! How fast entries are found in a log of ten million, and how fast the index is made.
//!
//! The log is real: entries of the usual kinds in the usual mix, written by the ledger's writer.
//! Each question is asked with the files out of the page cache and again with them in it, and
//! beside both stands the time for reading the whole log in the same run.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark: what is wrong should stop it at once"
)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use curfew_entry::{Entry, Timestamp};
use curfew_ledger::{AppendError, LogKey, Observer, Options, RealDisk, WriteError, Writer};
use curfew_search::{Asked, Bounds, Indexer, Query, Searcher, scan};

/// 2026-11-01T00:00:00Z in microseconds.
const START: u64 = 1_793_491_200_000_000;
/// Between two entries: 10 million of them are some 22 hours.
const APART_MICROS: u64 = 8_000;
/// Entries of one session.
const PER_SESSION: u64 = 200;
const SUBJECTS: u64 = 400;
const RESOURCES: [&str; 8] = [
    "shop",
    "wiki",
    "billing",
    "crm",
    "orders",
    "warehouse",
    "ledger-db",
    "hr",
];
/// Warm runs of each question; their median counts.
const ROUNDS: usize = 21;

/// What may be asked of the benchmark.
#[derive(Parser)]
#[command(name = "search", about = "How fast entries are found")]
struct Arguments {
    /// Entries in the log.
    #[arg(long, default_value_t = 10_000_000)]
    entries: u64,
    /// Where log and index are made and removed again: 280 bytes an entry.
    #[arg(long, value_name = "DIR", default_value = ".")]
    at: PathBuf,
    /// Cargo says that this is a benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// Cargo wants to know only that it starts.
    #[arg(long, hide = true)]
    test: bool,
}

struct Quiet;

impl Observer for Quiet {
    fn durable(&self, _: u64) {}
    fn failed(&self, _: u64, error: &WriteError) {
        panic!("{error}");
    }
}

/// The same numbers on every run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn session(number: u64) -> String {
    format!("s_{number:024x}")
}

/// Who: a few do most of it.
fn subject(session: u64) -> String {
    let spread = session.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    format!("user-{:03}", (spread % SUBJECTS) * (spread % 7 + 1) / 7)
}

/// The fields of entry `index` after `time`.
fn fields(index: u64, random: &mut Random) -> String {
    // Twenty sessions live at once.
    let live = index / (PER_SESSION * 20) * 20 + random.below(20);
    let begun = index % (PER_SESSION * 20);
    if begun < 20 {
        let number = index / (PER_SESSION * 20) * 20 + begun;
        return format!(
            r#""kind":"session.started","session":"{}","subject":"{}","roles":["staff"],"proof":{{"amr":["pwd","otp"],"aal":2,"at":"2026-11-01T00:00:00.000000Z"}},"context":{{"address":"10.{}.{}.7","network":"office"}},"limits":{{"idle_us":900000000,"reauth_us":3600000000,"lifetime_us":28800000000}},"rules":["staff-sessions"]"#,
            session(number),
            subject(number),
            number % 200,
            number / 200 % 250,
        );
    }
    let id = session(live);
    let resource = RESOURCES[usize::try_from(random.below(8) * random.below(8) / 8).unwrap()];
    let number = random.below(1_000_000);
    match random.below(1_000) {
        0..600 => format!(
            r#""kind":"action.allowed","session":"{id}","verb":"web.read","resource":"{resource}","method":"GET","path":"/{resource}/items/{number}/view","rules":["staff-web"]"#
        ),
        600..850 => format!(
            r#""kind":"action.allowed","session":"{id}","verb":"sql.read","resource":"ledger-db","statement":"SELECT id, total, customer_name FROM invoices WHERE customer_id = $1 ORDER BY created_at LIMIT $2","fingerprint":"{:016x}","rules":["analyst-sql"]"#,
            number % 300
        ),
        850..930 => format!(
            r#""kind":"action.allowed","session":"{id}","verb":"web.write","resource":"{resource}","method":"POST","path":"/{resource}/cart/{number}","rules":["staff-web"]"#
        ),
        930..960 => format!(
            r#""kind":"action.closed","session":"{id}","action":{},"by":"client","closed":"2026-11-01T00:00:00.000000Z","bytes_in":{number},"bytes_out":{}"#,
            index / 2,
            number * 7
        ),
        960..980 => format!(
            r#""kind":"action.denied","session":"{id}","verb":"sql.write","resource":"ledger-db","statement":"UPDATE invoices SET total = $1 WHERE id = $2","fingerprint":"00000000deadbeef","cause":"not_permitted""#
        ),
        980..981 => format!(
            r#""kind":"action.denied","session":"{id}","verb":"sql.ddl","resource":"ledger-db","statement":"DROP TABLE payroll","cause":"forbidden","rules":["no-ddl"]"#
        ),
        _ => format!(
            r#""kind":"session.active","session":"{id}","active_at":"2026-11-01T00:00:00.000000Z""#
        ),
    }
}

fn line(index: u64, entries: u64, random: &mut Random) -> String {
    let time = Timestamp::from_micros(START + index * APART_MICROS);
    // Three entries in all hold this word: near the beginning, in the middle, near the end.
    let rare = [entries / 50, entries / 2, entries - entries / 50];
    let fields = if rare.contains(&index) {
        format!(
            r#""kind":"action.denied","session":"{}","verb":"web.read","resource":"hr","method":"GET","path":"/hr/zanzibar/{index}","cause":"not_permitted""#,
            session(0)
        )
    } else {
        fields(index, random)
    };
    format!(r#"{{"v":1,"time":"{time}",{fields}}}"#)
}

fn write(dir: &Path, entries: u64) -> Duration {
    let key = LogKey::from_seed("bench.test/log", &[7; 32]).unwrap();
    let mut options = Options::new(dir.join("log"), dir.join("guard"), key);
    // Tiles would double the disk's use, and a search reads none.
    options.publish_interval = Duration::from_secs(86_400);
    let (writer, _) = Writer::create(options, Arc::new(RealDisk), Arc::new(Quiet)).unwrap();
    let mut random = Random(1);
    let begun = Instant::now();
    for index in 0..entries {
        let line = line(index, entries, &mut random);
        if index < 10_000 {
            Entry::from_bytes(line.as_bytes()).unwrap();
        }
        loop {
            match writer.append(&line) {
                Ok(_) => break,
                Err(AppendError::Full) => {
                    std::thread::sleep(Duration::from_micros(200));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    while writer.durable_size() < entries {
        std::thread::sleep(Duration::from_millis(1));
    }
    begun.elapsed()
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for item in std::fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Takes everything under a folder out of the page cache, and says how many bytes there are.
fn forget(dir: &Path) -> u64 {
    let mut all = Vec::new();
    files(dir, &mut all);
    let mut bytes = 0;
    for path in all {
        let file = File::open(path).unwrap();
        bytes += file.metadata().unwrap().len();
        let _ = rustix::fs::fsync(&file);
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    bytes
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What is asked, and how a person would say it.
fn questions(entries: u64) -> Vec<(&'static str, Asked)> {
    let moment = |index: u64| Timestamp::from_micros(START + index * APART_MICROS).to_string();
    let ask = |pairs: &[(&str, &str)]| -> Asked {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).into()));
        serde_json::from_value(serde_json::Value::Object(pairs.collect())).unwrap()
    };
    let early = session(3);
    let (from, to) = (moment(entries / 3), moment(entries / 3 + entries / 100));
    vec![
        ("the newest entries", ask(&[])),
        ("kind, in 93 of 100 entries", ask(&[("kind", "action")])),
        ("word, in 25 of 100", ask(&[("text", "invoices")])),
        ("word, in 1 of 1,000", ask(&[("text", "payroll")])),
        ("word, in 3 entries", ask(&[("text", "zanzibar")])),
        ("word, in none", ask(&[("text", "atlantis")])),
        (
            "two words, each common, never together",
            ask(&[("text", "invoices cart")]),
        ),
        ("subject", ask(&[("subject", "user-123")])),
        (
            "session, of the log's first minute",
            ask(&[("session", &early)]),
        ),
        ("address", ask(&[("address", "10.7.0.7")])),
        (
            "time: a hundredth of the log",
            ask(&[("since", &from), ("until", &to)]),
        ),
        (
            "time, kind, resource and word",
            ask(&[
                ("since", &from),
                ("until", &to),
                ("kind", "action.denied"),
                ("resource", "ledger-db"),
                ("text", "payroll"),
            ]),
        ),
        (
            "subject and kind, from the beginning",
            ask(&[
                ("subject", "user-200"),
                ("kind", "action.denied"),
                ("order", "oldest"),
            ]),
        ),
    ]
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn main() {
    let arguments = Arguments::parse();
    if arguments.test {
        return;
    }
    let entries = arguments.entries.max(1_000);
    let dir = tempfile::tempdir_in(&arguments.at).unwrap();
    let rate = |time: Duration| entries as f64 / time.as_secs_f64();
    let wrote = write(dir.path(), entries);
    println!("{entries} entries written at {:.0} a second", rate(wrote));
    let (log, index) = (dir.path().join("log"), dir.path().join("index"));
    let begun = Instant::now();
    let mut indexer = Indexer::open(&log, &index, true).unwrap();
    indexer.catch_up(|_, _| {}).unwrap();
    let indexed = begun.elapsed();
    drop(indexer);
    let (log_bytes, index_bytes) = (forget(&log), forget(&index));
    println!(
        "indexed at {:.0} a second; log {} MB, index {} MB ({:.0} %), peak memory {} MB",
        rate(indexed),
        log_bytes / 1_000_000,
        index_bytes / 1_000_000,
        index_bytes as f64 / log_bytes as f64 * 100.0,
        peak_kib() / 1_000,
    );
    measure(entries, &log, &index);
}

fn measure(entries: u64, log: &Path, index: &Path) {
    let now = Timestamp::from_micros(START + entries * APART_MICROS);
    let bounds = Bounds {
        size: None,
        time: Duration::from_secs(600),
        bytes: usize::MAX,
    };
    let open = || Searcher::with_index_of_another(log, index).unwrap();
    let begun = Instant::now();
    open();
    println!(
        "opened in {:.1} ms, files not in the page cache",
        millis(begun.elapsed())
    );
    let scanned = scan_time(log, &questions(entries)[4].1.check(now).unwrap(), entries);
    println!("\n| asked | found | cold | warm, median | worst | reading the whole log ÷ warm |");
    println!("|---|---|---|---|---|---|");
    let mut slowest = Duration::ZERO;
    for (name, asked) in questions(entries) {
        let query = Query {
            limit: 20,
            ..asked.check(now).unwrap()
        };
        forget(log);
        forget(index);
        let searcher = open();
        let begun = Instant::now();
        let answer = searcher.search(&query, &bounds).unwrap();
        let cold = begun.elapsed();
        assert!(!answer.damaged && answer.indexed == entries);
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let again = searcher.search(&query, &bounds).unwrap();
            times.push(begun.elapsed());
            assert_eq!(again, answer);
        }
        let worst = times.iter().copied().max().unwrap();
        let warm = median(times);
        slowest = slowest.max(worst).max(cold);
        println!(
            "| {name} | {}{} | {:.1} ms | {:.2} ms | {:.2} ms | {:.0} |",
            answer.hits.len(),
            if answer.next.is_some() {
                " and more"
            } else {
                ""
            },
            millis(cold),
            millis(warm),
            millis(worst),
            scanned.as_secs_f64() / warm.as_secs_f64(),
        );
    }
    println!(
        "\nslowest of all: {:.1} ms (goal: under 100 ms)",
        millis(slowest)
    );
}

/// Reads the whole log once for a question.
fn scan_time(log: &Path, query: &Query, entries: u64) -> Duration {
    let begun = Instant::now();
    let answer = scan(log, query, |_, _| {}).unwrap();
    let time = begun.elapsed();
    assert_eq!((answer.hits.len(), answer.size), (3, entries));
    println!(
        "the whole log read and judged in {:.1} s, {:.0} entries a second",
        time.as_secs_f64(),
        entries as f64 / time.as_secs_f64()
    );
    time
}
