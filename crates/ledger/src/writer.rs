//! The one writer of a log. (Bodies follow.)
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::Disk;
use crate::error::{AppendError, CloseError, OpenError, WriteError};
use crate::note::LogKey;
use crate::read::Entries;

/// Default size of a segment file: big enough that starting the next is rare.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// Default bound on queued entries.
pub const QUEUE_ENTRIES_DEFAULT: usize = 65_536;
/// Default bound on the bytes of one batch.
pub const BATCH_BYTES_DEFAULT: usize = 1024 * 1024;
/// Default time between two checkpoints.
pub const PUBLISH_INTERVAL_DEFAULT: Duration = Duration::from_secs(1);

/// How a log is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory of the log.
    pub dir: PathBuf,
    /// The file with the last signed checkpoint; keep it apart from `dir`, best on another disk.
    pub guard: PathBuf,
    /// The key that signs checkpoints; its name is the origin of the log.
    pub key: LogKey,
    /// Size of a new segment file.
    pub segment_bytes: u64,
    /// Most entries queued but not yet durable.
    pub queue_entries_max: usize,
    /// Most payload bytes in one batch.
    pub batch_bytes_max: usize,
    /// Time between two checkpoints while entries come in.
    pub publish_interval: Duration,
}
impl Options {
    /// Options with the defaults.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, guard: impl Into<PathBuf>, key: LogKey) -> Options {
        Options {
            dir: dir.into(),
            guard: guard.into(),
            key,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            queue_entries_max: QUEUE_ENTRIES_DEFAULT,
            batch_bytes_max: BATCH_BYTES_DEFAULT,
            publish_interval: PUBLISH_INTERVAL_DEFAULT,
        }
    }
}

/// Hears from the committer thread. Must return fast: the next batch waits for it.
pub trait Observer: Send + Sync + 'static {
    /// Every entry with an index below `size` is durable. Called in order, once per batch.
    fn durable(&self, size: u64);
    /// The writer has failed; nothing at or past `size` was acknowledged. Called once.
    fn failed(&self, size: u64, error: &WriteError);
}

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Anything may be appended.
    Ample,
    /// The disk is full: only [`Writer::append_reserved`] is served.
    ReserveOnly,
    /// The reserve is used up as well.
    Exhausted,
}

/// What was found at open.
#[derive(Debug)]
pub struct Recovered {
    /// Number of entries in the log, all of them durable.
    pub size: u64,
    /// What an interrupted write had left behind the last whole frame; it was never acknowledged.
    pub torn_tail: Option<TornTail>,
}
impl Recovered {
    /// All entries, in order, for replay.
    pub fn entries(&self) -> Entries {
        Entries {}
    }
}

/// The rest of an interrupted write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment file.
    pub path: PathBuf,
    /// Where in it the last whole frame ends.
    pub offset: u64,
    /// How many bytes behind it are not zero, up to the last such byte.
    pub len_bytes: u64,
    /// The index the next entry gets.
    pub index: u64,
}

/// The one writer of a log.
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// Creates an empty log and opens it.
    ///
    /// # Errors
    /// When there is something already, or the files cannot be made.
    pub fn create(
        options: Options,
        disk: Arc<dyn Disk>,
        observer: Arc<dyn Observer>,
    ) -> Result<(Writer, Recovered), OpenError> {
        Writer::open(options, disk, observer)
    }
    /// Opens a log.
    ///
    /// # Errors
    /// When it is missing, locked, damaged, or older than its guard.
    pub fn open(
        options: Options,
        _disk: Arc<dyn Disk>,
        _observer: Arc<dyn Observer>,
    ) -> Result<(Writer, Recovered), OpenError> {
        Err(OpenError::Missing { dir: options.dir })
    }
    /// Queues an entry and gives its index.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&self, _entry: impl AsRef<[u8]>) -> Result<u64, AppendError> {
        Err(AppendError::Closed)
    }
    /// Like [`Writer::append`], but may use the reserve.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_reserved(&self, _entry: impl AsRef<[u8]>) -> Result<u64, AppendError> {
        Err(AppendError::Closed)
    }
    /// Number of entries accepted.
    #[must_use]
    pub fn size(&self) -> u64 {
        0
    }
    /// Number of entries that are durable.
    #[must_use]
    pub fn durable_size(&self) -> u64 {
        0
    }
    /// How much room there is.
    #[must_use]
    pub fn space(&self) -> Space {
        Space::Ample
    }
    /// The newest published checkpoint, as a signed note.
    #[must_use]
    pub fn checkpoint(&self) -> Option<String> {
        None
    }
    /// Writes what is queued, publishes tiles and a last checkpoint, and ends the threads.
    ///
    /// # Errors
    /// See [`CloseError`].
    pub fn close(self) -> Result<(), CloseError> {
        Ok(())
    }
}
