//! Several frames under way to the disk at once, acknowledged strictly in the order of the log.
//!
//! Most of a sync is waiting, and on a machine that is mostly idle the waiting is long: the next
//! frames are written meanwhile. A frame lands when its write and its sync are done; it is
//! acknowledged once all before it have landed. After one has failed nothing is acknowledged any
//! more, whatever lands.
//!
//! Each lane is a thread with an opening of the segment of its own. The kernel tells each opening of
//! a file once of a write-back that failed (`errseq_t`): were one shared, one lane would hear of it,
//! and another would be told that its lost frame is safe.

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
    /// Where in it.
    pub(crate) offset: u64,
    pub(crate) buffers: Buffers,
    /// How many entries there are with it.
    pub(crate) size: u64,
}

#[derive(Debug, Default)]
struct Air {
    /// Frames that no lane has taken yet, by number.
    waiting: VecDeque<(u64, Frame)>,
    /// For each frame that was launched and is not acknowledged, in order: itself, once landed.
    aloft: VecDeque<Option<Frame>>,
    /// The number of the first of them.
    first: u64,
    /// Somebody acknowledges what has landed: who lands a frame leaves it to them.
    acknowledging: bool,
    closing: bool,
}

impl Air {
    /// The oldest frame, if it has landed.
    fn next_landed(&mut self) -> Option<Frame> {
        self.aloft.front_mut()?.take().inspect(|_| {
            self.aloft.pop_front();
            self.first += 1;
        })
    }
}

#[derive(Debug, Default)]
struct Sky {
    air: Mutex<Air>,
    /// A lane waits here for a frame: one is woken for each.
    launched: Condvar,
    /// The committer waits here until nothing is under way.
    landed: Condvar,
    /// Whether the last frame took less than [`PATIENCE`].
    is_quick: AtomicBool,
}

/// See the module text. Dropping it waits for what is under way.
pub(crate) struct Lanes {
    shared: Arc<Shared>,
    sky: Arc<Sky>,
    threads: Vec<JoinHandle<()>>,
    /// The caller's own lane.
    own: Lane,
}

/// A segment as one lane has opened it.
#[derive(Debug, Default)]
struct Lane(Option<(PathBuf, Box<dyn DiskFile>)>);

impl Lanes {
    /// So many lanes, each a thread.
    pub(crate) fn start(shared: &Arc<Shared>, count: usize) -> Result<Lanes, OpenError> {
        let mut lanes = Lanes {
            shared: shared.clone(),
            sky: Arc::default(),
            threads: Vec::new(),
            own: Lane::default(),
        };
        for _ in 0..count {
            let (shared, sky) = (lanes.shared.clone(), lanes.sky.clone());
            let lane = spawn("ledger-lane", move || {
                let flown = std::panic::catch_unwind(AssertUnwindSafe(|| fly(&shared, &sky)));
                if flown.is_err() {
                    shared.fail(WriteError::ThreadEnded { thread: "lane" });
                    sky.wake();
                }
            });
            lanes.threads.push(lane?);
        }
        Ok(lanes)
    }

    /// Hands a frame over. The caller sees to it that there is a lane for it.
    ///
    /// A frame that is `alone`, on a disk that is quick, is written by the caller: waking a lane
    /// would take a good part of the time of a sync, and what comes meanwhile makes one batch.
    pub(crate) fn launch(&mut self, frame: Frame, alone: bool) -> Result<(), FileError> {
        self.shared.queue().launched();
        let mut air = lock(&self.sky.air);
        let number = air.first + air.aloft.len() as u64;
        air.aloft.push_back(None);
        if alone && self.sky.is_quick.load(Ordering::Relaxed) {
            drop(air);
            self.sky.write(&*self.shared.disk, &mut self.own, &frame)?;
            self.sky.landed(&self.shared, number, frame);
        } else {
            air.waiting.push_back((number, frame));
            drop(air);
            self.sky.launched.notify_one();
        }
        Ok(())
    }

    /// Waits until everything launched is durable. False when the writer has failed.
    pub(crate) fn all_landed(&self) -> bool {
        let mut air = lock(&self.sky.air);
        loop {
            if self.shared.queue().failure.is_some() {
                return false;
            }
            if air.aloft.is_empty() && !air.acknowledging {
                return true;
            }
            let waited = self.sky.landed.wait(air);
            air = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        lock(&self.sky.air).closing = true;
        self.sky.launched.notify_all();
        for lane in self.threads.drain(..) {
            // A lane that panicked has said so.
            drop(lane.join());
        }
    }
}

impl Sky {
    /// Wakes all who wait. A failure is set without `air`, so it is taken here: nobody stands
    /// between having looked and waiting.
    fn wake(&self) {
        drop(lock(&self.air));
        self.launched.notify_all();
        self.landed.notify_all();
    }

    /// The next frame to write; `None` when there will be none.
    fn take(&self, shared: &Shared) -> Option<(u64, Frame)> {
        let mut air = lock(&self.air);
        loop {
            if shared.queue().failure.is_some() {
                return None;
            }
            if let Some(next) = air.waiting.pop_front() {
                return Some(next);
            }
            if air.closing {
                return None;
            }
            let waited = self.launched.wait(air);
            air = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write(&self, disk: &dyn Disk, lane: &mut Lane, frame: &Frame) -> Result<(), FileError> {
        let begun = Instant::now();
        lane.write(disk, frame)?;
        let is_quick = begun.elapsed() < PATIENCE;
        self.is_quick.store(is_quick, Ordering::Relaxed);
        Ok(())
    }

    /// Notes that a frame is on disk, and acknowledges what has nothing under way before it.
    fn landed(&self, shared: &Shared, number: u64, frame: Frame) {
        let mut air = lock(&self.air);
        let place = usize::try_from(number - air.first).unwrap_or(usize::MAX);
        if let Some(slot) = air.aloft.get_mut(place) {
            *slot = Some(frame);
        }
        if air.acknowledging {
            return;
        }
        air.acknowledging = true;
        // Without `air`, so that frames are launched and land while the observer is told.
        while let Some(frame) = air.next_landed() {
            drop(air);
            shared.acknowledge(frame.size, frame.buffers);
            air = lock(&self.air);
        }
        air.acknowledging = false;
        drop(air);
        self.landed.notify_all();
    }
}

/// Body of a lane.
fn fly(shared: &Shared, sky: &Sky) {
    let mut lane = Lane::default();
    while let Some((number, frame)) = sky.take(shared) {
        match sky.write(&*shared.disk, &mut lane, &frame) {
            Ok(()) => sky.landed(shared, number, frame),
            Err(error) => shared.fail(WriteError::File(error)),
        }
    }
    // Frames that nobody takes any more will not land: who waits for them looks again.
    sky.wake();
}

impl Lane {
    /// Makes a frame durable, through this lane's own opening of its segment.
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
