//! Opening a log: what is on disk becomes what is counted on.
//!
//! There is no clean shutdown to tell from a crash: every open reads all frames, recomputes the
//! root after each, and stops at the first place without a whole frame. What is sealed (see
//! [`crate::write::seal`]) is not read: its hashes are, which must lead to the roots of the frames after it
//! and to what was signed. What is there instead of a whole frame is
//!
//! - a *torn tail*, when nothing shows that a frame had been durable there: the write was cut off,
//!   nobody was told that it had succeeded, and it is wiped with zeros;
//! - *damage*, when a later frame or segment shows otherwise, or when more was signed than is
//!   there: the log is not opened.
//!
//! **Why the tail is written again.** A frame that can be read need not be durable. After a crash
//! of this process it may only be in the page cache; and after a failed sync the kernel marks pages
//! clean that never reached the disk, so that they read well, a further sync says `Ok`, and the
//! next power cut takes them. Whatever recovery counts is acknowledged by the next frame, so it
//! must be durable first. Writing the same bytes again makes the pages dirty again, and a sync
//! after that means what it says. Only frames since the last good sync are in doubt: a batch is at
//! most [`PAYLOAD_BYTES_MAX`], and the last [`REWRITE_BYTES`] of the last segment are rewritten.
//! Earlier segments are not in doubt, since a segment is left only once all of it is durable.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, OpenMode, read_file};
use crate::format::checkpoints::Records;
use crate::format::error::FileError;
use crate::format::leaves::LeafHashes;
use crate::format::merkle::{self, CompactTree, Hash};
use crate::format::note::{Checkpoint, NOTE_BYTES_MAX, NoteError, VerifierKey};
use crate::format::segment::{
    BLOCK_BYTES, CorruptionKind, FOLDER, FrameHeader, PAYLOAD_BYTES_MAX, Segment, WIDE_WINDOW_BYTES,
};
use crate::format::tile::TileBuilder;
use crate::keys::signer::Signer;
use crate::read::bundles::builder_at;
use crate::read::prune_point::PrunePoint;
use crate::read::reader::{Cursor, Step, TilesAt};
use crate::read::tail::{TornTail, judge_end};
use crate::write::error::OpenError;
use crate::write::options::WRITES_IN_FLIGHT_LIMIT;

/// How much of the last segment's end is written again at open, in bytes: the most that can be in
/// flight, four batches of [`PAYLOAD_BYTES_MAX`] with their headers and padding, rounded up.
pub(crate) const REWRITE_BYTES: u64 = (WRITES_IN_FLIGHT_LIMIT as u64
    * (PAYLOAD_BYTES_MAX as u64 + 2 * BLOCK_BYTES))
    .next_multiple_of(1024 * 1024);

/// Entries hashed at once: they and their hashes stay in the processor's own memory.
const HASHED_AT_ONCE: usize = 256;

/// Where a log ends, and what it amounts to.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) tree: CompactTree,
    /// The tiles at the first entry of the oldest segment: where what is not sealed begins.
    pub(crate) base: TileBuilder,
    /// The last segment, open for writing.
    pub(crate) segment: Segment,
    /// Where the next frame goes.
    pub(crate) offset: u64,
    /// The epoch of the last frame, 0 when there is none.
    pub(crate) epoch: u64,
    pub(crate) torn_tail: Option<TornTail>,
    pub(crate) prune_point: Option<PrunePoint>,
    /// The newest signed checkpoint.
    pub(crate) signed: (Checkpoint, String),
    /// The note that the guard holds.
    pub(crate) guarded: String,
    /// The last note in `checkpoints`, and where whole records end there.
    pub(crate) published: (Option<String>, u64),
}

/// A signed checkpoint, and the file it was found in.
struct Signed {
    checkpoint: Checkpoint,
    note: String,
    path: PathBuf,
}

