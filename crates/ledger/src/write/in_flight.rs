//! Several writes in flight at once, acknowledged strictly in the order of the log.
//!
//! A sync is mostly waiting, and on a machine that is otherwise idle the wait is long, so the next
//! frames are written in the meantime. A write is complete once the frame is written and synced. It is
//! acknowledged once every earlier write is complete too. After one has failed nothing more is
//! acknowledged, whatever completes later.
//!
//! Each frame writer is a thread that opens the segment for itself. Linux reports a failed write-back
//! once to each open file description (`errseq_t`): if the writers shared one, the first to sync would
//! get the error, and another would be told that its lost frame is safe.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::format::error::FileError;
use crate::write::error::{OpenError, WriteError};
use crate::write::queue::{Buffers, PATIENCE};
use crate::write::writer::{Shared, lock, spawn};

/// A frame to be written.
#[derive(Debug)]
pub(crate) struct Frame {
    /// The segment it goes to.
    pub(crate) path: PathBuf,
    /// Byte offset in the segment, a multiple of the block size.
    pub(crate) offset: u64,
    pub(crate) buffers: Buffers,
    /// Size of the log with this frame, in entries.
    pub(crate) size: u64,
}

/// The writes that are submitted and not acknowledged, in the order of the log.
#[derive(Debug, Default)]
struct Writes {
    /// Frames that no writer has taken yet, by number.
    queued: VecDeque<(u64, Frame)>,
    /// One slot for each write; it holds the frame once the write is complete.
    slots: VecDeque<Option<Frame>>,
    /// The number of the write in the first slot.
    first: u64,
    /// A thread is acknowledging complete writes; others leave theirs to it.
    acknowledging: bool,
    closing: bool,
}

impl Writes {
    /// Takes the oldest frame, if its write is complete.
    fn next_complete(&mut self) -> Option<Frame> {
        self.slots.front_mut()?.take().inspect(|_| {
            self.slots.pop_front();
            self.first += 1;
        })
    }
}

/// The writes in flight, shared by the committer and the frame writers.
#[derive(Debug, Default)]
struct InFlight {
    writes: Mutex<Writes>,
    /// A frame writer waits here for a frame; one is woken for each.
    submitted: Condvar,
    /// The committer waits here until no write is in flight.
    completed: Condvar,
    /// Whether the last write took less than [`PATIENCE`].
    is_quick: AtomicBool,
}

/// The threads that write frames. Dropping it waits for the writes in flight.
pub(crate) struct FrameWriters {
    shared: Arc<Shared>,
    in_flight: Arc<InFlight>,
    threads: Vec<JoinHandle<()>>,
    /// The segment as the committer has opened it, for frames it writes itself.
    own: OpenSegment,
}

/// A segment as one frame writer has opened it.
#[derive(Debug, Default)]
struct OpenSegment(Option<(PathBuf, Box<dyn DiskFile>)>);

impl FrameWriters {
    /// Starts `count` frame writers, each a thread.
    pub(crate) fn start(shared: &Arc<Shared>, count: usize) -> Result<FrameWriters, OpenError> {
        let mut writers = FrameWriters {
            shared: shared.clone(),
            in_flight: Arc::default(),
            threads: Vec::new(),
            own: OpenSegment::default(),
        };
        for _ in 0..count {
            let (shared, in_flight) = (writers.shared.clone(), writers.in_flight.clone());
            let thread = spawn("ledger-write", move || {
                let body = AssertUnwindSafe(|| write_frames(&shared, &in_flight));
                if std::panic::catch_unwind(body).is_err() {
                    let thread = "frame writer";
                    shared.fail(WriteError::ThreadEnded { thread });
                    in_flight.wake_all();
                }
            });
            writers.threads.push(thread?);
        }
        Ok(writers)
    }

    /// Submits a frame. The caller has made sure that a writer is free for it.
    ///
    /// If the frame is `alone` and the disk is quick, the caller writes it: waking a thread would take a
    /// good part of the time of a sync, and the entries that arrive meanwhile make one batch.
    pub(crate) fn submit(&mut self, frame: Frame, alone: bool) -> Result<(), FileError> {
        self.shared.queue().submitted();
        let mut writes = lock(&self.in_flight.writes);
        let number = writes.first + writes.slots.len() as u64;
        writes.slots.push_back(None);
        if alone && self.in_flight.is_quick.load(Ordering::Relaxed) {
            drop(writes);
            let disk = &*self.shared.disk;
            self.in_flight.write(disk, &mut self.own, &frame)?;
            self.in_flight.complete(&self.shared, number, frame);
        } else {
            writes.queued.push_back((number, frame));
            drop(writes);
            self.in_flight.submitted.notify_one();
        }
        Ok(())
    }

