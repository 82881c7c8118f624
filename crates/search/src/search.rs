//! A search: through the index, then through what is not in it yet, and every hit judged again by
//! what the ledger says.

use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use curfew_entry::{Entry, SubjectName};
use curfew_ledger::{LogReader, ReadError};

use crate::index::{IndexError, Snapshot, look};
use crate::query::{Order, Query};
use crate::resolve::Whose;
use crate::walk::{Walk, Walked};

/// Entries read at once where there is no index: some 400 kB.
const STRIDE: u64 = 1_024;

/// How far a search may go.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Entries that may be shown: those that are durable. All there are where it is `None`.
    pub size: Option<u64>,
    /// How long it may take. It then says where it stopped.
    pub time: Duration,
    /// Bytes of entries in one answer, at least one entry.
    pub bytes: usize,
}

/// An entry that fits, as it stands in the ledger.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hit {
    /// Its index.
    pub index: u64,
    /// Whose session it happened in, where the entry itself does not say.
    pub subject: Option<SubjectName>,
    /// The entry, byte for byte.
    pub bytes: Vec<u8>,
}

/// What a search found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Answer {
    /// In the order of the query.
    pub hits: Vec<Hit>,
    /// Entries in the log.
    pub size: u64,
    /// Entries in the index; those after it were read in the log.
    pub indexed: u64,
    /// Where to go on: entries below this index (newest first) or above it (oldest first) have not
    /// been looked at. `None` when all have.
    pub next: Option<u64>,
    /// The search stopped because time ran out, not because it had found enough.
    pub cut_short: bool,
    /// The index pointed at entries that are not what it says. They are left out, and the index is
    /// made anew.
    pub damaged: bool,
    /// What is in the log and is no entry that this program knows.
    pub unreadable: u64,
}

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
}

/// Searches a log, with an index where there is one. Clones share it.
#[derive(Clone, Debug)]
pub struct Searcher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    log_dir: PathBuf,
    snapshot: Mutex<Option<Arc<Snapshot>>>,
    damaged: AtomicBool,
    /// Kept open between searches: opening reads the newest segment.
    log: Mutex<Option<LogReader>>,
}

impl Searcher {
    /// Searches the log in `log_dir`, without an index so far.
    #[must_use]
    pub fn new(log_dir: &Path) -> Self {
        Self(Arc::new(Shared {
            log_dir: log_dir.to_owned(),
            snapshot: Mutex::new(None),
            damaged: AtomicBool::new(false),
            log: Mutex::new(None),
        }))
    }

    /// Searches with the index in `dir` as it is, though another process may be filling it.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn with_index_of_another(log_dir: &Path, dir: &Path) -> Result<Self, IndexError> {
        let searcher = Self::new(log_dir);
        let seen = look(&LogReader::open(log_dir)?, dir)?;
        searcher.show(seen.map(Arc::new));
        Ok(searcher)
    }

    pub(crate) fn log_dir(&self) -> &Path {
        &self.0.log_dir
    }

    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let held = self.0.snapshot.lock();
        held.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn show(&self, snapshot: Option<Arc<Snapshot>>) {
        let mut held = self
            .0
            .snapshot
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *held = snapshot;
    }

    /// Whether a search has found the index wrong since the last call.
    pub(crate) fn take_damaged(&self) -> bool {
        self.0.damaged.swap(false, Ordering::AcqRel)
    }

    /// Entries in the index.
    #[must_use]
    pub fn indexed(&self) -> u64 {
        self.snapshot().map_or(0, |seen| seen.stamp.size)
    }

    /// Answers a query.
    ///
    /// # Errors
    /// When the log cannot be read. A broken index is no error: the log is read instead.
    pub fn search(&self, query: &Query, bounds: &Bounds) -> Result<Answer, SearchError> {
        let held = self
            .0
            .log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut log = match held {
            Some(log) => log,
            None => LogReader::open(&self.0.log_dir)?,
        };
        log.refresh()?;
        let answer = self.search_in(&log, query, bounds)?;
        // Kept only while it works: after an error it is opened anew.
        *self.0.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
        Ok(answer)
    }

    fn search_in(
        &self,
        log: &LogReader,
        query: &Query,
        bounds: &Bounds,
    ) -> Result<Answer, SearchError> {
        let until = Instant::now() + bounds.time;
        let seen = self.snapshot();
        let look = |seen: Option<&Snapshot>| Look::new(log, seen, query, bounds, until)?.go();
        // Files that were tampered with can break the index in any way.
        let outcome = catch_unwind(AssertUnwindSafe(|| look(seen.as_deref())));
        let mut answer = match outcome {
            Ok(Ok(answer)) => answer,
            Ok(Err(LookError::Log(error))) => return Err(error.into()),
            Ok(Err(LookError::Index(error))) => {
                tracing::warn!(%error, "the search index is damaged; it is made anew");
                self.without_index(log, query, bounds)?
            }
            Err(_) => self.without_index(log, query, bounds)?,
        };
        if answer.damaged {
            self.0.damaged.store(true, Ordering::Release);
            // Nobody searches with it again.
            self.show(None);
            answer.damaged = true;
        }
        Ok(answer)
    }

    fn without_index(
        &self,
        log: &LogReader,
        query: &Query,
        bounds: &Bounds,
    ) -> Result<Answer, ReadError> {
        let until = Instant::now() + bounds.time;
        match Look::new(log, None, query, bounds, until)?.go() {
            Ok(answer) => Ok(Answer {
                damaged: true,
                ..answer
            }),
            Err(LookError::Log(error)) => Err(error),
            Err(LookError::Index(_)) => Ok(Answer::default()),
        }
    }
}

