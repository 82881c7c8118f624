//! Reading a log: in order, by index, and proofs out of its tiles.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, OpenMode, RealDisk, read_file};
use crate::format::error::{FileError, ReadError};
use crate::format::merkle::{self, Hash, Nodes};
use crate::format::segment::{CorruptionKind, Found, FrameAt, Segment, frame_bytes, list_segments};
use crate::format::tile::{HASH_TILE_BYTES, TILE_HEIGHT, TILE_WIDTH, Tile, TileKind, tiles_at};
use crate::keys::signer::Extends;
use crate::read::entries::Entries;
use crate::read::prune_point::PrunePoint;

/// What the next step over a log gave.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// A whole frame; [`Cursor::payload`] has its content.
    Frame(FrameAt),
    /// The end of the log; what is there instead of a frame, unless zeros.
    End(Option<CorruptionKind>),
}

/// Walks over the frames of a log in order, from one segment to the next.
#[derive(Debug)]
pub(crate) struct Cursor {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    pub(crate) segment: Segment,
    /// Where the next frame starts.
    pub(crate) offset: u64,
    /// Its first index.
    pub(crate) next: u64,
    /// Whether bytes after the last frame of a segment that was left are an error.
    strict: bool,
    /// How segments are read, unless as usual: bytes at once, and whether past the page cache.
    reads_in: Option<(usize, bool)>,
}

impl Cursor {
    /// Stands before the first frame that there is: earlier entries are sealed.
    pub(crate) fn start(
        disk: Arc<dyn Disk>,
        dir: &Path,
        strict: bool,
    ) -> Result<Cursor, ReadError> {
        let first = list_segments(&*disk, dir)?.first().copied();
        Cursor::at_segment(disk, dir, first.unwrap_or_default(), strict)
    }

    pub(crate) fn at_segment(
        disk: Arc<dyn Disk>,
        dir: &Path,
        first: u64,
        strict: bool,
    ) -> Result<Cursor, ReadError> {
        let segment = Segment::open(&*disk, dir, first, OpenMode::Read)?.ok_or_else(|| {
            ReadError::Missing {
                dir: dir.to_path_buf(),
            }
        })?;
        Ok(Cursor {
            disk,
            dir: dir.to_path_buf(),
            segment,
            offset: 0,
            next: first,
            strict,
            reads_in: None,
        })
    }

    /// Reads segments past the page cache from here on, so many bytes at once: for one pass over what the
    /// writer wrote past it as well.
    pub(crate) fn direct(self, window_bytes: usize) -> Result<Cursor, FileError> {
        self.reading_in(window_bytes, true)
    }

    /// Reads so many bytes at once from here on.
    pub(crate) fn reading(self, window_bytes: usize) -> Result<Cursor, FileError> {
        self.reading_in(window_bytes, false)
    }

    fn reading_in(mut self, window_bytes: usize, direct: bool) -> Result<Cursor, FileError> {
        self.segment.read_in(&*self.disk, window_bytes, direct)?;
        self.reads_in = Some((window_bytes, direct));
        Ok(self)
    }

    /// Stands before the frame that holds entry `index`, or would: for a pass that goes on from there.
    pub(crate) fn seek_strict(
        disk: Arc<dyn Disk>,
        dir: &Path,
        index: u64,
    ) -> Result<Cursor, ReadError> {
        let mut cursor = Cursor::seek(disk, dir, index)?;
        cursor.strict = true;
        Ok(cursor)
    }

    /// Stands before the frame that holds entry `index`, or at the end when there is none.
    pub(crate) fn seek(disk: Arc<dyn Disk>, dir: &Path, index: u64) -> Result<Cursor, ReadError> {
        let segments = list_segments(&*disk, dir)?;
        let at = segments.partition_point(|first| *first <= index);
        let first = segments.get(at.wrapping_sub(1)).copied();
        let first = first.ok_or_else(|| ReadError::Missing {
            dir: dir.to_path_buf(),
        })?;
        let mut cursor = Cursor::at_segment(disk, dir, first, false)?;
        // Headers are enough to hop; the frame we stop at is checked in full when read.
        while let Some(header) = cursor.segment.header_at(cursor.offset)? {
            if header.first != cursor.next || header.end() > index {
                break;
            }
            cursor.offset += frame_bytes(header.payload_bytes as usize);
            cursor.next = header.end();
        }
        Ok(cursor)
    }

    /// Makes entries visible that were written since the last step.
    pub(crate) fn refresh(&mut self) {
        self.segment.forget_window();
    }

