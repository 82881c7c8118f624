//! How a log is opened, and the ranges of what can be chosen.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::format::segment::{BLOCK_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::keys::signer::Signer;
use crate::write::error::OpenError;

/// Default size of a segment, in bytes: 64 MiB, some 200,000 entries of 300 bytes, so that starting
/// the next one is rare, and reading the last one at open takes well under a second.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// Default bound on entries queued and not yet durable: 65,536, 60 ms at a million a second.
pub const QUEUE_ENTRIES_DEFAULT: usize = 65_536;

/// Default bound on the payload of a batch, in bytes: at 1 MiB a sync still takes under 1 ms, and
/// larger batches were measured to be slower.
pub const BATCH_BYTES_DEFAULT: usize = 1024 * 1024;

/// Largest bound on the payload of a batch, in bytes; recovery rewrites four batches.
pub const BATCH_BYTES_LIMIT: usize = 4 * 1024 * 1024;

/// Most frames in flight at once, and the default: as many as recovery writes again.
pub const WRITES_IN_FLIGHT_LIMIT: usize = 4;

/// Default time between two checkpoints while entries come in.
pub const PUBLISH_INTERVAL_DEFAULT: Duration = Duration::from_secs(1);

/// Fewest segments that stay: the last may be empty, and the one before tells the epoch. Also the
/// default.
pub const SEGMENTS_KEPT_MIN: usize = 2;

/// How a log is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory of the log.
    pub dir: PathBuf,
    /// The file with the last signed checkpoint. Keep it apart from `dir`, best on another disk: it
    /// is what tells the log from an older copy of it.
    pub guard: PathBuf,
    /// Signs checkpoints; its name is the origin of the log.
    pub signer: Arc<dyn Signer>,
    /// Size of a new segment, in bytes: 256 KiB to 1 GiB, a multiple of 4 KiB.
    pub segment_bytes: u64,
    /// Most entries queued and not yet durable, at least 1.
    pub queue_entries_max: usize,
    /// Most payload bytes in one batch, 1 to 4 MiB. A longer entry is a batch of its own.
    pub batch_bytes_max: usize,
    /// Most frames in flight at once, 1 to 4.
    pub writes_in_flight: usize,
    /// Time between two checkpoints while entries come in, 1 ms or more.
    pub publish_interval: Duration,
    /// How many of the newest segments stay beside the tiles made from them, 2 or more.
    pub segments_kept: usize,
}

impl Options {
    /// Options with the defaults.
    #[must_use]
    pub fn new(
        dir: impl Into<PathBuf>,
        guard: impl Into<PathBuf>,
        signer: impl Signer + 'static,
    ) -> Options {
        Options {
            dir: dir.into(),
            guard: guard.into(),
            signer: Arc::new(signer),
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            queue_entries_max: QUEUE_ENTRIES_DEFAULT,
            batch_bytes_max: BATCH_BYTES_DEFAULT,
            writes_in_flight: WRITES_IN_FLIGHT_LIMIT,
            publish_interval: PUBLISH_INTERVAL_DEFAULT,
            segments_kept: SEGMENTS_KEPT_MIN,
        }
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refuse = |option, value, must| {
            Err(OpenError::Option {
                option,
                value,
                must,
            })
        };
        let segment = self.segment_bytes;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment)
            || !segment.is_multiple_of(BLOCK_BYTES)
        {
            return refuse(
                "segment_bytes",
                segment,
                "256 KiB to 1 GiB, in steps of 4 KiB",
            );
        }
        if !(1..=BATCH_BYTES_LIMIT).contains(&self.batch_bytes_max) {
            return refuse(
                "batch_bytes_max",
                self.batch_bytes_max as u64,
                "1 byte to 4 MiB",
            );
        }
        if self.queue_entries_max == 0 {
            return refuse("queue_entries_max", 0, "at least 1");
        }
        if !(1..=WRITES_IN_FLIGHT_LIMIT).contains(&self.writes_in_flight) {
            return refuse("writes_in_flight", self.writes_in_flight as u64, "1 to 4");
        }
        if self.segments_kept < SEGMENTS_KEPT_MIN {
            return refuse("segments_kept", self.segments_kept as u64, "at least 2");
        }
        if self.publish_interval < Duration::from_millis(1) {
            return refuse("publish_interval", 0, "at least 1 ms");
        }
        Ok(())
    }
}
