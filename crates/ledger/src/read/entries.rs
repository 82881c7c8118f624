//! Entries in the order of the log, out of bundles as far as it is sealed and then out of segments.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::format::error::ReadError;
use crate::format::segment::{list_segments, split_payload};
use crate::read::bundles::Bundle;
use crate::read::reader::{Cursor, Step};

/// Entries in index order. After an error it ends.
#[derive(Debug)]
pub struct Entries {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    range: Range<u64>,
    /// Stands behind the frame being given; `None` while entries come out of bundles.
    cursor: Option<Cursor>,
    /// The bundle being given, when it is one.
    bundle: Option<Bundle>,
    /// What is being given, and how much of it has been.
    payload: Vec<u8>,
    given: usize,
    /// Index of the entry at `given`.
    at: u64,
    /// Where the current frame starts in its segment.
    place: u64,
    /// First index of the oldest segment when it was last looked for: what is before, is sealed.
    sealed: u64,
}

impl Entries {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path, range: Range<u64>) -> Entries {
        let dir = dir.to_path_buf();
        Entries {
            disk,
            dir,
            at: range.start,
            range,
            cursor: None,
            bundle: None,
            payload: Vec::new(),
            given: 0,
            place: 0,
            sealed: 0,
        }
    }

    /// Where the frame of the last entry given starts in its segment, in bytes: what
    /// [`crate::Fetch::entry`] takes to find it again at once.
    #[must_use]
    pub fn place(&self) -> u64 {
        self.place
    }

    fn advance(&mut self) -> Result<Vec<u8>, ReadError> {
        loop {
            let entry = split_payload(&self.payload[self.given..]).next();
            let Some(entry) = entry.map(<[u8]>::to_vec) else {
                self.fill()?;
                continue;
            };
            let index = self.at;
            self.given += 2 + entry.len();
            self.at += 1;
            if index == self.range.start {
                if let Some(bundle) = &self.bundle {
                    bundle.check(index, &entry)?;
                }
                return Ok(entry);
            }
        }
    }

    /// Reads what holds entry `at`.
    fn fill(&mut self) -> Result<(), ReadError> {
        if self.step()? {
            return Ok(());
        }
        if self.at >= self.sealed {
            self.look()?;
        }
        if self.at >= self.sealed {
            match Cursor::seek(self.disk.clone(), &self.dir, self.at) {
                Ok(cursor) => {
                    self.cursor = Some(cursor);
                    if self.step()? {
                        return Ok(());
                    }
                }
                // It may have been sealed since the look.
                Err(ReadError::Missing { .. }) => self.look()?,
                Err(error) => return Err(error),
            }
        }
        let bundle = Bundle::read(&*self.disk, &self.dir, self.at)?;
        self.payload.clone_from(&bundle.payload);
        self.given = 0;
        self.at = bundle.first;
        self.place = 0;
        self.bundle = Some(bundle);
        Ok(())
    }

    /// Takes the next frame. False when there is no cursor, or what comes next has been sealed.
    fn step(&mut self) -> Result<bool, ReadError> {
        let Some(cursor) = &mut self.cursor else {
            return Ok(false);
        };
        match cursor.step()? {
            Step::Frame(frame) => {
                self.payload.clear();
                self.payload.extend_from_slice(cursor.payload(&frame)?);
                self.given = 0;
                self.at = frame.header.first;
                self.place = frame.offset;
                self.bundle = None;
                Ok(true)
            }
            Step::End(kind) => {
                let ended = cursor.ended_early(kind);
                self.look()?;
                if self.at >= self.sealed {
                    return Err(ended);
                }
                self.cursor = None;
                Ok(false)
            }
        }
    }

    fn look(&mut self) -> Result<(), ReadError> {
        let segments = list_segments(&*self.disk, &self.dir)?;
        self.sealed = segments.first().copied().unwrap_or(u64::MAX);
        Ok(())
    }
}

impl Iterator for Entries {
    type Item = Result<(u64, Vec<u8>), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.range.is_empty() {
            return None;
        }
        let index = self.range.start;
        match self.advance() {
            Ok(entry) => {
                self.range.start += 1;
                Some(Ok((index, entry)))
            }
            Err(error) => {
                self.range.start = self.range.end;
                Some(Err(error))
            }
        }
    }
}
