//! The part of verification that goes over the entries: those of the sealed part out of their
//! bundles, the others out of the segments.

use crate::bundles::Bundle;
use crate::error::{OpenError, ReadError};
use crate::milestone::Milestone;
use crate::note::Checkpoint;
use crate::read::{Cursor, Step};
use crate::recover::{TornTail, judge_end, open_error};
use crate::segment::{CorruptionKind, FrameAt, list_segments, split_payload};
use crate::tile::{TileBuilder, TileKind};
use crate::verify::{Check, Progress, Visitor};
use crate::verify_signed::Signed;
use crate::verify_tiles::{check_partials, check_tile};

/// What the pass over the entries carries along.
pub(crate) struct Walk {
    pub(crate) builder: TileBuilder,
    pub(crate) epoch: u64,
    /// First indexes of the segments gone over.
    pub(crate) segments: Vec<u64>,
    /// Where the newest checkpoint was reached.
    pub(crate) milestone: Option<Milestone>,
    /// Whole bundles are read as they lie: there is nothing to compare them with.
    pub(crate) from_bundles: bool,
    pub(crate) remembered: Option<Checkpoint>,
    pub(crate) remembered_done: bool,
}

/// How a pass over segments ended.
enum Ended {
    /// At the end of the log.
    AtEnd(Option<TornTail>),
    /// What comes next was sealed meanwhile.
    AtSealed,
}

