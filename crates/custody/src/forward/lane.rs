//! One receiver's lane: reads signed entries in order, and holds them until they are acknowledged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use curfew_export::{LogReader, Record, Stream};
use curfew_gate::secret;
use curfew_ledger::merkle::leaf_hash;
use curfew_ledger::{Entries, ReadError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::cursor::Cursor;
use super::{Receiver, Room, Trouble};
use crate::progress::Progress;

/// How long a receiver that failed is left alone: twice as long each time, less up to half of it,
/// so that many gateways do not come back all at once.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The longest that a receiver may ask to be left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// How long nothing is done where nothing is due.
const NEVER: Duration = Duration::from_secs(3_600);

/// How many entries are learned from before it is looked whether to stop: some milliseconds.
const LEARN: u64 = 4_096;

/// The ledger from one place on. It blocks, so it lives on threads for that.
struct Reading {
    reader: LogReader,
    entries: Option<Entries>,
    /// Whose the sessions are: 13 MB at most for ended ones, and what is live.
    stream: Stream,
    next: u64,
}

impl Reading {
    /// Stands before the entry `next`, knowing what the ones before it say of sessions. `leaf` is
    /// the hash of the last of them.
    fn open(
        dir: &Path,
        next: u64,
        leaf: &str,
        stopping: &CancellationToken,
    ) -> Result<Self, String> {
        let failed = |error: ReadError| error.to_string();
        let reader = LogReader::open(dir).map_err(failed)?;
        let stream = Stream::before(&reader, curfew_authority::Auditor::sessions_kept)
            .map_err(|error| error.to_string());
        let (mut stream, mut last) = (stream?, Vec::new());
        if next > reader.size() {
            return Err(format!("it has no entry {}, which was sent", next - 1));
        }
        for entry in reader.range(0..next) {
            let (index, bytes) = entry.map_err(failed)?;
            if index % LEARN == 0 && stopping.is_cancelled() {
                return Err("told to stop".to_owned());
            }
            stream.learn(index, &bytes);
            last = bytes;
        }
        // Where the one before is past its time and gone, no more than the log's name can be compared.
        if next > reader.first() && leaf_hash(&last).to_string() != leaf {
            return Err(format!(
                "its entry {} is not the one that was sent: this is another log",
                next - 1
            ));
        }
        Ok(Self {
            reader,
            entries: None,
            stream,
            next,
        })
    }

    /// The next records, as far as there is room and `signed` goes.
    fn read(&mut self, signed: u64, mut room: Room) -> Result<Vec<Record>, String> {
        let mut records = Vec::new();
        while room.records > 0 && room.bytes > 0 && self.next < signed {
            let Some(entry) = self.entries.as_mut().and_then(Iterator::next) else {
                let size = self.reader.refresh().map_err(|error| error.to_string())?;
                if size <= self.next {
                    return Err("it ends before its checkpoint".to_owned());
                }
                self.entries = Some(self.reader.range(self.next..signed));
                continue;
            };
            let (index, bytes) = entry.map_err(|error| error.to_string())?;
            room.records -= 1;
            room.bytes = room.bytes.saturating_sub(bytes.len());
            records.push(self.stream.record(index, bytes));
            self.next = index + 1;
        }
        Ok(records)
    }
}

/// What a step came to.
enum Step {
    /// Something was acknowledged, and there may be more to send.
    Further,
    /// Everything there is was sent.
    Done,
}

/// See the module text.
pub(super) struct Lane {
    name: String,
    /// What others are told of it.
    progress: Arc<Progress>,
    receiver: Receiver,
    /// What the receiver has acknowledged, and where that is remembered.
    cursor: Cursor,
    path: PathBuf,
    /// The cursor on disk is older.
    unsaved: bool,
    ledger: PathBuf,
    /// Made when it is first needed, and again after an error.
    reading: Option<Box<Reading>>,
    /// What is not acknowledged yet, from the cursor on.
    window: Vec<Record>,
    /// How often in a row it has failed.
    failures: u32,
}

impl Lane {
    pub(super) fn new(
        name: String,
        receiver: Receiver,
        cursor: Cursor,
        path: PathBuf,
        ledger: PathBuf,
    ) -> Self {
        Self {
            progress: Progress::new(receiver.kind(), &name, Some(cursor.next)),
            name,
            receiver,
            cursor,
            path,
            unsaved: false,
            ledger,
            reading: None,
            window: Vec::new(),
            failures: 0,
        }
    }

    /// How far it has come, for others.
    pub(super) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Sends what is signed until told to stop; `signed` entries are so from the start.
    pub(super) async fn run(
        mut self,
        mut signed: u64,
        mut checkpoints: watch::Receiver<Option<(u64, Arc<str>)>>,
        stopping: CancellationToken,
    ) {
        loop {
            let newest = checkpoints
                .borrow_and_update()
                .as_ref()
                .map(|(size, _)| *size);
            signed = signed.max(newest.unwrap_or(0));
            let wait = match self.step(signed, &stopping).await {
                Ok(Step::Further) if !stopping.is_cancelled() => continue,
                Ok(Step::Further | Step::Done) => {
                    let due = self.receiver.due();
                    due.unwrap_or_else(|| Instant::now() + NEVER)
                }
                Err(trouble) => {
                    let wait = self.failed(&trouble);
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        () = sleep(wait) => continue,
                    }
                }
            };
            tokio::select! {
                biased;
                () = stopping.cancelled() => {
                    // What was sent and can be acknowledged at once is not sent again.
                    if self.receiver.due().is_some() {
                        let _ = self.step(self.end(), &stopping).await;
                    }
                    return;
                }
                changed = checkpoints.changed() => if changed.is_err() { return },
                () = sleep_until(wait) => {}
            }
        }
    }

    /// Behind the last entry that was read.
    fn end(&self) -> u64 {
        self.window
            .last()
            .map_or(self.cursor.next, |record| record.index + 1)
    }

    async fn step(&mut self, signed: u64, stopping: &CancellationToken) -> Result<Step, Trouble> {
        // First of all: what was acknowledged is not sent again.
        if self.unsaved {
            self.save().await?;
        }
        let full = self.fill(signed, stopping).await?;
        if self.window.is_empty() {
            return Ok(Step::Done);
        }
        let closing = full || stopping.is_cancelled();
        let count = self.receiver.deliver(&self.window, closing).await?;
        if count == 0 {
            return Ok(Step::Done);
        }
        if self.failures > 0 {
            tracing::warn!(receiver = self.name, "this receiver takes entries again");
        }
        self.failures = 0;
        if let Some(last) = self.window.drain(..count).next_back() {
            self.cursor.next = last.index + 1;
            self.cursor.leaf = last.leaf_hex();
            self.unsaved = true;
        }
        self.save().await?;
        Ok(Step::Further)
    }

    /// Reads as far as there is room. Gives whether there is none left.
    async fn fill(&mut self, signed: u64, stopping: &CancellationToken) -> Result<bool, Trouble> {
        let Room { records, bytes } = self.receiver.room();
        let held: usize = self.window.iter().map(|record| record.bytes.len()).sum();
        let room = Room {
            records: records.saturating_sub(self.window.len()),
            bytes: bytes.saturating_sub(held),
        };
        let next = self.end();
        if room.records == 0 || room.bytes == 0 || next >= signed {
            return Ok(room.records == 0 || room.bytes == 0);
        }
        let leaf = match self.window.last() {
            Some(record) => record.leaf_hex(),
            None => self.cursor.leaf.clone(),
        };
        let (held, dir, stopping) = (self.reading.take(), self.ledger.clone(), stopping.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut reading = match held {
                Some(reading) => reading,
                None => Box::new(Reading::open(&dir, next, &leaf, &stopping)?),
            };
            let records = reading.read(signed, room)?;
            Ok::<_, String>((reading, records))
        });
        let read = read
            .await
            .map_err(|error| Trouble::Ledger(error.to_string()))?;
        let (reading, records) = read.map_err(Trouble::Ledger)?;
        self.reading = Some(reading);
        let came: usize = records.iter().map(|record| record.bytes.len()).sum();
        let full = records.len() >= room.records || came >= room.bytes;
        self.window.extend(records);
        Ok(full)
    }

    async fn save(&mut self) -> Result<(), Trouble> {
        let (cursor, path) = (self.cursor.clone(), self.path.clone());
        let saved = tokio::task::spawn_blocking(move || cursor.save(&path)).await;
        let saved = saved.map_err(|error| Trouble::Cursor(error.to_string()))?;
        saved.map_err(|error| Trouble::Cursor(error.to_string()))?;
        self.unsaved = false;
        self.progress.reached(self.cursor.next);
        Ok(())
    }

    /// Takes note of a failure. Gives how long to wait.
    fn failed(&mut self, trouble: &Trouble) -> Duration {
        self.progress.failed(trouble.told(), trouble.to_string());
        // Said once: it is tried again for as long as it takes.
        if self.failures == 0 {
            tracing::error!(
                receiver = self.name,
                from = self.cursor.next,
                %trouble,
                "entries cannot be forwarded; they are kept and sent later"
            );
        }
        let told = match trouble {
            Trouble::Refused { wait, .. } => wait.unwrap_or_default().min(RETRY_AFTER_MAX),
            Trouble::Unreachable(_)
            | Trouble::Wrong(_)
            | Trouble::Ledger(_)
            | Trouble::Cursor(_) => Duration::ZERO,
        };
        let chance = secret::random::<2>().map_or(0, u16::from_be_bytes);
        let wait = backoff(self.failures, chance);
        self.failures = self.failures.saturating_add(1);
        // Never before it was asked for, and not all at the same moment after it.
        if told > wait {
            told + wait.min(BACKOFF)
        } else {
            wait
        }
    }
}

/// How long to wait after so many failures before; `chance` is random.
fn backoff(failures: u32, chance: u16) -> Duration {
    let whole = BACKOFF
        .saturating_mul(1_u32 << failures.min(6))
        .min(BACKOFF_MAX);
    whole - (whole / 2).mul_f64(f64::from(chance) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_longer_each_time_up_to_a_minute_and_never_less_than_half() {
        let seconds = |failures, chance| backoff(failures, chance).as_secs_f64();
        assert_eq!((seconds(0, 0), seconds(0, u16::MAX)), (1.0, 0.5));
        assert_eq!((seconds(3, 0), seconds(3, u16::MAX)), (8.0, 4.0));
        assert_eq!((seconds(90, 0), seconds(90, u16::MAX)), (60.0, 30.0));
    }
}
