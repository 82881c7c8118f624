//! Keeping the index near the end of a log that is being written, on a thread of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::index::{COMMIT_ENTRIES, IndexError, Indexer};
use crate::search::Searcher;

/// How often the thread looks for new entries. A look is one load of a number.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Time between two commits while entries come in. At 10,000 entries a second it leaves 50,000 to
/// be read in the log by a search, some 100 ms; a commit costs a few syncs.
const COMMIT_EVERY: Duration = Duration::from_secs(5);

/// Entries added between two looks at the time and at the order to stop.
const STEP: u64 = 2_000;

/// How long to leave it after an error: a full disk does not empty itself in a second.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Free space below which nothing is added, in bytes: the ledger needs it more.
const ROOM_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// How nice the thread is to the others: lowest but for idle.
const NICENESS: i32 = 15;

/// How far the index has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Entries found through the index.
    pub indexed: u64,
    /// Times the index was begun anew since the start.
    pub rebuilt: u64,
}

/// Follows a log with an index until it is dropped.
#[derive(Debug)]
pub struct Follower {
    searcher: Searcher,
    shared: Arc<Order>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Order {
    stop: Mutex<bool>,
    told: Condvar,
    rebuilt: AtomicU64,
}

impl Order {
    /// Waits; says whether to stop.
    fn wait(&self, time: Duration) -> bool {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.told.wait_timeout_while(stop, time, |stop| !*stop);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Follower {
    /// Begins to follow the log in `log_dir` as far as `durable` says, with an index in `dir`. `told`
    /// hears from its thread whether it gets on, or what stands in the way.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        log_dir: PathBuf,
        dir: PathBuf,
        durable: impl Fn() -> u64 + Send + 'static,
        told: impl Fn(Result<(), String>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let searcher = Searcher::new(&log_dir);
        let shared = Arc::new(Order::default());
        let (theirs, order) = (searcher.clone(), Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("search-index".to_owned())
            .spawn(move || {
                // Best effort: without it the index is merely less polite.
                let _ = rustix::process::setpriority_process(None, NICENESS);
                follow(&theirs, &dir, (&durable, &told), &order);
            })?;
        Ok(Self {
            searcher,
            shared,
            thread: Some(thread),
        })
    }

    /// Tells the thread to commit what it has and end. [`Drop`] waits for that.
    pub fn stop(&self) {
        *self
            .shared
            .stop
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.told.notify_all();
    }

    /// Searches over the log and as much of an index as there is.
    #[must_use]
    pub fn searcher(&self) -> &Searcher {
        &self.searcher
    }

    /// How far the index has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            indexed: self.searcher.indexed(),
            rebuilt: self.shared.rebuilt.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so; what it left is checked at the next start.
            let _ = thread.join();
        }
    }
}

/// How many entries are durable, and where it is told how the index fares.
type Outside<'a> = (&'a dyn Fn() -> u64, &'a dyn Fn(Result<(), String>));

/// Body of the thread: opens, follows, and after an error opens again.
fn follow(searcher: &Searcher, dir: &std::path::Path, (durable, told): Outside<'_>, order: &Order) {
    loop {
        let outcome = Indexer::open_for(searcher.clone(), dir, true).and_then(|mut indexer| {
            if indexer.was_rebuilt() {
                order.rebuilt.fetch_add(1, Ordering::Relaxed);
                tracing::info!("the search index is made from the ledger");
            }
            keep_up(&mut indexer, dir, (durable, told), order)
        });
        match outcome {
            Ok(()) => return,
            Err(IndexError::Damaged) => {
                tracing::warn!("the search index did not agree with the ledger; it is made anew");
            }
            Err(error) => {
                tracing::warn!(%error, "the search index stands still");
                told(Err(format!("the search index stands still: {error}")));
                if order.wait(RETRY_AFTER) {
                    return;
                }
            }
        }
    }
}

fn has_room(dir: &std::path::Path) -> bool {
    rustix::fs::statvfs(dir)
        .is_ok_and(|space| space.f_bavail.saturating_mul(space.f_frsize) >= ROOM_BYTES_MIN)
}

/// Adds what becomes durable, until told to stop.
fn keep_up(
    indexer: &mut Indexer,
    dir: &std::path::Path,
    (durable, told): Outside<'_>,
    order: &Order,
) -> Result<(), IndexError> {
    let mut committed_at = Instant::now();
    let mut added = 0;
    loop {
        let idle = if has_room(dir) {
            let before = indexer.added();
            let all = indexer.add(durable(), STEP)?;
            added += indexer.added() - before;
            told(Ok(()));
            all
        } else {
            let dir = dir.display();
            told(Err(format!(
                "the search index stands still: no room at {dir}"
            )));
            true
        };
        // After a quiet time the first entries wait no longer than later ones.
        let due = committed_at.elapsed() >= COMMIT_EVERY || added >= COMMIT_ENTRIES;
        if due && (added > 0 || indexer.is_merging()) {
            indexer.commit()?;
            committed_at = Instant::now();
            added = 0;
        }
        if order.wait(if idle { LOOK_EVERY } else { Duration::ZERO }) {
            indexer.commit()?;
            return Ok(());
        }
    }
}
