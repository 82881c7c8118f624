//! Waiting for entries to become durable.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use curfew_entry::RecordLevel;
use curfew_ledger::{Observer, PublishError, WriteError};
use curfew_values::Store;
use tokio::sync::{mpsc, oneshot, watch};

use crate::signing::{Signing, fault};

/// Why an entry has not come as far as it must.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unrecorded {
    /// The ledger failed before it was durable.
    #[error("the audit log could not take the entry")]
    Failed,
    /// It was durable, and did not come any further in time.
    #[error("the entry was not {} in time", .0.as_str())]
    Late(RecordLevel),
}

/// How far the ledger is durable, and who waits for it to get further.
#[derive(Debug)]
pub struct Durability {
    size: AtomicU64,
    queue: Mutex<Queue>,
    /// Whether checkpoints are signed and published.
    signing: watch::Sender<Signing>,
    /// The newest checkpoint, and how many entries it covers.
    checkpoint: watch::Sender<Option<(u64, Arc<str>)>>,
    /// How many entries a quorum of witnesses has cosigned.
    witnessed: watch::Sender<u64>,
    /// There are witnesses: what is to be timestamped is to be witnessed too.
    has_witnesses: bool,
    /// How many entries a timestamping authority has vouched for.
    stamped: watch::Sender<u64>,
    /// How many somebody waits for it to vouch for.
    demanded: watch::Sender<u64>,
    failures: mpsc::UnboundedSender<String>,
    /// What entries only commit to, durable before they are.
    values: OnceLock<Arc<Store>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// In order of entry.
    waiters: VecDeque<Waiter>,
    /// The writer has failed and has not been opened again.
    broken: bool,
}

#[derive(Debug)]
struct Waiter {
    entry: u64,
    done: oneshot::Sender<()>,
}

impl Durability {
    /// At a ledger of `size` durable entries. A failure of the writer is told to `failures`.
    pub fn new(size: u64, failures: mpsc::UnboundedSender<String>) -> Self {
        Self {
            size: AtomicU64::new(size),
            queue: Mutex::default(),
            signing: watch::Sender::default(),
            checkpoint: watch::Sender::new(None),
            witnessed: watch::Sender::new(0),
            has_witnesses: false,
            stamped: watch::Sender::new(0),
            demanded: watch::Sender::new(0),
            failures,
            values: OnceLock::new(),
        }
    }

    /// From here on the values in this store are made durable before the entries.
    pub fn keep_values(&self, store: Arc<Store>) {
        // Set once, before the first entry of a run.
        let _ = self.values.set(store);
    }

    /// The same, of a log with witnesses.
    #[must_use]
    pub fn with_witnesses(mut self, has_witnesses: bool) -> Self {
        self.has_witnesses = has_witnesses;
        self
    }

    /// How many entries are durable.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic while holding the queue leaves it whole: each change is one push or pop.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the entry with this index is durable.
    ///
    /// # Errors
    /// When the writer fails before.
    pub async fn wait(&self, entry: u64) -> Result<(), Unrecorded> {
        if self.size() > entry {
            return Ok(());
        }
        let (done, waits) = oneshot::channel();
        {
            let mut queue = self.queue();
            // Looked at again under the lock: the batch may have landed in between.
            if self.size() > entry {
                return Ok(());
            }
            if queue.broken {
                return Err(Unrecorded::Failed);
            }
            let at = queue
                .waiters
                .partition_point(|waiter| waiter.entry <= entry);
            queue.waiters.insert(at, Waiter { entry, done });
        }
        waits.await.map_err(|_| Unrecorded::Failed)
    }

    /// Whether the durable entry with this index has come so far.
    pub fn has_reached(&self, entry: u64, level: RecordLevel) -> bool {
        match level {
            RecordLevel::Signed => {
                let checkpoint = self.checkpoint.borrow();
                checkpoint.as_ref().is_some_and(|(size, _)| *size > entry)
            }
            RecordLevel::Witnessed => self.witnessed() > entry,
            RecordLevel::Timestamped => {
                let is_witnessed = !self.has_witnesses || self.witnessed() > entry;
                is_witnessed && *self.stamped.borrow() > entry
            }
        }
    }

