//! Single entries by index, out of the segments, for whoever reads many of them out of order.

use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Disk, OpenMode};
use crate::error::ReadError;
use crate::read::{Cursor, LogReader, Step};
use crate::segment::{Found, FrameAt, Segment, list_segments, split_payload};

/// Reads single entries. It keeps the last frame read, so that neighbours cost nothing more.
#[derive(Debug)]
pub struct Fetch {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    size: u64,
    /// First indexes of the segments, in order.
    segments: Vec<u64>,
    segment: Option<Segment>,
    first: u64,
    payload: Vec<u8>,
    count: u64,
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
        if !self.holds(index) && !self.jump(index, near)? {
            self.walk(index)?;
        }
        let at = usize::try_from(index - self.first).unwrap_or(usize::MAX);
        let entry = split_payload(&self.payload).nth(at);
        entry.map(<[u8]>::to_vec).ok_or(ReadError::PastEnd {
            index,
            size: self.size,
        })
    }

    fn holds(&self, index: u64) -> bool {
        index >= self.first && index - self.first < self.count
    }

    /// Takes the frame at `near`, if there is one that holds the entry.
    fn jump(&mut self, index: u64, near: Option<u64>) -> Result<bool, ReadError> {
        let Some(near) = near.filter(|near| near.is_multiple_of(crate::segment::BLOCK_BYTES))
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

    /// Index of the first entry that the log still holds.
    ///
    /// # Errors
    /// When the segments cannot be listed.
    pub fn first(&self) -> Result<u64, ReadError> {
        let segments = list_segments(&*self.disk, &self.dir)?;
        Ok(segments.first().copied().unwrap_or_default())
    }
}