/// Finds the end of the log, and makes durable all that it counts. The caller holds the lock.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    guard: &Path,
    signer: &dyn Signer,
) -> Result<End, OpenError> {
    let keys = signer.verifiers();
    let guard_path = guard;
    let guard = read_guard(&**disk, guard_path, &keys)?;
    let guarded = guard.note.clone();
    let (last, records_end) = read_last_checkpoint(&**disk, dir, &keys)?;
    let mut signed = vec![guard];
    let published = (last.as_ref().map(|last| last.note.clone()), records_end);
    signed.extend(last);

    let cursor = Cursor::start(disk.clone(), dir, true)?;
    let mut cursor = cursor.reading(WIDE_WINDOW_BYTES)?;
    let first = cursor.segment.first;
    let base = builder_at(&**disk, dir, first)?;
    let prune_point = read_prune_point(&**disk, dir, first)?;
    let mut scan = Scan::new(base.tree().clone());
    for size in signed.iter().map(|s| s.checkpoint.size) {
        if size < first {
            // Only a guard that was put back is so old.
            let root = merkle::root(&mut &TilesAt::new(&**disk, dir, size), size);
            scan.roots.push((size, root?));
        } else {
            scan.ahead.push(size);
        }
    }
    let (segments, bad) = scan.walk(&mut cursor)?;
    let unasked = RefCell::new(None);
    let genuine = |header: &FrameHeader| match signer.frame_nonces(header.epoch) {
        Ok(nonces) => nonces.contains(&header.nonce),
        // Said below: until it is known, nothing may be wiped.
        Err(error) => unasked.borrow_mut().replace(error).is_none(),
    };
    let torn_tail = judge_end(&**disk, dir, &mut cursor, &segments, bad, &genuine);
    if let Some(error) = unasked.take() {
        return Err(error.into());
    }
    let torn_tail = torn_tail?;
    check_signed(&scan, &signed)?;

    let (offset, first) = (cursor.offset, cursor.segment.first);
    let mut segment =
        Segment::open(&**disk, dir, first, OpenMode::Write)?.ok_or_else(|| OpenError::Missing {
            dir: dir.to_path_buf(),
        })?;
    settle(&**disk, dir, &mut segment, offset, torn_tail.as_ref())?;
    crate::write::guard::settle(&**disk, guard_path, &guarded)?;
    let newest = signed.into_iter().max_by_key(|s| s.checkpoint.size);
    let newest = newest.ok_or_else(|| OpenError::Missing {
        dir: dir.to_path_buf(),
    })?;
    Ok(End {
        tree: scan.tree,
        base,
        segment,
        offset,
        epoch: scan.epoch,
        torn_tail,
        prune_point,
        signed: (newest.checkpoint, newest.note),
        guarded,
        published,
    })
}

/// Where the log begins; `sealed` is where what is sealed ends. Its checkpoint may be an earlier key's,
/// which is not at hand here: that it is of this log, the hashes show, and whoever makes use of what else
/// is in it looks for the entry that names its digest.
fn read_prune_point(
    disk: &dyn Disk,
    dir: &Path,
    sealed: u64,
) -> Result<Option<PrunePoint>, OpenError> {
    let Some(prune_point) = PrunePoint::read(disk, dir)? else {
        return Ok(None);
    };
    let wrong = |problem| OpenError::PrunePoint {
        path: dir.join(crate::read::prune_point::FILE),
        problem,
    };
    let signed = prune_point.verified_state().own_checkpoint();
    let signed = signed.map_err(|error| wrong(error.to_string()))?;
    let size = signed.size;
    if size > sealed {
        let problem = format!("it is at entry {size}, and the log was sealed up to {sealed} only");
        return Err(wrong(problem));
    }
    // Out of full tiles alone: what of others there is, may not have been stored.
    let found = builder_at(disk, dir, size)?;
    if found.root() != signed.root {
        return Err(wrong("the log does not go on from it".to_owned()));
    }
    Ok(Some(prune_point))
}

fn read_guard(disk: &dyn Disk, path: &Path, keys: &[VerifierKey]) -> Result<Signed, OpenError> {
    match read_file(disk, path, NOTE_BYTES_MAX as u64) {
        Ok(bytes) => check_note(&bytes, path, 0, keys),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(OpenError::GuardMissing {
                path: path.to_path_buf(),
            })
        }
        Err(error) => Err(FileError::at("read", path)(error).into()),
    }
}

fn read_last_checkpoint(
    disk: &dyn Disk,
    dir: &Path,
    keys: &[VerifierKey],
) -> Result<(Option<Signed>, u64), OpenError> {
    let path = dir.join("checkpoints");
    let Some(mut records) = Records::open(disk, &path)? else {
        return Ok((None, 0));
    };
    let malformed = |offset, error| OpenError::Checkpoint {
        path: path.clone(),
        offset,
        error,
    };
    let last = records.last()?.map_err(|offset| {
        malformed(
            offset,
            NoteError::Malformed("not a line with the length of a note"),
        )
    })?;
    let end = records.offset;
    let last = match last {
        Some(note) => Some(check_note(&note, &path, end - note.len() as u64, keys)?),
        None => None,
    };
    Ok((last, end))
}

fn check_note(
    bytes: &[u8],
    path: &Path,
    offset: u64,
    keys: &[VerifierKey],
) -> Result<Signed, OpenError> {
    let wrong = |error| OpenError::Checkpoint {
        path: path.to_path_buf(),
        offset,
        error,
    };
    let checkpoint = Checkpoint::verify(bytes, keys).map_err(wrong)?;
    let note =
        String::from_utf8(bytes.to_vec()).map_err(|_| wrong(NoteError::Malformed("not UTF-8")))?;
    Ok(Signed {
        checkpoint,
        note,
        path: path.to_path_buf(),
    })
}