enum LookError {
    Log(ReadError),
    Index(tantivy::TantivyError),
}

impl From<ReadError> for LookError {
    fn from(error: ReadError) -> Self {
        Self::Log(error)
    }
}

impl From<tantivy::TantivyError> for LookError {
    fn from(error: tantivy::TantivyError) -> Self {
        Self::Index(error)
    }
}

/// What judging one entry came to.
enum Judged {
    Taken,
    Other,
    Full,
    Undecided,
}

/// One search under way.
struct Look<'a> {
    log: &'a LogReader,
    seen: Option<&'a Snapshot>,
    query: &'a Query,
    bytes_left: usize,
    until: Instant,
    answer: Answer,
    /// The indexes that are of interest.
    indexes: Range<u64>,
    /// The last entry judged, to see that the index keeps the order.
    last: Option<u64>,
}

impl<'a> Look<'a> {
    fn new(
        log: &'a LogReader,
        seen: Option<&'a Snapshot>,
        query: &'a Query,
        bounds: &Bounds,
        until: Instant,
    ) -> Result<Self, ReadError> {
        let size = log.size().min(bounds.size.unwrap_or(u64::MAX));
        let first = log.first();
        // An index of more than there is, or of a log that begins earlier, is of another log.
        let seen = seen.filter(|seen| seen.stamp.size <= log.size() && seen.stamp.first <= first);
        let wanted = query.indexes();
        let start = wanted.start.max(first);
        Ok(Self {
            log,
            seen,
            query,
            bytes_left: bounds.bytes,
            until,
            answer: Answer {
                size,
                indexed: seen.map_or(first, |seen| seen.stamp.size).min(size),
                ..Answer::default()
            },
            indexes: start..wanted.end.min(size).max(start),
            last: None,
        })
    }

    fn go(mut self) -> Result<Answer, LookError> {
        let mut fetch = self.log.fetch()?;
        let mut reads = self.log.fetch()?;
        let (tail, size) = (self.answer.indexed, self.answer.size);
        let (log, seen, until) = (self.log, self.seen, self.until);
        let mut whose = Whose::new(log, seen, &mut fetch, tail, size, until);
        let more = match self.query.order {
            Order::Newest => {
                self.in_log(tail, &mut whose)?.is_continue()
                    && self.in_index(&mut whose, &mut reads)?.is_continue()
            }
            Order::Oldest => {
                self.in_index(&mut whose, &mut reads)?.is_continue()
                    && self.in_log(tail, &mut whose)?.is_continue()
            }
        };
        if more {
            self.answer.next = None;
        }
        Ok(self.answer)
    }

    fn stop_at(&mut self, next: u64, out_of_time: bool) -> ControlFlow<()> {
        self.answer.cut_short = out_of_time;
        self.answer.next = match self.query.order {
            Order::Newest => Some(next).filter(|next| *next > self.indexes.start),
            Order::Oldest => Some(next).filter(|next| next.saturating_add(1) < self.indexes.end),
        };
        ControlFlow::Break(())
    }

    /// The cursor before which, in the order of the query, `index` is the next to be looked at.
    fn cursor_for(&self, index: u64) -> u64 {
        match self.query.order {
            Order::Newest => index.saturating_add(1),
            Order::Oldest => index.saturating_sub(1),
        }
    }

