//! The one writer of a log.
//!
//! Four threads share the work. The *committer* takes what is queued as one batch, hashes it,
//! writes it with one write and one sync, and says so; while it waits for the disk, the next batch
//! gathers by itself. The *publisher* makes tiles and checkpoints out of what is durable. The
//! *preparer* makes the next segment, and the *sealer* removes those that tiles have taken the place of.
//!
//! A failed write or sync ends the committer for good: the batch may be on disk, in part, in memory
//! only, or nowhere, and asking again proves nothing. The log must be opened anew, which reads what
//! is really there and writes it again before counting on it (see [`crate::write::recover`]).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::disk::{Disk, DiskLock};
use crate::format::checkpoints::record;
use crate::format::error::FileError;
use crate::format::merkle::{empty_root, leaf_hash};
use crate::format::note::Checkpoint;
use crate::format::segment::{FOLDER, list_segments, segment_path};
use crate::keys::signer::{self, SignError};
use crate::read::entries::Entries;
use crate::read::prune_point::PrunePoint;
use crate::write::commit::Committer;
use crate::write::error::{AppendError, CloseError, OpenError, PublishError, WriteError};
use crate::write::guard::Guard;
use crate::write::hashed::Hashed;
use crate::write::in_flight::FrameWriters;
use crate::write::options::Options;
use crate::write::prepare::{name_segment, prepare, prepare_segments};
use crate::write::publish::{PublisherOrder, run_publisher};
use crate::write::publisher::{Publisher, Stage};
use crate::write::queue::{Buffers, Queue, Successor};
use crate::write::recover::{End, recover};
use crate::write::seal::{self, Sealer, Sealing};

pub use crate::read::tail::TornTail;
pub use crate::write::queue::Space;

/// Time after which a segment that could not be made, or a checkpoint that could not be published,
/// is tried again.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Hears what the writer does. Must return fast, since the next batch waits for it, and must not close
/// or drop the writer, which would wait for it in turn.
pub trait Observer: Send + Sync + 'static {
    /// The entries below `size` are about to be written: what must be durable before they are is
    /// made so here. Called in order, from the thread that makes the frames.
    ///
    /// # Errors
    /// What went wrong. The writer fails, and none of these entries is written.
    fn writing(&self, size: u64) -> Result<(), String> {
        let _ = size;
        Ok(())
    }

    /// Every entry with an index below `size` is durable. Called in order, once per
    /// batch, never after [`Observer::failed`].
    fn durable(&self, size: u64);

    /// The writer has failed; nothing at or past `size` was acknowledged. Called once.
    fn failed(&self, size: u64, error: &WriteError);

    /// A new checkpoint was published. Called in order, from the publisher thread.
    fn published(&self, note: &str) {
        let _ = note;
    }

    /// There was nothing to publish: the published checkpoint covers the `size` entries that were
    /// durable. Called from the publisher thread.
    fn up_to_date(&self, size: u64) {
        let _ = size;
    }

    /// Publishing failed and is tried again. Called from the publisher thread, once per try.
    fn publish_failed(&self, error: &PublishError) {
        let _ = error;
    }

    /// Sealing failed, so that segments take space longer; it is tried again. Called from the
    /// sealer's thread, once per try.
    fn seal_failed(&self, error: &PublishError) {
        let _ = error;
    }
}

/// What was found at open.
#[derive(Debug)]
pub struct Recovered {
    /// Number of entries in the log, all of them durable.
    pub size: u64,
    /// What an interrupted write had left behind the last whole frame; it was never acknowledged,
    /// and is wiped by now.
    pub torn_tail: Option<TornTail>,
    /// Where the log begins, if earlier entries were pruned.
    pub prune_point: Option<PrunePoint>,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Recovered {
    /// All entries that are left, in order, for replay. Works while the writer runs.
    #[must_use]
    pub fn entries(&self) -> Entries {
        let first = self.prune_point.as_ref().map_or(0, PrunePoint::size);
        self.range(first..self.size)
    }

    /// The entries of a range of indexes, in order; ends at `size`.
    #[must_use]
    pub fn range(&self, range: std::ops::Range<u64>) -> Entries {
        let range = range.start..range.end.min(self.size);
        Entries::new(self.disk.clone(), &self.dir, range)
    }
}

/// What the threads share.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) observer: Arc<dyn Observer>,
    queue: Mutex<Queue>,
    /// The committer waits here for entries.
    pub(crate) work: Condvar,
    /// The preparer waits here for its segment to be taken.
    pub(crate) prepare: Condvar,
    pub(crate) segment_bytes: u64,
    pub(crate) durable: AtomicU64,
    /// Held while the observer is told that entries are durable, or that nothing more will be.
    acknowledging: Mutex<()>,
    pub(crate) publish_interval: Duration,
    /// Set while the publisher has nothing to do and must be woken.
    pub(crate) publisher_idle: AtomicBool,
    pub(crate) publisher: Mutex<PublisherOrder>,
    pub(crate) publish: Condvar,
    pub(crate) note: Mutex<String>,
    pub(crate) sealing: Sealing,
    pub(crate) hashed: Arc<Hashed>,
}