    /// Goes on to the next frame.
    pub(crate) fn step(&mut self) -> Result<Step, ReadError> {
        loop {
            match self.segment.find(self.offset)? {
                Found::Frame(frame) if frame.header.first == self.next => {
                    self.offset = frame.end_offset();
                    self.next = frame.header.end();
                    return Ok(Step::Frame(frame));
                }
                Found::Frame(frame) => {
                    let kind = CorruptionKind::Index {
                        found: frame.header.first,
                    };
                    return Ok(Step::End(Some(kind)));
                }
                Found::Bad(kind) => return Ok(Step::End(Some(kind))),
                Found::Nothing => {
                    if !self.enter_next_segment()? {
                        return Ok(Step::End(None));
                    }
                }
            }
        }
    }

    /// Goes over to the next segment, if there is one, or finds that there is more in this one.
    fn enter_next_segment(&mut self) -> Result<bool, ReadError> {
        // An empty segment has the name its successor would have.
        if self.segment.first == self.next {
            return Ok(false);
        }
        let opened = Segment::open(&*self.disk, &self.dir, self.next, OpenMode::Read)?;
        let Some(mut next) = opened else {
            return Ok(false);
        };
        if let Some((window_bytes, direct)) = self.reads_in {
            next.read_in(&*self.disk, window_bytes, direct)?;
        }
        // What was read of this segment may be older than its last frames.
        self.segment.forget_window();
        if !matches!(self.segment.find(self.offset)?, Found::Nothing) {
            return Ok(true);
        }
        if self.strict && self.segment.last_used(self.offset)?.is_some() {
            let kind = CorruptionKind::Trailing;
            return Err(self.segment.corruption(self.offset, self.next, kind).into());
        }
        self.segment = next;
        self.offset = 0;
        Ok(true)
    }

    /// The payload of the frame that the last step gave.
    pub(crate) fn payload(&mut self, frame: &FrameAt) -> Result<&[u8], FileError> {
        self.segment.payload(frame)
    }

    /// The error for an end where a frame had to be.
    pub(crate) fn ended_early(&self, kind: Option<CorruptionKind>) -> ReadError {
        let kind = kind.unwrap_or(CorruptionKind::NoFrame);
        self.segment.corruption(self.offset, self.next, kind).into()
    }
}

/// Reads a log, whether a writer runs or not, and never writes to it.
///
/// Entries are taken from the segments as far as whole frames go. While a writer runs, the newest
/// may not be durable yet: whoever acts on an entry must ask the writer.
#[derive(Debug)]
pub struct LogReader {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    /// Stands at the end of what was found.
    end: Cursor,
    /// The first entry that is left.
    first: u64,
}

impl LogReader {
    /// Opens the log in `dir`.
    ///
    /// # Errors
    /// When there is no log, or it cannot be read.
    pub fn open(dir: &Path) -> Result<LogReader, ReadError> {
        LogReader::open_on(dir, Arc::new(RealDisk))
    }

    /// The same on another disk.
    ///
    /// # Errors
    /// When there is no log, or it cannot be read.
    pub fn open_on(dir: &Path, disk: Arc<dyn Disk>) -> Result<LogReader, ReadError> {
        // From the start of the newest segment, since only there the end is open.
        let newest = list_segments(&*disk, dir)?.last().copied();
        let newest = newest.ok_or_else(|| ReadError::Missing {
            dir: dir.to_path_buf(),
        })?;
        let end = Cursor::at_segment(disk.clone(), dir, newest, false)?;
        let mut reader = LogReader {
            disk,
            dir: dir.to_path_buf(),
            end,
            first: 0,
        };
        reader.refresh()?;
        Ok(reader)
    }

    /// Number of entries found at open or at the last [`LogReader::refresh`].
    #[must_use]
    pub fn size(&self) -> u64 {
        self.end.next
    }

