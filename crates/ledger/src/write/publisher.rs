//! Publishing: tiles and signed checkpoints, derived from the segments and off the hot path.
//!
//! The publisher reads back from the segments what the committer wrote, so what is published is what
//! is on disk (see [`crate::write::hashed`]). At each open it starts from the oldest segment and goes over every tile from there by
//! the same code that makes them: a tile that is right is left alone, one that is missing or damaged (they
//! are never synced, so a power cut may take them) is made again.
//!
//! Order for one checkpoint: tiles; the guard, durably; `checkpoints`, durably; `checkpoint`.
//! A failure at any step is not fatal and repeats nothing: tiles not yet written are kept, and a
//! note that was signed is carried through to the end before another one is signed.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, OpenMode, replace_file_durably};
use crate::format::checkpoints::record;
use crate::format::error::{FileError, ReadError};
use crate::format::note::Checkpoint;
use crate::format::segment::POLITE_WINDOW_BYTES;
use crate::format::tile::{TILE_WIDTH, Tile, TileBuilder};
use crate::keys::signer::{self, Signer};
use crate::read::reader::{Cursor, Step, TilesAt};
use crate::write::error::PublishError;
use crate::write::guard::Guard;
use crate::write::hashed::Hashed;
use crate::write::tile_file;

/// Where a tile is written before it gets its name.
pub(crate) const TILE_TEMPORARY: &str = "tile.tmp";

/// How far a signed note has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Nothing holds it yet.
    Signed,
    /// The guard holds it.
    Guarded,
    /// `checkpoints` holds it.
    Listed,
}

/// See the module text.
#[derive(Debug)]
pub(crate) struct Publisher {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    guard: Guard,
    signer: Arc<dyn Signer>,
    hashed: Arc<Hashed>,
    builder: TileBuilder,
    cursor: Option<Cursor>,
    /// Tiles made but not written yet; at most those of one frame.
    unwritten: VecDeque<(Tile, Vec<u8>)>,
    /// The incomplete tiles of the last checkpoint, at their full width.
    partials: Vec<Tile>,
    /// Whether partial tiles of earlier checkpoints were looked through since the log was opened.
    mended: bool,
    /// A size whose root on disk is not the one that was written: nothing is signed from then on.
    broken: Option<u64>,
    /// The newest signed checkpoint.
    signed: Checkpoint,
    /// Its note, as long as it is not published everywhere.
    unfinished: Option<(String, Stage)>,
    /// Where the next record of `checkpoints` goes.
    records_end: u64,
}