    /// Goes through what no index holds.
    fn in_log(&mut self, tail: u64, whose: &mut Whose<'_>) -> Result<ControlFlow<()>, ReadError> {
        let mut left = self.indexes.start.max(tail)..self.indexes.end;
        while !left.is_empty() {
            let newest = self.query.order == Order::Newest;
            let chunk = if newest {
                let start = left.end.saturating_sub(STRIDE).max(left.start);
                let chunk = start..left.end;
                left.end = start;
                chunk
            } else {
                let end = left.start.saturating_add(STRIDE).min(left.end);
                let chunk = left.start..end;
                left.start = end;
                chunk
            };
            if Instant::now() >= self.until {
                let first = if newest {
                    chunk.end.saturating_sub(1)
                } else {
                    chunk.start
                };
                return Ok(self.stop_at(self.cursor_for(first), true));
            }
            let mut read = self.log.range(chunk).collect::<Result<Vec<_>, _>>()?;
            if newest {
                read.reverse();
            }
            for (index, bytes) in read {
                match self.judge(index, bytes, whose) {
                    Judged::Taken | Judged::Other => {}
                    Judged::Full => return Ok(self.stop_at(self.cursor_for(index), false)),
                    Judged::Undecided => return Ok(self.stop_at(self.cursor_for(index), true)),
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Goes through what the index points at.
    fn in_index(
        &mut self,
        whose: &mut Whose<'_>,
        fetch: &mut curfew_ledger::Fetch,
    ) -> Result<ControlFlow<()>, LookError> {
        let Some(seen) = self.seen else {
            return Ok(ControlFlow::Continue(()));
        };
        let indexes = self.indexes.start
            ..self
                .indexes
                .end
                .min(seen.stamp.size)
                .max(self.indexes.start);
        let walk = Walk {
            searcher: &seen.searcher,
            parts: &seen.parts,
            fields: &seen.fields,
            query: self.query,
            indexes: indexes.clone(),
            ordered: seen.stamp.ordered,
            until: self.until,
        };
        let mut stopped = None;
        let mut failed = None;
        let walked = walk.go(|candidate| {
            let index = candidate.at;
            let in_order = self.last.is_none_or(|last| match self.query.order {
                Order::Newest => index < last,
                Order::Oldest => index > last,
            });
            if !in_order || !indexes.contains(&index) {
                self.answer.damaged = true;
                return ControlFlow::Continue(());
            }
            let bytes = match fetch.entry(index, Some(candidate.place)) {
                Ok(bytes) => bytes,
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            };
            match self.judge(index, bytes, whose) {
                Judged::Taken => return ControlFlow::Continue(()),
                // The index says that it fits, and the log that it does not.
                Judged::Other => {
                    self.answer.damaged = true;
                    return ControlFlow::Continue(());
                }
                Judged::Full => stopped = Some((index, false)),
                Judged::Undecided => stopped = Some((index, true)),
            }
            ControlFlow::Break(())
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        Ok(match (walked, stopped) {
            (_, Some((index, out_of_time))) => self.stop_at(self.cursor_for(index), out_of_time),
            (Walked::OutOfTime(index), None) => self.stop_at(self.cursor_for(index), true),
            (Walked::Through | Walked::Enough, None) => ControlFlow::Continue(()),
        })
    }

    /// Judges an entry by what the log says, and keeps it if it fits.
    fn judge(&mut self, index: u64, bytes: Vec<u8>, whose: &mut Whose<'_>) -> Judged {
        let Ok(entry) = Entry::from_bytes(&bytes) else {
            self.answer.unreadable += 1;
            return Judged::Taken;
        };
        self.last = Some(index);
        let takes = self
            .query
            .takes(index, &bytes, &entry, |session| whose.of(session, index));
        if whose.undecided {
            return Judged::Undecided;
        }
        if !takes {
            return Judged::Other;
        }
        let full = self.answer.hits.len() >= self.query.limit
            || (bytes.len() > self.bytes_left && !self.answer.hits.is_empty());
        if full {
            return Judged::Full;
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes.len());
        let facets = entry.event.facets();
        let subject = match (facets.subject, facets.session) {
            (None, Some(session)) => whose.of(session, index),
            _ => None,
        };
        whose.undecided = false;
        self.answer.hits.push(Hit {
            index,
            subject,
            bytes,
        });
        Judged::Taken
    }
}