impl Check<'_> {
    /// Goes over all entries.
    pub(crate) fn walk(
        &mut self,
        walk: &mut Walk,
        signed: &mut Signed,
        visitor: &mut dyn Visitor,
    ) -> Result<Option<TornTail>, OpenError> {
        loop {
            let size = walk.builder.size();
            let Some(oldest) = oldest_segment(self)? else {
                self.walk_tiles(walk, signed, visitor)?;
                return Ok(None);
            };
            if size < oldest {
                walk.from_bundles = true;
                self.walk_bundles(oldest, walk, signed, visitor)?;
                // The last of them is completed from the segments.
                walk.from_bundles = false;
                continue;
            }
            let disk = self.what.disk.clone();
            let cursor = match Cursor::seek_strict(disk, self.what.dir, size) {
                // It may have been sealed since the look.
                Err(ReadError::Missing { .. }) if is_sealed(self, size)? => continue,
                cursor => cursor.map_err(open_error)?,
            };
            // What was gone over earlier, is here as well.
            let dir = self.what.dir;
            let segments = list_segments(&*self.what.disk, dir).map_err(open_error)?;
            let earlier = segments
                .into_iter()
                .filter(|first| *first < cursor.segment.first);
            if walk.segments.is_empty() {
                walk.segments.extend(earlier);
            }
            match self.walk_segments(cursor, walk, signed, visitor)? {
                Ended::AtEnd(torn_tail) => return Ok(torn_tail),
                Ended::AtSealed => {}
            }
        }
    }

    /// Goes over the bundles up to entry `end`.
    fn walk_bundles(
        &mut self,
        end: u64,
        walk: &mut Walk,
        signed: &mut Signed,
        visitor: &mut dyn Visitor,
    ) -> Result<(), OpenError> {
        while walk.builder.size() < end {
            let size = walk.builder.size();
            let bundle = Bundle::read_unproven(&*self.what.disk, self.what.dir, size);
            let bundle = bundle.map_err(open_error)?;
            for (index, entry) in (bundle.first..end).zip(split_payload(&bundle.payload)) {
                if index >= size {
                    self.take(index, entry, walk, signed, visitor);
                }
            }
            progress(walk, signed, visitor);
        }
        Ok(())
    }

    /// Goes over the segments from the one that `cursor` stands at.
    fn walk_segments(
        &mut self,
        mut cursor: Cursor,
        walk: &mut Walk,
        signed: &mut Signed,
        visitor: &mut dyn Visitor,
    ) -> Result<Ended, OpenError> {
        let disk = self.what.disk.clone();
        let dir = self.what.dir;
        let mut doubted = None;
        loop {
            if walk.segments.last() != Some(&cursor.segment.first) {
                walk.segments.push(cursor.segment.first);
            }
            match cursor.step().map_err(open_error)? {
                Step::Frame(frame) => {
                    if walk.segments.last() != Some(&cursor.segment.first) {
                        walk.segments.push(cursor.segment.first);
                    }
                    self.check_frame(&mut cursor, &frame, walk, signed, visitor)?;
                    progress(walk, signed, visitor);
                }
                Step::End(None) if is_sealed(self, walk.builder.size())? => {
                    return Ok(Ended::AtSealed);
                }
                Step::End(bad) => {
                    let walked = &walk.segments;
                    let torn = judge_end(&*disk, dir, &mut cursor, walked, bad, &|_| true);
                    if torn.is_err() && doubted.replace(cursor.next) != Some(cursor.next) {
                        // A writer may have gone on since; what is really wrong, stays so.
                        cursor.refresh();
                        continue;
                    }
                    let torn = torn?;
                    let place = (cursor.segment.path.clone(), Some(cursor.offset));
                    self.check_end(walk, signed, place, bad);
                    return Ok(Ended::AtEnd(torn));
                }
            }
        }
    }

    fn check_frame(
        &mut self,
        cursor: &mut Cursor,
        frame: &FrameAt,
        walk: &mut Walk,
        signed: &mut Signed,
        visitor: &mut dyn Visitor,
    ) -> Result<(), OpenError> {
        let wrong = |cursor: &Cursor, kind| {
            cursor
                .segment
                .corruption(frame.offset, frame.header.first, kind)
        };
        if frame.header.epoch < walk.epoch {
            return Err(wrong(cursor, CorruptionKind::Epoch).into());
        }
        if !frame.padded {
            return Err(wrong(cursor, CorruptionKind::Padding).into());
        }
        walk.epoch = frame.header.epoch;
        // Of the first frame a part may have been verified earlier.
        let start = walk.builder.size();
        for (index, entry) in frame.entries(cursor.payload(frame)?) {
            if index >= start {
                self.take(index, entry, walk, signed, visitor);
            }
        }
        if walk.builder.root() != frame.header.root {
            return Err(wrong(cursor, CorruptionKind::Root).into());
        }
        Ok(())
    }

    /// The next entry: shown, hashed, and its tiles and checkpoints compared.
    pub(crate) fn take(
        &mut self,
        index: u64,
        entry: &[u8],
        walk: &mut Walk,
        signed: &mut Signed,
        visitor: &mut dyn Visitor,
    ) {
        let (newest, from_bundles) = (signed.newest, walk.from_bundles);
        if let Some(note) = visitor.rotation(index, entry) {
            self.rotate(index, &note, walk, signed);
        }
        visitor.entry(index, entry);
        walk.builder.push(entry, |tile, bytes| {
            let required = tile.end_leaf().is_some_and(|end| end <= newest);
            if from_bundles && tile.kind == TileKind::Entries {
                check_partials(self, tile, bytes);
            } else {
                check_tile(self, tile, bytes, required);
            }
        });
        self.reach(walk, signed);
    }
}

pub(crate) fn progress(walk: &Walk, signed: &Signed, visitor: &mut dyn Visitor) {
    let entries = walk.builder.size();
    visitor.progress(Progress {
        entries,
        entries_total: entries.max(signed.newest),
    });
}

/// First index of the oldest segment; `None` where only tiles are left of the log.
fn oldest_segment(check: &Check<'_>) -> Result<Option<u64>, OpenError> {
    match list_segments(&*check.what.disk, check.what.dir) {
        Ok(segments) => Ok(segments.first().copied()),
        Err(ReadError::Missing { .. }) => Ok(None),
        Err(error) => Err(open_error(error)),
    }
}

/// Whether entry `index` is held by no segment any more.
fn is_sealed(check: &Check<'_>, index: u64) -> Result<bool, OpenError> {
    Ok(oldest_segment(check)?.is_some_and(|oldest| index < oldest))
}