    /// Waits until the durable entry with this index has come so far.
    pub async fn reach(&self, entry: u64, level: RecordLevel) {
        let covers = |checkpoint: &Option<(u64, Arc<str>)>| {
            checkpoint.as_ref().is_some_and(|(size, _)| *size > entry)
        };
        if level == RecordLevel::Timestamped {
            let wanted = entry.saturating_add(1);
            self.demanded.send_if_modified(|demanded| {
                let is_more = *demanded < wanted;
                *demanded = wanted.max(*demanded);
                is_more
            });
        }
        // The senders are ours: they do not go while we wait.
        let _gone = match level {
            RecordLevel::Signed => {
                let mut signed = self.checkpoint.subscribe();
                signed.wait_for(covers).await.is_err()
            }
            RecordLevel::Witnessed => {
                let mut witnessed = self.witnessed.subscribe();
                witnessed.wait_for(|size| *size > entry).await.is_err()
            }
            RecordLevel::Timestamped => {
                let (mut stamped, mut witnessed) =
                    (self.stamped.subscribe(), self.witnessed.subscribe());
                if self.has_witnesses {
                    let _ = witnessed.wait_for(|size| *size > entry).await;
                }
                stamped.wait_for(|size| *size > entry).await.is_err()
            }
        };
    }

    /// The newest signed checkpoint and its size, as they are published.
    pub fn checkpoints(&self) -> watch::Receiver<Option<(u64, Arc<str>)>> {
        self.checkpoint.subscribe()
    }

    /// Whether checkpoints are signed and published.
    pub fn signing(&self) -> watch::Receiver<Signing> {
        self.signing.subscribe()
    }

    /// The ledger was opened with this checkpoint, the newest that is signed.
    pub fn opened_at(&self, note: &str) {
        if let Some(size) = size_of(note) {
            self.signing.send_modify(|signing| signing.size = size);
        }
    }

    fn is_signed(&self, size: u64) {
        let last = Some(Ok(()));
        let before = self.signing.send_replace(Signing { size, last });
        if matches!(before.last, Some(Err(_))) {
            tracing::warn!("checkpoints are signed and published again");
        }
    }

    /// A quorum of witnesses has cosigned so many entries.
    pub fn reached_witnesses(&self, size: u64) {
        self.witnessed.send_replace(size);
    }

    /// A timestamping authority has vouched for so many entries.
    pub fn reached_stamps(&self, size: u64) {
        self.stamped.send_replace(size);
    }

    /// How many entries somebody waits for it to vouch for.
    pub fn demanded_stamps(&self) -> watch::Receiver<u64> {
        self.demanded.subscribe()
    }

    /// How many entries a quorum of witnesses has cosigned.
    pub fn witnessed(&self) -> u64 {
        *self.witnessed.borrow()
    }

    /// How many entries a timestamping authority has vouched for.
    pub fn stamped(&self) -> u64 {
        *self.stamped.borrow()
    }

    /// Nothing more becomes durable until the writer is open again: nobody waits any longer.
    pub fn give_up(&self) {
        let mut queue = self.queue();
        queue.broken = true;
        // Whoever waits is told by its dropped sender.
        queue.waiters.clear();
    }

    /// The writer is open again, at this size.
    pub fn resume(&self, size: u64) {
        self.queue().broken = false;
        self.durable(size);
    }
}

impl Observer for Durability {
    fn writing(&self, _: u64) -> Result<(), String> {
        match self.values.get() {
            Some(values) => values.flush().map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    fn durable(&self, size: u64) {
        if let Some(values) = self.values.get() {
            values.durable(size);
        }
        self.size.store(size, Ordering::Release);
        let mut queue = self.queue();
        while queue
            .waiters
            .front()
            .is_some_and(|waiter| waiter.entry < size)
        {
            if let Some(waiter) = queue.waiters.pop_front() {
                let _ = waiter.done.send(());
            }
        }
    }

    fn failed(&self, _size: u64, error: &WriteError) {
        let mut queue = self.queue();
        queue.broken = true;
        // The registrar hears of it before anybody who waits does, so that it knows of the outage
        // when their permits come back.
        let _ = self.failures.send(error.to_string());
        // Whoever waits is told by its dropped sender.
        queue.waiters.clear();
    }

    fn published(&self, note: &str) {
        if let Some(size) = size_of(note) {
            self.checkpoint.send_replace(Some((size, Arc::from(note))));
            self.is_signed(size);
        }
    }

    fn up_to_date(&self, size: u64) {
        self.is_signed(size);
    }

    fn seal_failed(&self, error: &PublishError) {
        tracing::warn!(
            %error,
            "a full segment could not be sealed, so it takes space longer; it is tried again"
        );
    }

    fn publish_failed(&self, error: &PublishError) {
        let last = Some(Err(fault(error)));
        let before = *self.signing.borrow();
        if before.last == last {
            return;
        }
        self.signing.send_modify(|signing| signing.last = last);
        // Said once: it is tried again each second.
        if !matches!(before.last, Some(Err(_))) {
            tracing::error!(
                %error,
                "no checkpoint can be signed and published; entries are durable all the same"
            );
        }
    }
}

/// How many entries a checkpoint covers.
fn size_of(note: &str) -> Option<u64> {
    note.split('\n').nth(1)?.parse().ok()
}
