//! What waits for the committer, and how much room there is for it.
//!
//! An index, once given out, must find room on disk. So each entry is given its place when it is
//! queued: batches are formed here, as the frames they will be written as, and the room left in the
//! segment is counted down to the block.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::format::merkle::Hash;
use crate::format::segment::{FRAME_HEADER_BYTES, frame_bytes};
use crate::write::error::{AppendError, WriteError};
use crate::write::options::Options;

/// Most batches queued, the one being written included: with the default of 1 MiB each, 32 MiB of
/// memory, which a disk of 200 MB/s writes in 0.2 s.
pub const QUEUE_BATCHES_MAX: usize = 32;

/// Room in the last segment that is kept for [`crate::Writer::append_reserved`] while the disk is
/// full, in bytes: 1 MiB is 256 frames of one entry each, or some 3,000 entries in batches.
/// In segments under 4 MiB it is a quarter of the segment.
pub const RESERVE_BYTES: u64 = 1024 * 1024;

/// Bytes of a batch that is written at once while others are in flight: a smaller batch is worth
/// waiting for more entries, as long as the disk is quick.
const EAGER_BYTES: usize = 512 * 1024;

/// How long a smaller batch waits for more entries while others are in flight: longer than a sync takes
/// on a good disk, and much shorter than on a slow one.
pub(crate) const PATIENCE: Duration = Duration::from_micros(500);

/// Bytes of a frame with one entry of 65,535 bytes: 72 KiB with header and padding.
const LONGEST_FRAME_BYTES: u64 = 72 * 1024;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Anything may be appended.
    Ample,
    /// The disk is full: only [`crate::Writer::append_reserved`] is served.
    ReserveOnly,
    /// The reserve is used up as well.
    Exhausted,
}

/// The state of the segment after the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Successor {
    /// It is being made, for the first time of asking.
    Preparing,
    /// It is there and may be planned into; how many bytes it has.
    Ready(u64),
    /// Batches go to it already; the next one cannot be made before it has its name.
    Taken,
    /// It could not be made, for want of space or otherwise. It is tried again.
    Failed,
}

/// The memory of a batch.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// Room for the frame's header, then the payload.
    pub(crate) frame: Vec<u8>,
    /// The hash of each entry.
    pub(crate) leaves: Vec<Hash>,
}

/// Entries that become one frame.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) buffers: Buffers,
    pub(crate) first: u64,
    pub(crate) count: u32,
    /// Whether it opens the next segment.
    pub(crate) rotate: bool,
}

impl Batch {
    fn frame_bytes(&self) -> u64 {
        frame_bytes(self.buffers.frame.len() - FRAME_HEADER_BYTES)
    }
}

/// Whether a batch is to be written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Nothing is queued.
    Empty,
    /// As many frames are in flight as are allowed.
    Full,
    /// The batch is to be written now.
    Now,
    /// It is to be written after this time, unless a write completes or more entries arrive before.
    Within(Duration),
}

/// See the module text.
#[derive(Debug)]
pub(crate) struct Queue {
    closed: VecDeque<Batch>,
    /// The batch that still takes entries.
    open: Option<Batch>,
    /// Emptied buffers, to be used again.
    spare: Vec<Buffers>,
    pub(crate) next_index: u64,
    /// Entries below it are durable.
    pub(crate) durable: u64,
    /// Bytes left in the segment that the open batch goes to, not counting the open batch.
    free_bytes: u64,
    successor: Successor,
    reserve_bytes: u64,
    entries_max: usize,
    batch_bytes_max: usize,
    /// Frames submitted and not acknowledged, and the most there may be.
    in_flight: usize,
    in_flight_max: usize,
    /// When the last of them was submitted.
    submitted_at: Instant,
    pub(crate) closing: bool,
    pub(crate) failure: Option<Arc<WriteError>>,
}

impl Queue {
    pub(crate) fn new(next_index: u64, free_bytes: u64, options: &Options) -> Queue {
        Queue {
            closed: VecDeque::new(),
            open: None,
            spare: Vec::new(),
            next_index,
            durable: next_index,
            free_bytes,
            successor: Successor::Preparing,
            reserve_bytes: RESERVE_BYTES.min(options.segment_bytes / 4),
            entries_max: options.queue_entries_max,
            batch_bytes_max: options.batch_bytes_max,
            in_flight: 0,
            in_flight_max: options.writes_in_flight,
            submitted_at: Instant::now(),
            closing: false,
            failure: None,
        }
    }

    /// Gives an entry, whose hash is `leaf`, its index and its place. Says also whether the committer may be waiting.
    pub(crate) fn append(
        &mut self,
        entry: &[u8],
        leaf: Hash,
        reserved: bool,
    ) -> Result<(u64, bool), AppendError> {
        if self.failure.is_some() {
            return Err(AppendError::Failed);
        }
        if self.closing {
            return Err(AppendError::Closed);
        }
        if entry.is_empty() {
            return Err(AppendError::Empty);
        }
        // The length in front of it; never above 65,535, as is checked here.
        let Ok(len) = u16::try_from(entry.len()) else {
            return Err(AppendError::TooLarge);
        };
        if self.next_index - self.durable >= self.entries_max as u64 {
            return Err(AppendError::Full);
        }
        let was = self.eager();
        let was_idle = self.open.is_none() && self.closed.is_empty();
        self.make_room(2 + entry.len(), reserved)?;
        let index = self.next_index;
        let spare = &mut self.spare;
        let batch = self
            .open
            .get_or_insert_with(|| new_batch(spare, index, false));
        let buffers = &mut batch.buffers;
        buffers.frame.extend_from_slice(&len.to_be_bytes());
        buffers.frame.extend_from_slice(entry);
        buffers.leaves.push(leaf);
        batch.count += 1;
        self.next_index += 1;
        Ok((index, was_idle || was != self.eager()))
    }

