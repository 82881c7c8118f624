//! Logs made of real entries through the real writer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use curfew_entry::{Entry, Timestamp};
use curfew_ledger::{AppendError, LogKey, Observer, Options, RealDisk, WriteError, Writer};
use curfew_search::{Answer, Asked, Bounds, Query};
use tempfile::TempDir;

/// 2026-11-23T16:40:00Z in microseconds.
pub(crate) const START: u64 = 1_795_452_000_000_000;

struct Quiet;

impl Observer for Quiet {
    fn durable(&self, _: u64) {}
    fn failed(&self, _: u64, error: &WriteError) {
        panic!("{error}");
    }
}

/// A log that can be written to, and a folder for its index.
pub(crate) struct Log {
    pub(crate) dir: TempDir,
    writer: Option<Writer>,
    time: u64,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self::named("search.test/log")
    }

    pub(crate) fn named(origin: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = LogKey::from_seed(origin, &[7; 32]).unwrap();
        let mut options = Options::new(dir.path().join("log"), dir.path().join("guard"), key);
        options.segment_bytes = 256 * 1024;
        options.batch_bytes_max = 8 * 1024;
        options.publish_interval = Duration::from_secs(3_600);
        let (writer, _) = Writer::create(options, Arc::new(RealDisk), Arc::new(Quiet)).unwrap();
        Self {
            dir,
            writer: Some(writer),
            time: START,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.dir.path().join("index")
    }

    /// Appends an entry of these JSON fields, a second after the one before.
    pub(crate) fn add(&mut self, fields: &str) -> u64 {
        self.add_later(fields, 1_000_000)
    }

    pub(crate) fn add_later(&mut self, fields: &str, micros: u64) -> u64 {
        self.time += micros;
        let time = Timestamp::from_micros(self.time);
        let text = format!(r#"{{"v":1,"time":"{time}",{fields}}}"#);
        Entry::from_bytes(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
        self.raw(text.as_bytes())
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> u64 {
        let writer = self.writer.as_ref().unwrap();
        loop {
            match writer.append(bytes) {
                Ok(index) => return index,
                // The disk is slower than this.
                Err(AppendError::Full) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Waits until everything is durable.
    pub(crate) fn sync(&self) {
        let writer = self.writer.as_ref().unwrap();
        while writer.durable_size() < writer.size() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.time)
    }

    pub(crate) fn start(&mut self, session: u32, subject: &str) -> u64 {
        self.add(&format!(
            r#""kind":"session.started","session":"{}","subject":"{subject}","roles":["dba"],"proof":{{"amr":["pwd"],"aal":1,"at":"2026-11-23T16:40:00.000000Z"}},"context":{{"address":"10.0.0.{}","network":"office"}},"limits":{{"idle_us":900000000,"reauth_us":3600000000,"lifetime_us":28800000000}},"rules":["everyone"]"#,
            id(session),
            session % 250,
        ))
    }

    pub(crate) fn read(&mut self, session: u32, resource: &str, path: &str) -> u64 {
        self.add(&format!(
            r#""kind":"action.allowed","session":"{}","verb":"web.read","resource":"{resource}","method":"GET","path":"{path}","rules":["r1"]"#,
            id(session),
        ))
    }

    pub(crate) fn deny(&mut self, session: u32, resource: &str, statement: &str) -> u64 {
        self.add(&format!(
            r#""kind":"action.denied","session":"{}","verb":"sql.write","resource":"{resource}","statement":"{statement}","cause":"not_permitted""#,
            id(session),
        ))
    }

    pub(crate) fn end(&mut self, session: u32) -> u64 {
        self.add(&format!(
            r#""kind":"session.ended","session":"{}","reason":"signed_out","effective":"2026-11-23T16:40:00.000000Z""#,
            id(session),
        ))
    }
}

pub(crate) fn id(session: u32) -> String {
    format!("s_{session:024x}")
}

pub(crate) fn bounds() -> Bounds {
    Bounds {
        size: None,
        time: Duration::from_secs(60),
        bytes: usize::MAX,
    }
}

pub(crate) fn query(asked: Asked, log: &Log) -> Query {
    asked.check(log.now()).unwrap()
}

pub(crate) fn indexes(answer: &Answer) -> Vec<u64> {
    answer.hits.iter().map(|hit| hit.index).collect()
}

/// Every file in a folder, however deep.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in std::fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