/// Goes over all frames, and remembers the root at sizes of interest.
struct Scan {
    tree: CompactTree,
    epoch: u64,
    /// Sizes to look at, largest first, so that the next one is last.
    ahead: Vec<u64>,
    roots: Vec<(u64, Hash)>,
}

impl Scan {
    fn new(tree: CompactTree) -> Scan {
        Scan {
            tree,
            epoch: 0,
            ahead: Vec::new(),
            roots: Vec::new(),
        }
    }

    fn look(&mut self) {
        if self.ahead.last() == Some(&self.tree.size()) {
            self.roots.push((self.tree.size(), self.tree.root()));
            self.ahead.pop();
        }
    }

    /// The first indexes of the segments gone over, and what is at the end.
    fn walk(
        &mut self,
        cursor: &mut Cursor,
    ) -> Result<(Vec<u64>, Option<CorruptionKind>), OpenError> {
        self.ahead.sort_unstable_by(|a, b| b.cmp(a));
        self.ahead.dedup();
        self.look();
        let mut segments = vec![cursor.segment.first];
        let mut hashes = LeafHashes::default();
        loop {
            let step = cursor.step()?;
            if segments.last() != Some(&cursor.segment.first) {
                segments.push(cursor.segment.first);
            }
            let frame = match step {
                Step::End(bad) => return Ok((segments, bad)),
                Step::Frame(frame) => frame,
            };
            let wrong = |cursor: &Cursor, kind| {
                cursor
                    .segment
                    .corruption(frame.offset, frame.header.first, kind)
            };
            if frame.header.epoch < self.epoch {
                return Err(wrong(cursor, CorruptionKind::Epoch).into());
            }
            self.epoch = frame.header.epoch;
            let payload = cursor.payload(&frame)?;
            let entries: Vec<_> = frame.entries(payload).map(|(_, entry)| entry).collect();
            for some in entries.chunks(HASHED_AT_ONCE) {
                for leaf in hashes.of(some) {
                    self.tree.push(*leaf);
                    self.look();
                }
            }
            if self.tree.root() != frame.header.root {
                return Err(wrong(cursor, CorruptionKind::Root).into());
            }
        }
    }
}

fn check_signed(scan: &Scan, signed: &[Signed]) -> Result<(), OpenError> {
    let size = scan.tree.size();
    for Signed {
        checkpoint, path, ..
    } in signed
    {
        if checkpoint.size > size {
            let (signed, guard) = (checkpoint.size, path.clone());
            return Err(OpenError::OlderCopy {
                size,
                signed,
                guard,
            });
        }
        if !scan.roots.contains(&(checkpoint.size, checkpoint.root)) {
            return Err(OpenError::Inconsistent {
                signed: checkpoint.size,
                guard: path.clone(),
            });
        }
    }
    Ok(())
}

/// Makes the end of the log durable and wipes what is behind it; see the module text for why.
fn settle(
    disk: &dyn Disk,
    dir: &Path,
    segment: &mut Segment,
    end: u64,
    torn: Option<&TornTail>,
) -> Result<(), OpenError> {
    let path = segment.path.clone();
    let mut chunk = vec![0; 256 * BLOCK_BYTES as usize];
    let mut at = end
        .saturating_sub(REWRITE_BYTES)
        .next_multiple_of(BLOCK_BYTES);
    while at < end {
        // Below the length of the chunk.
        let len = (end - at).min(chunk.len() as u64) as usize;
        let part = &mut chunk[..len];
        segment
            .file
            .read_exact_at(part, at)
            .map_err(FileError::at("read", &path))?;
        segment
            .file
            .write_all_at(part, at)
            .map_err(FileError::at("write", &path))?;
        at += len as u64;
    }
    if let Some(torn) = torn {
        chunk.fill(0);
        let stop = (end + torn.len_bytes)
            .next_multiple_of(BLOCK_BYTES)
            .min(segment.len_bytes);
        let mut at = end;
        while at < stop {
            let part = &chunk[..(stop - at).min(chunk.len() as u64) as usize];
            segment
                .file
                .write_all_at(part, at)
                .map_err(FileError::at("wipe", &path))?;
            at += part.len() as u64;
        }
    }
    segment
        .file
        .sync_data()
        .map_err(FileError::at("sync", &path))?;
    segment.forget_window();
    let folder = dir.join(FOLDER);
    disk.sync_dir(&folder)
        .map_err(FileError::at("sync", &folder))?;
    Ok(())
}