    /// Index of the first entry that the log still holds: 0 unless earlier ones were pruned (see
    /// [`crate::PrunePoint`]).
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// What stands for the entries before the first one that is left; `None` where all are. The log may
    /// have been pruned further since it was opened: this is how it stands now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn prune_point(&self) -> Result<Option<PrunePoint>, FileError> {
        PrunePoint::read(&*self.disk, &self.dir)
    }

    /// Looks again how far the log goes, and gives its size.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn refresh(&mut self) -> Result<u64, ReadError> {
        self.first = PrunePoint::size_at(&*self.disk, &self.dir)?;
        self.end.refresh();
        while let Step::Frame(_) = self.end.step()? {}
        let newest = list_segments(&*self.disk, &self.dir)?.last().copied();
        if let Some(newest) = newest.filter(|newest| *newest > self.end.next) {
            // The way there has been sealed since the last look.
            self.end = Cursor::at_segment(self.disk.clone(), &self.dir, newest, false)?;
            while let Step::Frame(_) = self.end.step()? {}
        }
        Ok(self.end.next)
    }

    /// One entry.
    ///
    /// # Errors
    /// When there is none of that index (any more), or it cannot be read.
    pub fn entry(&self, index: u64) -> Result<Vec<u8>, ReadError> {
        let past_end = ReadError::PastEnd {
            index,
            size: self.size(),
        };
        let range = index..index.saturating_add(1).min(self.size());
        match Entries::new(self.disk.clone(), &self.dir, range).next() {
            Some(entry) => entry.map(|(_, entry)| entry),
            None => Err(past_end),
        }
    }

    /// The entries of a range of indexes, in order; begins with the first that is left, and ends at
    /// the size of the log.
    #[must_use]
    pub fn range(&self, range: Range<u64>) -> Entries {
        let range = range.start.max(self.first)..range.end.min(self.size());
        Entries::new(self.disk.clone(), &self.dir, range)
    }

    /// The last `count` entries.
    #[must_use]
    pub fn tail(&self, count: u64) -> Entries {
        self.range(self.size().saturating_sub(count)..self.size())
    }

    /// The proof that entry `index` is in the tree of the first `size` entries, from the tiles.
    ///
    /// # Errors
    /// When `index >= size`, or a tile is missing: tiles are there for every published size.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, ReadError> {
        TilesAt::new(&*self.disk, &self.dir, size).inclusion_proof(index)
    }

    /// The proof that the first `first` entries are the same in the tree of `second`.
    ///
    /// # Errors
    /// When `first > second`, or a tile is missing: tiles are there for every published size.
    pub fn consistency_proof(&self, first: u64, second: u64) -> Result<Vec<Hash>, ReadError> {
        TilesAt::new(&*self.disk, &self.dir, second).consistency_proof(first)
    }
}

/// The tree of one size, read from its hash tiles.
#[derive(Debug)]
pub(crate) struct TilesAt<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    size: u64,
}

impl<'a> TilesAt<'a> {
    pub(crate) fn new(disk: &'a dyn Disk, dir: &'a Path, size: u64) -> TilesAt<'a> {
        TilesAt { disk, dir, size }
    }

    pub(crate) fn inclusion_proof(&self, index: u64) -> Result<Vec<Hash>, ReadError> {
        let size = self.size;
        merkle::inclusion_proof(&mut &*self, index, size)?.ok_or(ReadError::PastEnd { index, size })
    }
}

impl Extends for TilesAt<'_> {
    fn consistency_proof(&self, first: u64) -> Result<Vec<Hash>, ReadError> {
        let size = self.size;
        merkle::consistency_proof(&mut &*self, first, size)?
            .ok_or(ReadError::PastEnd { index: first, size })
    }
}

impl Nodes for &TilesAt<'_> {
    type Error = ReadError;

    fn node(&mut self, height: u32, index: u64) -> Result<Hash, ReadError> {
        // The tile level at or below the height; the hashes above it are computed.
        let level = (height / TILE_HEIGHT) as u8;
        let count = 1_usize << (height % TILE_HEIGHT);
        let first = index << (height % TILE_HEIGHT);
        let n = first / u64::from(TILE_WIDTH);
        let kind = TileKind::Hashes(level);
        let (full, width) = tiles_at(kind, self.size);
        let width = if n < full { TILE_WIDTH } else { width };
        let tile = Tile { kind, n, width };
        let bytes = self.read(tile)?;
        let start = (first % u64::from(TILE_WIDTH)) as usize;
        let short = || {
            let path = self.dir.join(tile.to_string());
            FileError::at("read", &path)(std::io::ErrorKind::UnexpectedEof.into())
        };
        let bytes = bytes
            .get(start * 32..(start + count) * 32)
            .ok_or_else(short)?;
        let hashes = bytes.as_chunks::<32>().0.iter().map(|h| Hash(*h));
        Ok(merkle::perfect_root(hashes.collect()))
    }
}

impl TilesAt<'_> {
    /// A partial tile gives way to the full one once that exists.
    fn read(&self, tile: Tile) -> Result<Vec<u8>, FileError> {
        let path = self.dir.join(tile.to_string());
        let full = self.dir.join(tile.full().to_string());
        let read = |path: &Path| read_file(self.disk, path, HASH_TILE_BYTES as u64);
        read(&path)
            .or_else(|_| read(&full))
            .map_err(FileError::at("read", &path))
    }
}
