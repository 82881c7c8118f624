//! Single entries by index, for whoever reads many of them out of order.

use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Disk, OpenMode};
use crate::format::error::ReadError;
use crate::format::segment::{Found, FrameAt, Segment, list_segments, split_payload};
use crate::format::tile::TILE_WIDTH;
use crate::read::bundles::Bundle;
use crate::read::reader::{Cursor, LogReader, Step};

/// Reads single entries. It keeps the last frame or bundle read, so that neighbours cost nothing
/// more.
#[derive(Debug)]
pub struct Fetch {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    size: u64,
    /// First indexes of the segments, in order.
    segments: Vec<u64>,
    segment: Option<Segment>,
    /// The entries at hand: of a frame, or of a bundle when there is one.
    first: u64,
    payload: Vec<u8>,
    count: u64,
    bundle: Option<Bundle>,
}

impl Fetch {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, size: u64) -> Result<Fetch, ReadError> {
        let segments = list_segments(&*disk, &dir)?;
        Ok(Fetch {
            disk,
            dir,
            size,
            segments,
            segment: None,
            first: 0,
            payload: Vec::new(),
            count: 0,
            bundle: None,
        })
    }

    /// The entry of this index. `near` is where its frame may start in its segment, as
    /// [`crate::Entries::place`] gave it: the frame found there is used only when it is whole and
    /// holds the entry; otherwise the segment is walked from its start.
    ///
    /// # Errors
    /// When there is none of that index, or it cannot be read.
    pub fn entry(&mut self, index: u64, near: Option<u64>) -> Result<Vec<u8>, ReadError> {
        if index >= self.size {
            return Err(ReadError::PastEnd {
                index,
                size: self.size,
            });
        }
        if !self.holds(index) {
            self.find(index, near)?;
        }
        let at = usize::try_from(index - self.first).unwrap_or(usize::MAX);
        let entry = split_payload(&self.payload).nth(at);
        let entry = entry.ok_or(ReadError::PastEnd {
            index,
            size: self.size,
        })?;
        if let Some(bundle) = &self.bundle {
            bundle.check(index, entry)?;
        }
        Ok(entry.to_vec())
    }

    fn find(&mut self, index: u64, near: Option<u64>) -> Result<(), ReadError> {
        if !self.is_sealed(index) {
            if self.jump(index, near)? {
                return Ok(());
            }
            // Its segment may have been sealed since they were listed.
            self.segments = list_segments(&*self.disk, &self.dir)?;
        }
        if !self.is_sealed(index) {
            match self.walk(index) {
                Err(ReadError::Missing { .. }) => {}
                outcome => return outcome,
            }
        }
        let bundle = Bundle::read(&*self.disk, &self.dir, index)?;
        self.first = bundle.first;
        self.count = TILE_WIDTH.into();
        self.payload.clone_from(&bundle.payload);
        self.bundle = Some(bundle);
        Ok(())
    }

    fn is_sealed(&self, index: u64) -> bool {
        self.segments.first().is_none_or(|first| index < *first)
    }

    fn holds(&self, index: u64) -> bool {
        index >= self.first && index - self.first < self.count
    }

    /// Takes the frame at `near`, if there is one that holds the entry.
    fn jump(&mut self, index: u64, near: Option<u64>) -> Result<bool, ReadError> {
        let Some(near) =
            near.filter(|near| near.is_multiple_of(crate::format::segment::BLOCK_BYTES))
        else {
            return Ok(false);
        };
        let at = self.segments.partition_point(|first| *first <= index);
        let Some(first) = self.segments.get(at.wrapping_sub(1)).copied() else {
            return Ok(false);
        };
        if self.segment.as_ref().is_none_or(|held| held.first != first) {
            self.segment = Segment::open(&*self.disk, &self.dir, first, OpenMode::Read)?;
        }
        let Some(segment) = &mut self.segment else {
            return Ok(false);
        };
        if near >= segment.len_bytes {
            return Ok(false);
        }
        let Found::Frame(frame) = segment.find(near)? else {
            // It may have been written since the window was read.
            segment.forget_window();
            return Ok(false);
        };
        let header = frame.header;
        if index < header.first || index >= header.end() {
            return Ok(false);
        }
        let payload = segment.payload(&frame)?.to_vec();
        self.keep(&frame, payload);
        Ok(true)
    }

    fn walk(&mut self, index: u64) -> Result<(), ReadError> {
        let mut cursor = Cursor::seek(self.disk.clone(), &self.dir, index)?;
        match cursor.step()? {
            Step::Frame(frame) => {
                let payload = cursor.payload(&frame)?.to_vec();
                self.keep(&frame, payload);
                Ok(())
            }
            Step::End(kind) => Err(cursor.ended_early(kind)),
        }
    }

    fn keep(&mut self, frame: &FrameAt, payload: Vec<u8>) {
        self.first = frame.header.first;
        self.count = frame.header.count.into();
        self.payload = payload;
        self.bundle = None;
    }
}

impl LogReader {
    /// Reads single entries, in any order.
    ///
    /// # Errors
    /// When the segments cannot be listed.
    pub fn fetch(&self) -> Result<Fetch, ReadError> {
        Fetch::new(self.disk.clone(), self.dir.clone(), self.size())
    }
}