/// A panic while a lock was held must not take the others along: what is locked here is changed in
/// steps that leave it whole, and the thread that died poisons the writer itself.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// Waits, where the last segment is nearly full, until it is known whether there is a next one:
    /// otherwise the first entries after an open would find no room.
    fn wait_for_room(&self) {
        let mut queue = self.queue();
        let waits = |queue: &Queue| {
            queue.is_tight()
                && queue.successor() == Successor::Preparing
                && !queue.closing
                // Who prepares segments ends with the writer.
                && queue.failure.is_none()
        };
        while waits(&queue) {
            queue = self
                .work
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tells the publisher that there is something new.
    pub(crate) fn wake_publisher(&self) {
        if self.publisher_idle.swap(false, Ordering::SeqCst) {
            drop(lock(&self.publisher));
            self.publish.notify_all();
        }
    }

    fn order_publisher(&self, order: PublisherOrder) {
        *lock(&self.publisher) = order;
        self.publish.notify_all();
    }

    /// Tells that everything below `size` is durable, unless the writer has failed. Called in the
    /// order of the log.
    pub(crate) fn acknowledge(&self, size: u64, buffers: Buffers) {
        let acknowledging = lock(&self.acknowledging);
        if self.queue().failure.is_some() {
            return;
        }
        self.durable.store(size, Ordering::SeqCst);
        self.observer.durable(size);
        self.queue().done(size, buffers);
        drop(acknowledging);
        self.work.notify_one();
        self.wake_publisher();
    }

    /// Ends the writer with an error. Later calls change nothing.
    pub(crate) fn fail(&self, error: WriteError) {
        let _acknowledging = lock(&self.acknowledging);
        let error = Arc::new(error);
        {
            let mut queue = self.queue();
            if queue.failure.is_some() {
                return;
            }
            queue.fail(error.clone());
        }
        self.prepare.notify_all();
        self.work.notify_all();
        self.observer
            .failed(self.durable.load(Ordering::SeqCst), &error);
    }
}

/// The one writer of a log. Dropping it ends its threads; what was queued is still written, but no
/// last checkpoint is published (see [`Writer::close`]).
pub struct Writer {
    shared: Arc<Shared>,
    committer: Option<JoinHandle<()>>,
    preparer: Option<JoinHandle<()>>,
    publisher: Option<JoinHandle<Result<(), PublishError>>>,
    sealer: Option<JoinHandle<()>>,
    _lock: Box<dyn DiskLock>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("dir", &self.shared.dir)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Creates an empty log, signs the checkpoint of size 0, and opens it.
    ///
    /// # Errors
    /// [`OpenError::AlreadyThere`] when the directory has a log or the guard file exists; others
    /// when the files cannot be made.
    pub fn create(
        options: Options,
        disk: Arc<dyn Disk>,
        observer: Arc<dyn Observer>,
    ) -> Result<(Writer, Recovered), OpenError> {
        options.check()?;
        let (dir, guard) = (&options.dir, &options.guard);
        let folder = dir.join(FOLDER);
        disk.create_dir_all(&folder)
            .map_err(FileError::at("create", &folder))?;
        let lock = take_lock(&*disk, dir)?;
        refuse_existing(&*disk, dir, guard)?;
        prepare(&*disk, dir, options.segment_bytes)?;
        name_segment(&*disk, dir, 0)?;
        for parent in [dir.as_path(), crate::disk::parent(dir)] {
            disk.sync_dir(parent)
                .map_err(FileError::at("sync", parent))?;
        }
        // The guard comes last of what open needs: a log without it was not created to the end,
        // and holds nothing.
        let empty = Checkpoint {
            origin: options.signer.name().to_owned(),
            size: 0,
            root: empty_root(),
        };
        let note = signer::sign(&*options.signer, &empty, &signer::Nothing)?;
        let written = crate::disk::replace_file_durably(&*disk, guard, note.as_bytes());
        written.map_err(FileError::at("write", guard))?;
        Writer::open_locked(options, disk, observer, lock)
    }

    /// Opens a log: finds its end, makes it durable, and starts the threads.
    ///
    /// # Errors
    /// When it is missing, locked, damaged, or older than its guard says.
    pub fn open(
        options: Options,
        disk: Arc<dyn Disk>,
        observer: Arc<dyn Observer>,
    ) -> Result<(Writer, Recovered), OpenError> {
        options.check()?;
        let dir = options.dir.clone();
        // First of all, so that asking for a log that is not there leaves nothing behind.
        if list_segments(&*disk, &dir)?.is_empty() {
            return Err(OpenError::Missing { dir });
        }
        let lock = take_lock(&*disk, &dir)?;
        Writer::open_locked(options, disk, observer, lock)
    }

    fn open_locked(
        options: Options,
        disk: Arc<dyn Disk>,
        observer: Arc<dyn Observer>,
        lock: Box<dyn DiskLock>,
    ) -> Result<(Writer, Recovered), OpenError> {
        let dir = options.dir.clone();
        let end = recover(&disk, &dir, &options.guard, &*options.signer)?;
        let size = end.tree.size();
        let torn_tail = end.torn_tail.clone();
        let prune_point = end.prune_point.clone();
        let recovered = Recovered {
            size,
            torn_tail,
            prune_point,
            disk: disk.clone(),
            dir,
        };
        let writer = Writer::start(options, disk, observer, end, lock)?;
        Ok((writer, recovered))
    }

    fn start(
        options: Options,
        disk: Arc<dyn Disk>,
        observer: Arc<dyn Observer>,
        end: End,
        lock: Box<dyn DiskLock>,
    ) -> Result<Writer, OpenError> {
        let size = end.tree.size();
        let (checkpoint, note) = end.signed.clone();
        let (listed, records_end) = end.published.clone();
        let nonces = options.signer.frame_nonces(end.epoch + 1)?;
        let nonce = *nonces
            .first()
            .ok_or_else(|| SignError::Wrong("no number for the frames to be written".to_owned()))?;
        // Its record is written again where it is there: as at the end of the segments, what can be
        // read need not be durable, and the next record must not follow a hole.
        let listed = listed.filter(|listed| *listed == note);
        let records_end = records_end - listed.map_or(0, |note| record(&note).len() as u64);
        let queue = Queue::new(size, end.segment.len_bytes - end.offset, &options);
        let shared = Arc::new(Shared {
            disk: disk.clone(),
            dir: options.dir.clone(),
            observer,
            queue: Mutex::new(queue),
            work: Condvar::new(),
            prepare: Condvar::new(),
            segment_bytes: options.segment_bytes,
            durable: AtomicU64::new(size),
            acknowledging: Mutex::new(()),
            publish_interval: options.publish_interval,
            publisher_idle: AtomicBool::new(false),
            publisher: Mutex::new(PublisherOrder::Run),
            publish: Condvar::new(),
            note: Mutex::new(note.clone()),
            sealing: Sealing::default(),
            hashed: Arc::default(),
        });
        let signed = (checkpoint, note, Stage::Guarded);
        let mut publisher = Publisher::new(
            disk.clone(),
            &options.dir,
            Guard::new(disk.clone(), &options.guard, &end.guarded),
            options.signer,
            end.base.clone(),
            signed,
            records_end,
        )
        .knowing(shared.hashed.clone());
        let sealer = Sealer::new(disk, &options.dir, options.segments_kept);
        // So that a log is whole as soon as it is open. On a full disk the publisher tries again.
        let _ = publisher.finish();
        let writers = FrameWriters::start(&shared, options.writes_in_flight)?;
        let committer = Committer::new(shared.clone(), writers, end, nonce);
        // Held from here on, so that an error below ends the threads started before it.
        let mut writer = Writer {
            shared,
            committer: None,
            preparer: None,
            publisher: None,
            sealer: None,
            _lock: lock,
        };
        let shared = writer.shared.clone();
        writer.committer = Some(spawn("ledger-commit", move || committer.run())?);
        let preparing = shared.clone();
        writer.preparer = Some(spawn("ledger-prepare", move || {
            step_back();
            prepare_segments(&preparing);
        })?);
        let sealing = shared.clone();
        writer.sealer = Some(spawn("ledger-seal", move || {
            step_back();
            seal::run(&sealing, sealer);
        })?);
        let publish = move || {
            step_back();
            run_publisher(&shared, publisher, size)
        };
        writer.publisher = Some(spawn("ledger-publish", publish)?);
        writer.shared.wait_for_room();
        Ok(writer)
    }

    /// Queues an entry and gives its index. Never waits for the disk; the order of calls is the
    /// order of indexes. The entry is durable once [`Observer::durable`] has named a larger size.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&self, entry: impl AsRef<[u8]>) -> Result<u64, AppendError> {
        self.append_as(entry.as_ref(), false)
    }

    /// Like [`Writer::append`], but may use the room that is kept for when the disk is full: for
    /// the entries that say so, and that sessions have ended.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_reserved(&self, entry: impl AsRef<[u8]>) -> Result<u64, AppendError> {
        self.append_as(entry.as_ref(), true)
    }

    fn append_as(&self, entry: &[u8], reserved: bool) -> Result<u64, AppendError> {
        // Hashed by the caller, so that it is not done between two syncs.
        let leaf = leaf_hash(entry);
        let (index, was_idle) = self.shared.queue().append(entry, leaf, reserved)?;
        if was_idle {
            self.shared.work.notify_one();
        }
        Ok(index)
    }

    /// Number of entries accepted, durable or not.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.shared.queue().next_index
    }

    /// Number of entries that are durable.
    #[must_use]
    pub fn durable_size(&self) -> u64 {
        self.shared.durable.load(Ordering::SeqCst)
    }

    /// How much room there is.
    #[must_use]
    pub fn space(&self) -> Space {
        self.shared.queue().space()
    }

    /// The newest published checkpoint, as a signed note.
    #[must_use]
    pub fn checkpoint(&self) -> Option<String> {
        Some(lock(&self.shared.note).clone())
    }

    /// Writes what is queued, publishes tiles and a last checkpoint, and ends the threads.
    ///
    /// # Errors
    /// See [`CloseError`]; entries that were acknowledged are durable in any case.
    pub fn close(mut self) -> Result<(), CloseError> {
        let published = self.stop(PublisherOrder::Finish);
        if let Some(failure) = self.shared.queue().failure.clone() {
            return Err(CloseError::Failed(failure));
        }
        published.map_err(CloseError::NotPublished)
    }

    fn stop(&mut self, order: PublisherOrder) -> Result<(), PublishError> {
        self.shared.queue().closing = true;
        self.shared.work.notify_all();
        self.shared.prepare.notify_all();
        if let Some(Err(_)) = self.committer.take().map(JoinHandle::join) {
            self.shared.fail(WriteError::ThreadEnded {
                thread: "committer",
            });
        }
        // Only now is everything durable that the last checkpoint is to cover.
        self.shared.order_publisher(order);
        let published = self.publisher.take().map(JoinHandle::join);
        self.shared.sealing.end(order == PublisherOrder::Stop);
        // What it did not come to, it does after the next open.
        drop(self.sealer.take().map(JoinHandle::join));
        // A preparer that died left no segment, and none is needed any more.
        drop(self.preparer.take().map(JoinHandle::join));
        match published {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(PublishError::ThreadEnded),
            None => Ok(()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Does nothing after `close`. What could not be published is made up for at the next open.
        let _ = self.stop(PublisherOrder::Stop);
    }
}

pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, OpenError> {
    let started = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body);
    started.map_err(|source| OpenError::System {
        doing: "start a thread",
        source,
    })
}

