//! What concealing values costs: `cargo xtask bench conceal`.
//!
//! A closed loop keeps a number of entries outstanding, each of an allowed request with its path. In turns
//! the path stands in the entry, and is concealed as the gateway does it: a salted commitment in the
//! entry, the value encrypted into the side store, which is made durable before the ledger writes the
//! entries. The argument is the seconds of each measurement.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    reason = "a measurement prints its table, and one that cannot go on must stop"
)]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use curfew_entry::{
    ActionDetail, Demands, Entry, Event, Field, SALT_BYTES, SessionId, SubjectName, Timestamp, Verb,
};
use curfew_ledger::{LogKey, Observer, Options, RealDisk, WriteError, Writer};
use curfew_values::{Record, Store};

/// Entries kept outstanding.
const DEPTHS: [usize; 4] = [1, 16, 256, 1024];

/// Measurements of each; the better is shown.
const ROUNDS: usize = 2;

/// People whose requests these are.
const SUBJECTS: u64 = 1_000;

/// Entries on their way, and what came back.
#[derive(Default)]
struct Flight {
    /// When entries were handed over that are not yet durable.
    sent: VecDeque<Instant>,
    durable: u64,
    waited: Vec<Duration>,
}

struct Watch {
    flight: Mutex<Flight>,
    landed: Condvar,
    store: Option<Arc<Store>>,
}

impl Observer for Watch {
    fn writing(&self, _: u64) -> Result<(), String> {
        let flushed = self.store.as_ref().map_or(Ok(()), |store| store.flush());
        flushed.map_err(|error| error.to_string())
    }

    fn durable(&self, size: u64) {
        if let Some(store) = &self.store {
            store.durable(size);
        }
        let now = Instant::now();
        let mut flight = self.flight.lock().unwrap();
        while flight.durable < size {
            flight.durable += 1;
            let sent = flight.sent.pop_front().unwrap();
            flight.waited.push(now - sent);
        }
        drop(flight);
        self.landed.notify_one();
    }

    fn failed(&self, _: u64, error: &WriteError) {
        panic!("{error}");
    }
}

/// An allowed request.
fn request(index: u64) -> ActionDetail {
    ActionDetail {
        method: Some("GET".to_owned()),
        path: Some(format!("/pages/handbook/2026/onboarding/{index}")),
        ..ActionDetail::new(Verb::WebRead, "wiki".parse().unwrap())
    }
}

/// The entry of this index, what it conceals staged, if it has to.
fn entry(index: u64, subject: &SubjectName, store: Option<&Store>) -> Vec<u8> {
    let mut action = request(index);
    if let Some(store) = store {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).unwrap();
        let value = action.conceal(Field::Path, &salt).unwrap();
        let mut record = Record::default();
        record.push(Field::Path, salt, value);
        store.stage(index, subject, &record).unwrap();
    }
    let event = Event::ActionAllowed {
        session: SessionId::from_random([7; 12]),
        action,
        rules: vec!["work".parse().unwrap()],
        demands: Demands::default(),
    };
    let time = Timestamp::from_micros(1_764_000_000_000_000 + index);
    Entry { time, event }.to_bytes().unwrap()
}

/// Entries a second, and how long half of them waited at most, in microseconds.
fn measure(depth: usize, for_time: Duration, conceals: bool) -> (f64, f64) {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| Store::open(Arc::new(RealDisk), path, 0).unwrap();
    let store = conceals.then(|| Arc::new(open(&folder.path().join("values"))));
    let key = LogKey::create(&folder.path().join("key"), "bench.example/log").unwrap();
    let options = Options::new(
        folder.path().join("ledger"),
        folder.path().join("guard"),
        key,
    );
    let watch = Arc::new(Watch {
        flight: Mutex::default(),
        landed: Condvar::new(),
        store: store.clone(),
    });
    let (writer, _) = Writer::create(options, Arc::new(RealDisk), watch.clone()).unwrap();
    let subjects: Vec<SubjectName> = (0..SUBJECTS)
        .map(|number| format!("user{number}").parse().unwrap())
        .collect();
    let start = Instant::now();
    let mut index = 0;
    for subject in subjects.iter().cycle() {
        if start.elapsed() >= for_time {
            break;
        }
        let bytes = entry(index, subject, store.as_deref());
        let mut flight = watch.flight.lock().unwrap();
        while flight.sent.len() >= depth {
            flight = watch.landed.wait(flight).unwrap();
        }
        flight.sent.push_back(Instant::now());
        drop(flight);
        writer.append(&bytes).unwrap();
        index += 1;
    }
    let took = start.elapsed().as_secs_f64();
    writer.close().unwrap();
    let mut flight = watch.flight.lock().unwrap();
    flight.waited.sort_unstable();
    let p50 = flight.waited[flight.waited.len() / 2].as_secs_f64() * 1e6;
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let per_second = index as f64 / took;
    (per_second, p50)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let seconds = arguments.iter().find_map(|seconds| seconds.parse().ok());
    let seconds = Duration::from_secs_f64(seconds.unwrap_or(2.0));
    println!(
        "| outstanding | told/s | ack p50 µs | concealed/s | ack p50 µs | concealed ÷ told | ack ÷ ack |\n\
         |---|---|---|---|---|---|---|"
    );
    for depth in DEPTHS {
        let mut best = [(0.0, 0.0); 2];
        for _ in 0..ROUNDS {
            for (best, conceals) in best.iter_mut().zip([false, true]) {
                let found = measure(depth, seconds, conceals);
                if found.0 > best.0 {
                    *best = found;
                }
            }
        }
        let [told, concealed] = best;
        println!(
            "| {depth} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} |",
            told.0,
            told.1,
            concealed.0,
            concealed.1,
            concealed.0 / told.0,
            concealed.1 / told.1
        );
    }
}