    /// Sees to it that the open batch, or a new one, takes `len` more bytes.
    fn make_room(&mut self, len: usize, reserved: bool) -> Result<(), AppendError> {
        let room = match self.successor {
            Successor::Ready(_) => self.free_bytes,
            Successor::Preparing | Successor::Taken | Successor::Failed if reserved => {
                self.free_bytes
            }
            Successor::Preparing | Successor::Taken | Successor::Failed => {
                self.free_bytes.saturating_sub(self.reserve_bytes)
            }
        };
        let held = self
            .open
            .as_ref()
            .map_or(0, |open| open.buffers.frame.len() - FRAME_HEADER_BYTES);
        let fits_batch = held == 0 || held + len <= self.batch_bytes_max;
        if fits_batch && frame_bytes(held + len) <= room {
            return Ok(());
        }
        // What follows closes the open batch, and nothing may be changed before it is sure to work.
        if self.closed.len() + usize::from(self.open.is_some()) >= QUEUE_BATCHES_MAX {
            return Err(AppendError::Full);
        }
        let used = self.open.as_ref().map_or(0, Batch::frame_bytes);
        if !fits_batch && used + frame_bytes(len) <= room {
            self.close_open();
            return Ok(());
        }
        match self.successor {
            Successor::Ready(bytes) => {
                self.close_open();
                self.free_bytes = bytes;
                self.successor = Successor::Taken;
                self.open = Some(new_batch(&mut self.spare, self.next_index, true));
                Ok(())
            }
            // The disk is not full, only slower than the callers.
            Successor::Preparing | Successor::Taken => Err(AppendError::Full),
            Successor::Failed => Err(AppendError::NoSpace),
        }
    }

    fn close_open(&mut self) {
        if let Some(open) = self.open.take() {
            self.free_bytes -= open.frame_bytes();
            self.closed.push_back(open);
        }
    }

    /// Whether enough is queued to be written while other frames are in flight.
    fn eager(&self) -> bool {
        let open = self.open.as_ref();
        let open = open.map_or(0, |open| open.buffers.frame.len());
        !self.closed.is_empty() || open >= EAGER_BYTES
    }

    /// Whether to write a batch now: at once if nothing is in flight; beside other frames if it is
    /// large enough, or if the disk is slow.
    pub(crate) fn ready(&self) -> Ready {
        if self.open.is_none() && self.closed.is_empty() {
            return Ready::Empty;
        }
        if self.in_flight == 0 {
            return Ready::Now;
        }
        if self.in_flight >= self.in_flight_max {
            return Ready::Full;
        }
        let left = PATIENCE.saturating_sub(self.submitted_at.elapsed());
        if self.eager() || left.is_zero() {
            Ready::Now
        } else {
            Ready::Within(left)
        }
    }

    /// A frame was submitted.
    pub(crate) fn submitted(&mut self) {
        self.in_flight += 1;
        self.submitted_at = Instant::now();
    }

    /// The oldest batch, which takes no more entries, and whether it is alone: nothing else is queued
    /// or in flight.
    pub(crate) fn take(&mut self) -> Option<(Batch, bool)> {
        if self.closed.is_empty() {
            self.close_open();
        }
        let batch = self.closed.pop_front()?;
        let alone = self.in_flight == 0 && self.closed.is_empty() && self.open.is_none();
        Some((batch, alone))
    }

    /// Notes that a batch is durable, and keeps its buffer.
    pub(crate) fn done(&mut self, durable: u64, mut buffers: Buffers) {
        self.durable = durable;
        self.in_flight -= 1;
        // A few serve the steady state; after a burst the rest is given back.
        if self.spare.len() < 4 {
            buffers.frame.clear();
            self.spare.push(buffers);
        }
    }

    /// Drops all that is queued: it will never be written.
    pub(crate) fn fail(&mut self, error: Arc<WriteError>) {
        self.failure = Some(error);
        self.open = None;
        self.closed.clear();
    }

    pub(crate) fn set_successor(&mut self, successor: Successor) {
        self.successor = successor;
    }

    pub(crate) fn successor(&self) -> Successor {
        self.successor
    }

    /// Whether what is left in the segment would not take the longest entry beside the reserve.
    pub(crate) fn is_tight(&self) -> bool {
        self.left_bytes() < self.reserve_bytes + LONGEST_FRAME_BYTES
    }

    fn left_bytes(&self) -> u64 {
        let used = self.open.as_ref().map_or(0, Batch::frame_bytes);
        self.free_bytes.saturating_sub(used)
    }

    pub(crate) fn space(&self) -> Space {
        // By the longest entry, so that the answer holds whatever comes next.
        if self.successor != Successor::Failed || !self.is_tight() {
            Space::Ample
        } else if self.left_bytes() >= LONGEST_FRAME_BYTES {
            Space::ReserveOnly
        } else {
            Space::Exhausted
        }
    }
}

fn new_batch(spare: &mut Vec<Buffers>, first: u64, rotate: bool) -> Batch {
    let mut buffers = spare.pop().unwrap_or_default();
    buffers.frame.resize(FRAME_HEADER_BYTES, 0);
    Batch {
        buffers,
        first,
        count: 0,
        rotate,
    }
}