impl Publisher {
    /// A publisher that starts from `base` and first finishes `signed`, the newest checkpoint, from
    /// its stage on.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        guard: Guard,
        signer: Arc<dyn Signer>,
        base: TileBuilder,
        signed: (Checkpoint, String, Stage),
        records_end: u64,
    ) -> Publisher {
        let (signed, note, stage) = signed;
        Publisher {
            disk,
            dir: dir.to_path_buf(),
            guard,
            signer,
            hashed: Arc::default(),
            builder: base,
            cursor: None,
            unwritten: VecDeque::new(),
            partials: Vec::new(),
            mended: false,
            broken: None,
            signed,
            unfinished: Some((note, stage)),
            records_end,
        }
    }

    /// The same, which need not hash what is kept there.
    pub(crate) fn knowing(self, hashed: Arc<Hashed>) -> Publisher {
        Publisher { hashed, ..self }
    }

    /// The size of the newest signed checkpoint.
    pub(crate) fn signed_size(&self) -> u64 {
        self.signed.size
    }

    /// Publishes everything up to `size`, which must be durable and the end of a batch. Gives the
    /// note when one was published.
    pub(crate) fn publish(&mut self, size: u64) -> Result<Option<String>, PublishError> {
        if let Some(size) = self.broken {
            return Err(PublishError::Root { size });
        }
        let finished = self.finish()?;
        self.write_tiles(size)?;
        if size == self.signed.size {
            return Ok(finished);
        }
        let checkpoint = Checkpoint {
            origin: self.signer.name().to_owned(),
            size,
            root: self.builder.root(),
        };
        // Who signs may ask what it goes on from: the tiles of it are written.
        let tiles = TilesAt::new(&*self.disk, &self.dir, size);
        let note = signer::sign(&*self.signer, &checkpoint, &tiles)?;
        self.signed = checkpoint;
        self.unfinished = Some((note, Stage::Signed));
        self.finish()
    }

    fn write_tiles(&mut self, size: u64) -> Result<(), PublishError> {
        self.flush()?;
        if self.builder.size() < size {
            // After an error the cursor may stand anywhere; the builder knows how far it got.
            let outcome = self.read_up_to(size);
            if outcome.is_err() {
                self.cursor = None;
            }
            outcome?;
        }
        let partial: Vec<_> = self
            .builder
            .partial()
            .map(|(t, b)| (t, b.to_vec()))
            .collect();
        self.partials = partial.iter().map(|(tile, _)| tile.full()).collect();
        for (tile, bytes) in partial {
            if !self.mended {
                self.mend_partials(tile, &bytes)?;
            }
            self.write(tile, &bytes)?;
        }
        self.mended = true;
        Ok(())
    }

    /// Makes right what a power cut has left of narrower forms of an incomplete tile, and removes
    /// wider ones, which no checkpoint speaks of.
    fn mend_partials(&self, tile: Tile, bytes: &[u8]) -> Result<(), FileError> {
        let folder = self.dir.join(tile.partial_dir());
        // Most often there is none.
        let Ok(names) = self.disk.list(&folder) else {
            return Ok(());
        };
        for width in names
            .iter()
            .filter_map(|entry| entry.name.parse::<u16>().ok())
        {
            let found = Tile { width, ..tile };
            if width > 0 && width < tile.width {
                self.write(found, found.prefix(bytes))?;
            } else if width != tile.width {
                let path = folder.join(width.to_string());
                self.disk
                    .remove_file(&path)
                    .map_err(FileError::at("remove", &path))?;
            }
        }
        Ok(())
    }

    fn read_up_to(&mut self, size: u64) -> Result<(), PublishError> {
        let mut cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => Cursor::seek(self.disk.clone(), &self.dir, self.builder.size())?
                .direct(POLITE_WINDOW_BYTES)?,
        };
        cursor.refresh();
        while self.builder.size() < size {
            let frame = match cursor.step()? {
                Step::Frame(frame) => frame,
                Step::End(kind) => return Err(cursor.ended_early(kind).into()),
            };
            // A batch is taken whole or not at all, so the payload is fetched before.
            let payload = cursor.payload(&frame).map_err(ReadError::from)?;
            let unwritten = &mut self.unwritten;
            let full = |tile: Tile, bytes: &[u8]| unwritten.push_back((tile, bytes.to_vec()));
            match self.hashed.take(&frame) {
                Some(batch) => self.builder.push_hashed(payload, batch, full),
                None => self.builder.push_payload(payload, full),
            }
            if self.builder.root() != frame.header.root {
                let size = frame.header.end();
                self.broken = Some(size);
                return Err(PublishError::Root { size });
            }
            self.flush()?;
        }
        self.cursor = Some(cursor);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PublishError> {
        while let Some((tile, bytes)) = self.unwritten.pop_front() {
            if let Err(error) = self.write(tile, &bytes) {
                self.unwritten.push_front((tile, bytes));
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Puts a tile in its place. A full one that no checkpoint covers, nobody reads yet.
    fn write(&self, tile: Tile, bytes: &[u8]) -> Result<(), FileError> {
        let (disk, dir) = (&*self.disk, self.dir.as_path());
        let is_new = tile.end_leaf().is_some_and(|end| end > self.signed.size);
        if is_new && tile.width == TILE_WIDTH {
            tile_file::write_unread(disk, dir, tile, bytes)?;
        } else {
            tile_file::write(disk, dir, TILE_TEMPORARY, tile, bytes)?;
        }
        // Where there can be none, none is looked for: that costs as much as writing the tile.
        let has_partials = !self.mended || self.partials.contains(&tile.full());
        if tile.width == TILE_WIDTH && has_partials {
            tile_file::drop_partials(disk, dir, tile);
        }
        Ok(())
    }

    /// Carries the newest signed note through the steps it has not gone through yet. Gives it when
    /// there were some.
    pub(crate) fn finish(&mut self) -> Result<Option<String>, PublishError> {
        let Some((note, stage)) = self.unfinished.as_mut() else {
            return Ok(None);
        };
        let disk = &*self.disk;
        if *stage == Stage::Signed {
            self.guard.swap(note)?;
            *stage = Stage::Guarded;
        }
        if *stage == Stage::Guarded {
            let path = self.dir.join("checkpoints");
            let bytes = record(note);
            let file = disk
                .open(&path, OpenMode::Create)
                .map_err(FileError::at("open", &path))?;
            let end = self.records_end + bytes.len() as u64;
            let found = file.len_bytes().map_err(FileError::at("measure", &path))?;
            // A torn record of before may be longer than this one. One that is written over in
            // full keeps its blocks, of which a full disk has no others.
            if found > end {
                file.set_len_bytes(self.records_end)
                    .map_err(FileError::at("cut", &path))?;
            }
            let written = file.write_all_at(&bytes, self.records_end);
            written.map_err(FileError::at("append to", &path))?;
            file.sync_data().map_err(FileError::at("sync", &path))?;
            if self.records_end == 0 {
                disk.sync_dir(&self.dir)
                    .map_err(FileError::at("sync", &self.dir))?;
            }
            self.records_end = end;
            *stage = Stage::Listed;
        }
        let path = self.dir.join("checkpoint");
        let replaced = replace_file_durably(disk, &path, note.as_bytes());
        replaced.map_err(FileError::at("replace", &path))?;
        Ok(self.unfinished.take().map(|(note, _)| note))
    }
}