/// How much nicer the threads are that nobody waits for: they still get a quarter of a busy processor.
const NICER_BY: i32 = 5;

/// Lets the threads go first that entries wait for: woken beside one of equal rank, they would wait until
/// its time on the processor is over, some milliseconds.
fn step_back() {
    // Of this thread alone, as Linux has it. Nobody depends on it.
    #[cfg(target_os = "linux")]
    if let Ok(nice) = rustix::process::getpriority_process(None) {
        let _ = rustix::process::setpriority_process(None, nice + NICER_BY);
    }
}

fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn DiskLock>, OpenError> {
    let path = dir.join("lock");
    let lock = disk.try_lock(&path).map_err(FileError::at("lock", &path))?;
    lock.ok_or_else(|| OpenError::Locked {
        dir: dir.to_path_buf(),
    })
}

/// Refuses to create a log over another, but goes on with one that was not created to the end.
fn refuse_existing(disk: &dyn Disk, dir: &Path, guard: &Path) -> Result<(), OpenError> {
    let exists = |path: &Path| disk.permissions(path).is_ok();
    for path in [
        guard.to_path_buf(),
        dir.join("checkpoints"),
        dir.join("checkpoint"),
    ] {
        if exists(&path) {
            return Err(OpenError::AlreadyThere { path });
        }
    }
    for first in list_segments(disk, dir)? {
        let mode = crate::disk::OpenMode::Read;
        let used = match crate::format::segment::Segment::open(disk, dir, first, mode)? {
            Some(mut segment) => segment.last_used(0)?.is_some(),
            None => false,
        };
        if first != 0 || used {
            return Err(OpenError::AlreadyThere {
                path: segment_path(dir, first),
            });
        }
    }
    Ok(())
}
