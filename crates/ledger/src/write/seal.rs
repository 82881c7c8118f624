//! Sealing: segments give way to the tiles made from them.
//!
//! A full segment holds the same as its bundles, which are the long-term form of the log. Once
//! a signed checkpoint covers it, every tile over it is made again from its frames, compared with the
//! file that the publisher left, and synced; then the directories are, and only then is the segment
//! removed. Oldest first, each removal synced before the next, so that segments are always without a
//! gap. The newest ones stay: they hold the tail, and the epoch that the next open goes on from.
//!
//! **Why a tile is removed when its sync fails.** The kernel marks its pages clean all the same: it
//! would read well, and a further sync would say `Ok` (see [`crate::write::recover`]). It is written anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::disk::{Disk, OpenMode, parent};
use crate::format::error::{FileError, ReadError};
use crate::format::segment::{FOLDER, POLITE_WINDOW_BYTES, list_segments, segment_path};
use crate::format::tile::{TILE_WIDTH, Tile, TileBuilder};
use crate::read::bundles::builder_at;
use crate::read::reader::{Cursor, Step};
use crate::write::error::PublishError;
use crate::write::tile_file;
use crate::write::writer::{Shared, lock};

/// Where a tile is written before it gets its name; the publisher has another.
const TEMPORARY: &str = "sealed-tile.tmp";

/// Time after which sealing is tried again: what stands in its way costs only space.
const PAUSE: Duration = Duration::from_secs(60);

/// What the rest of the writer tells the sealer.
#[derive(Debug, Default)]
pub(crate) struct Sealing {
    orders: Mutex<Orders>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct Orders {
    /// The size of the newest published checkpoint.
    signed: u64,
    closing: bool,
    stop: bool,
}

impl Sealing {
    /// A checkpoint of this size is published.
    pub(crate) fn signed(&self, size: u64) {
        lock(&self.orders).signed = size;
        self.changed.notify_all();
    }

    /// Ends the sealer: after the segment it is at or about to begin, or at once.
    pub(crate) fn end(&self, at_once: bool) {
        let mut orders = lock(&self.orders);
        orders.closing = true;
        orders.stop |= at_once;
        drop(orders);
        self.changed.notify_all();
    }

    fn get(&self) -> Orders {
        *lock(&self.orders)
    }

    /// Waits until there is more that is signed than `signed`, the end, or `pause`.
    fn wait(&self, signed: u64, pause: Duration) -> Orders {
        let waits = |orders: &mut Orders| orders.signed <= signed && !orders.closing;
        let orders = lock(&self.orders);
        let waited = self.changed.wait_timeout_while(orders, pause, waits);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Body of the thread.
pub(crate) fn run(shared: &Shared, mut sealer: Sealer) {
    let mut seen = shared.sealing.wait(0, Duration::MAX);
    loop {
        let go_on = || !shared.sealing.get().stop && shared.queue().failure.is_none();
        let outcome = sealer.seal_one(seen.signed, &go_on);
        let pause = match &outcome {
            Err(error) => {
                shared.observer.seal_failed(error);
                PAUSE
            }
            Ok(_) => Duration::MAX,
        };
        if seen.closing || !go_on() {
            return;
        }
        seen = match outcome {
            Ok(true) => shared.sealing.get(),
            Ok(false) | Err(_) => shared.sealing.wait(seen.signed, pause),
        };
    }
}

/// See the module text.
#[derive(Debug)]
pub(crate) struct Sealer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// How many of the newest segments stay.
    kept: usize,
    /// How far tiles are durable; `None` before the first one, and after an error.
    at: Option<(TileBuilder, Cursor)>,
    /// Directories of tiles that were not synced since.
    folders: BTreeSet<PathBuf>,
    /// The removal of a segment may not be durable; opening makes sure of it.
    unsure: bool,
}

impl Sealer {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path, kept: usize) -> Sealer {
        Sealer {
            disk,
            dir: dir.to_path_buf(),
            kept,
            at: None,
            folders: BTreeSet::new(),
            unsure: false,
        }
    }

    /// Seals the oldest segment, if it can be: entries below `signed` are covered by a published
    /// checkpoint. False when there is none, or `go_on` says no.
    fn seal_one(&mut self, signed: u64, go_on: &dyn Fn() -> bool) -> Result<bool, PublishError> {
        let segments = list_segments(&*self.disk, &self.dir)?;
        let [oldest, next, ..] = segments[..] else {
            return Ok(false);
        };
        // The bundle that reaches over its end must be full as well.
        let goal = next.next_multiple_of(TILE_WIDTH.into());
        if segments.len() <= self.kept || goal > signed || self.unsure {
            return Ok(false);
        }
        let mut at = match self.at.take() {
            Some(at) => at,
            None => self.stand_at(oldest)?,
        };
        // What is in its window may be older than the last frames.
        at.1.refresh();
        while at.0.size() < goal {
            if !go_on() {
                return Ok(false);
            }
            self.take_frame(&mut at)?;
        }
        self.at = Some(at);
        while let Some(folder) = self.folders.first() {
            self.disk
                .sync_dir(folder)
                .map_err(FileError::at("sync", folder))?;
            self.folders.pop_first();
        }
        let path = segment_path(&self.dir, oldest);
        self.disk
            .remove_file(&path)
            .map_err(FileError::at("remove", &path))?;
        let folder = self.dir.join(FOLDER);
        self.unsure = true;
        self.disk
            .sync_dir(&folder)
            .map_err(FileError::at("sync", &folder))?;
        self.unsure = false;
        Ok(true)
    }

    fn stand_at(&self, first: u64) -> Result<(TileBuilder, Cursor), ReadError> {
        let builder = builder_at(&*self.disk, &self.dir, first)?;
        let cursor =
            Cursor::seek(self.disk.clone(), &self.dir, first)?.direct(POLITE_WINDOW_BYTES)?;
        Ok((builder, cursor))
    }

    /// Makes the tiles durable that the next frame completes.
    fn take_frame(&mut self, at: &mut (TileBuilder, Cursor)) -> Result<(), PublishError> {
        let (builder, cursor) = at;
        let frame = match cursor.step()? {
            Step::Frame(frame) => frame,
            Step::End(kind) => return Err(cursor.ended_early(kind).into()),
        };
        let mut full = Vec::new();
        let payload = cursor.payload(&frame).map_err(ReadError::from)?;
        builder.push_payload(payload, |tile, bytes| full.push((tile, bytes.to_vec())));
        if builder.root() != frame.header.root {
            let size = frame.header.end();
            return Err(PublishError::Root { size });
        }
        for (tile, bytes) in full {
            self.keep(tile, &bytes)?;
        }
        Ok(())
    }

    fn keep(&mut self, tile: Tile, bytes: &[u8]) -> Result<(), FileError> {
        let disk = &*self.disk;
        tile_file::write(disk, &self.dir, TEMPORARY, tile, bytes)?;
        let path = self.dir.join(tile.to_string());
        let file = disk
            .open(&path, OpenMode::Write)
            .map_err(FileError::at("open", &path))?;
        if let Err(error) = file.sync_data() {
            disk.remove_file(&path)
                .map_err(FileError::at("remove", &path))?;
            return Err(FileError::at("sync", &path)(error));
        }
        let mut folder = parent(&path);
        while folder.starts_with(&self.dir) && self.folders.insert(folder.to_path_buf()) {
            folder = parent(folder);
        }
        Ok(())
    }
}
