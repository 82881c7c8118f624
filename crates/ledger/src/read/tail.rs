//! What is behind the last whole frame of a log: the rest of an interrupted write, or damage.

use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::format::error::ReadError;
use crate::format::segment::{
    BLOCK_BYTES, Corruption, CorruptionKind, Found, FrameHeader, list_segments, segment_path,
};
use crate::read::reader::Cursor;

/// The rest of an interrupted write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment file.
    pub path: PathBuf,
    /// Where in it the last whole frame ends.
    pub offset: u64,
    /// How many bytes behind it there are, up to the last that is not zero.
    pub len_bytes: u64,
    /// The index the next entry gets.
    pub index: u64,
}

/// Tells a torn tail from damage. `genuine` says whether a frame was written by the log's writer;
/// who does not hold the key takes every frame for genuine.
pub(crate) fn judge_end(
    disk: &dyn Disk,
    dir: &Path,
    cursor: &mut Cursor,
    walked: &[u64],
    bad: Option<CorruptionKind>,
    genuine: &dyn Fn(&FrameHeader) -> bool,
) -> Result<Option<TornTail>, ReadError> {
    let (offset, index) = (cursor.offset, cursor.next);
    for first in list_segments(disk, dir)? {
        if first > index {
            let kind = bad.unwrap_or(CorruptionKind::Gap { next: first });
            return Err(cursor.segment.corruption(offset, index, kind).into());
        }
        if !walked.contains(&first) {
            let path = segment_path(dir, first);
            let kind = CorruptionKind::Stray;
            return Err(Corruption {
                path,
                offset: 0,
                index: first,
                kind,
            }
            .into());
        }
    }
    let Some(used) = cursor.segment.last_used(offset)? else {
        return Ok(None);
    };
    let mut at = offset;
    while at < used {
        if let Found::Frame(later) = cursor.segment.find(at)?
            && later.header.durable > index
            && genuine(&later.header)
        {
            let kind = bad.unwrap_or(CorruptionKind::NoFrame);
            return Err(cursor.segment.corruption(offset, index, kind).into());
        }
        at += BLOCK_BYTES;
    }
    let path = cursor.segment.path.clone();
    Ok(Some(TornTail {
        path,
        offset,
        len_bytes: used - offset,
        index,
    }))
}
