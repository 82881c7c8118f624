//! The part of verification that goes over the entries: those of the sealed part out of their
//! bundles, the others out of the segments.

use crate::format::error::ReadError;
use crate::format::leaves::LeafHashes;
use crate::format::merkle::Hash;
use crate::format::note::Checkpoint;
use crate::format::segment::{CorruptionKind, FrameAt, list_segments, split_payload};
use crate::format::tile::{TILE_WIDTH, Tile, TileBuilder};
use crate::read::bundles::Bundle;
use crate::read::reader::{Cursor, Step};
use crate::read::tail::{TornTail, judge_end};
use crate::read::verified_state::VerifiedState;
use crate::verify::bundles::bundle_at;
use crate::verify::check::{Check, Progress, Visitor};
use crate::verify::signed::Signed;
use crate::verify::tiles::{check_partials, check_tile};

/// Entries that are hashed together: their hashes and they themselves stay near the processor.
const RUN: usize = 64;

/// What the pass over the entries carries along.
pub(crate) struct Walk {
    /// The tree and the tiles of hashes. It is given no entries: of those `bundle` has the last.
    pub(crate) builder: TileBuilder,
    /// The entries of the incomplete bundle.
    bundle: Vec<u8>,
    pub(crate) epoch: u64,
    /// First indexes of the segments gone over.
    pub(crate) segments: Vec<u64>,
    /// Where the newest checkpoint was reached.
    pub(crate) verified_state: Option<VerifiedState>,
    /// Whole bundles are read as they lie: there is nothing to compare them with.
    pub(crate) from_bundles: bool,
    pub(crate) remembered: Option<Checkpoint>,
    pub(crate) remembered_done: bool,
}

impl Walk {
    /// At the first entry, or where an earlier verification had come to.
    pub(crate) fn from(
        verified_state: Option<&VerifiedState>,
        remembered: Option<Checkpoint>,
    ) -> Walk {
        let (mut builder, mut bundle, mut epoch) = (TileBuilder::new(), Vec::new(), 0);
        if let Some(verified_state) = verified_state {
            let (entries, levels) = verified_state.builder.parts();
            builder = TileBuilder::from_parts(verified_state.size(), Vec::new(), levels.to_vec());
            bundle = entries.to_vec();
            epoch = verified_state.epoch;
        }
        Walk {
            builder,
            bundle,
            epoch,
            segments: Vec::new(),
            verified_state: None,
            from_bundles: false,
            remembered,
            remembered_done: false,
        }
    }

    /// The builder that has been given the entries as well.
    pub(crate) fn complete(&self) -> TileBuilder {
        let (_, levels) = self.builder.parts();
        TileBuilder::from_parts(self.builder.size(), self.bundle.clone(), levels.to_vec())
    }
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
    ) -> Result<Option<TornTail>, ReadError> {
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
                cursor => cursor?,
            };
            // What was gone over earlier, is here as well.
            let dir = self.what.dir;
            let segments = list_segments(&*self.what.disk, dir)?;
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
    ) -> Result<(), ReadError> {
        while walk.builder.size() < end {
            let size = walk.builder.size();
            let bundle = Bundle::read_unproven(&*self.what.disk, self.what.dir, size);
            let bundle = bundle?;
            let whole = (bundle.first + u64::from(TILE_WIDTH) <= end).then_some(&*bundle.payload);
            let entries = (bundle.first..end).zip(split_payload(&bundle.payload));
            self.take(entries, whole, walk, signed, visitor);
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
    ) -> Result<Ended, ReadError> {
        let disk = self.what.disk.clone();
        let dir = self.what.dir;
        let mut doubted = None;
        loop {
            if walk.segments.last() != Some(&cursor.segment.first) {
                walk.segments.push(cursor.segment.first);
            }
            match cursor.step()? {
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
    ) -> Result<(), ReadError> {
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
        let entries = frame.entries(cursor.payload(frame)?);
        self.take(entries, None, walk, signed, visitor);
        if walk.builder.root() != frame.header.root {
            return Err(wrong(cursor, CorruptionKind::Root).into());
        }
        Ok(())
    }

    /// The next entries, those that were taken before left out: shown, hashed, and their tiles and
    /// checkpoints compared. `whole` are the bytes of the full bundle that they are all of.
    pub(crate) fn take<'a>(
        &mut self,
        entries: impl Iterator<Item = (u64, &'a [u8])>,
        whole: Option<&[u8]>,
        walk: &mut Walk,
        signed: &mut Signed,
        visitor: &mut dyn Visitor,
    ) {
        let start = walk.builder.size();
        let first = start / u64::from(TILE_WIDTH) * u64::from(TILE_WIDTH);
        // Inside one of which a part was taken before, or the newest checkpoint is to be reached, its
        // entries are gathered one by one.
        let inside = first + 1..first + u64::from(TILE_WIDTH);
        let whole = whole.filter(|_| start == first && !inside.contains(&signed.newest));
        let mut entries = entries.skip_while(|(index, _)| *index < start);
        let (mut run, mut hashes) = (Vec::with_capacity(RUN), LeafHashes::default());
        loop {
            run.clear();
            run.extend(entries.by_ref().take(RUN).map(|(_, entry)| entry));
            if run.is_empty() {
                return;
            }
            for (entry, leaf) in run.iter().zip(hashes.of(&run)) {
                let index = walk.builder.size();
                if let Some(note) = visitor.rotation(index, entry) {
                    self.rotate(index, &note, walk, signed);
                }
                visitor.entry(index, entry);
                self.gather(entry, whole, walk);
                self.add(*leaf, walk, signed);
            }
        }
    }

    /// Notes the entry of the next index for its bundle, which is compared once it is full.
    fn gather(&mut self, entry: &[u8], whole: Option<&[u8]>, walk: &mut Walk) {
        let index = walk.builder.size();
        if whole.is_none() {
            // Entries have at most 65,535 bytes: their length has been read out of two.
            let len = (entry.len() as u16).to_be_bytes();
            walk.bundle.extend_from_slice(&len);
            walk.bundle.extend_from_slice(entry);
        }
        if !(index + 1).is_multiple_of(u64::from(TILE_WIDTH)) {
            return;
        }
        let (tile, bytes) = (bundle_at(index), whole.unwrap_or(&walk.bundle));
        if walk.from_bundles {
            check_partials(self, tile, bytes);
        } else {
            check_tile(self, tile, bytes, self.is_signed(tile));
        }
        walk.bundle.clear();
    }

    /// Adds the hash of the next entry.
    fn add(&mut self, leaf: Hash, walk: &mut Walk, signed: &mut Signed) {
        walk.builder.push_hash(leaf, |tile, bytes| {
            check_tile(self, tile, bytes, self.is_signed(tile));
        });
        self.reach(walk, signed);
    }

    /// Whether the newest checkpoint covers all of the tile.
    fn is_signed(&self, tile: Tile) -> bool {
        tile.end_leaf().is_some_and(|end| end <= self.newest)
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
fn oldest_segment(check: &Check<'_>) -> Result<Option<u64>, ReadError> {
    match list_segments(&*check.what.disk, check.what.dir) {
        Ok(segments) => Ok(segments.first().copied()),
        Err(ReadError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether entry `index` is held by no segment any more.
fn is_sealed(check: &Check<'_>, index: u64) -> Result<bool, ReadError> {
    Ok(oldest_segment(check)?.is_some_and(|oldest| index < oldest))
}