    /// Waits until every submitted frame is durable. False if the writer has failed.
    pub(crate) fn wait_until_durable(&self) -> bool {
        let mut writes = lock(&self.in_flight.writes);
        loop {
            if self.shared.queue().failure.is_some() {
                return false;
            }
            if writes.slots.is_empty() && !writes.acknowledging {
                return true;
            }
            let waited = self.in_flight.completed.wait(writes);
            writes = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for FrameWriters {
    fn drop(&mut self) {
        lock(&self.in_flight.writes).closing = true;
        self.in_flight.submitted.notify_all();
        for thread in self.threads.drain(..) {
            // A writer that panicked has reported it.
            drop(thread.join());
        }
    }
}

impl InFlight {
    /// Wakes everyone who waits. A failure is set without holding `writes`, so the lock is taken here:
    /// then nobody is between checking for a failure and waiting.
    fn wake_all(&self) {
        drop(lock(&self.writes));
        self.submitted.notify_all();
        self.completed.notify_all();
    }

    /// The next frame to write; `None` when there will be no more.
    fn take(&self, shared: &Shared) -> Option<(u64, Frame)> {
        let mut writes = lock(&self.writes);
        loop {
            if shared.queue().failure.is_some() {
                return None;
            }
            if let Some(next) = writes.queued.pop_front() {
                return Some(next);
            }
            if writes.closing {
                return None;
            }
            let waited = self.submitted.wait(writes);
            writes = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write(
        &self,
        disk: &dyn Disk,
        segment: &mut OpenSegment,
        frame: &Frame,
    ) -> Result<(), FileError> {
        let begun = Instant::now();
        segment.write(disk, frame)?;
        let is_quick = begun.elapsed() < PATIENCE;
        self.is_quick.store(is_quick, Ordering::Relaxed);
        Ok(())
    }

    /// Marks a write as complete, and acknowledges every write that has none in flight before it.
    fn complete(&self, shared: &Shared, number: u64, frame: Frame) {
        let mut writes = lock(&self.writes);
        let place = usize::try_from(number - writes.first).unwrap_or(usize::MAX);
        if let Some(slot) = writes.slots.get_mut(place) {
            *slot = Some(frame);
        }
        if writes.acknowledging {
            return;
        }
        writes.acknowledging = true;
        // Without the lock, so that frames are submitted and completed while the observer is called.
        while let Some(frame) = writes.next_complete() {
            drop(writes);
            shared.acknowledge(frame.size, frame.buffers);
            writes = lock(&self.writes);
        }
        writes.acknowledging = false;
        drop(writes);
        self.completed.notify_all();
    }
}

/// Body of a frame writer.
fn write_frames(shared: &Shared, in_flight: &InFlight) {
    let mut segment = OpenSegment::default();
    while let Some((number, frame)) = in_flight.take(shared) {
        match in_flight.write(&*shared.disk, &mut segment, &frame) {
            Ok(()) => in_flight.complete(shared, number, frame),
            Err(error) => shared.fail(WriteError::File(error)),
        }
    }
    // Frames still queued after a failure will never complete: whoever waits for them checks again.
    in_flight.wake_all();
}

impl OpenSegment {
    /// Writes and syncs a frame through this writer's own open file.
    fn write(&mut self, disk: &dyn Disk, frame: &Frame) -> Result<(), FileError> {
        let path = &frame.path;
        let file = match self.0.take().filter(|(open, _)| open == path) {
            Some((_, file)) => file,
            None => disk
                .open_direct(path, OpenMode::Write)
                .map_err(FileError::at("open", path))?,
        };
        let written = file.write_all_at(&frame.buffers.frame, frame.offset);
        written.map_err(FileError::at("write", path))?;
        file.sync_data().map_err(FileError::at("sync", path))?;
        self.0 = Some((path.clone(), file));
        Ok(())
    }
}
