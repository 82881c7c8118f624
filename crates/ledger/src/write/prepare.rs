//! Making segments before they are needed.
//!
//! A segment is written full of zeros, not merely allocated: blocks that were allocated but never
//! written cost a change of the file's metadata at each first write, which made every sync several
//! times slower than in a growing file. And since its blocks exist, writing into it cannot find
//! the disk full.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use crate::disk::{Disk, OpenMode};
use crate::format::error::FileError;
use crate::format::segment::{FOLDER, PREPARED};
use crate::write::queue::Successor;
use crate::write::writer::{RETRY_INTERVAL, Shared};

/// Zeros are written in pieces of this many bytes, so that frames in flight meanwhile never wait for
/// more: 256 KiB take 1.3 ms at 200 MB/s.
const PIECE_BYTES: usize = 256 * 1024;

/// After so many bytes there is a sync, where writes are kept in the page cache: so that the frames' own
/// never wait for much more than that.
const SYNC_BYTES: u64 = 4 * 1024 * 1024;

pub(crate) fn prepared_path(dir: &Path) -> PathBuf {
    dir.join(FOLDER).join(PREPARED)
}

/// Makes a file of `len_bytes` zeros, durably, under the name of the prepared segment.
///
/// One left from before is written over rather than removed: on a full disk its blocks may be the
/// last there are.
pub(crate) fn prepare(disk: &dyn Disk, dir: &Path, len_bytes: u64) -> Result<(), FileError> {
    let path = prepared_path(dir);
    let file = disk
        .open_direct(&path, OpenMode::Create)
        .map_err(FileError::at("create", &path))?;
    let found = file.len_bytes().map_err(FileError::at("measure", &path))?;
    if found > len_bytes {
        file.set_len_bytes(len_bytes)
            .map_err(FileError::at("shorten", &path))?;
    }
    let zeros = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < len_bytes {
        let piece = &zeros[..(len_bytes - at).min(PIECE_BYTES as u64) as usize];
        file.write_all_at(piece, at)
            .map_err(FileError::at("fill", &path))?;
        at += piece.len() as u64;
        if at < len_bytes && !at.is_multiple_of(SYNC_BYTES) {
            continue;
        }
        if let Err(error) = file.sync_data() {
            // Pages of a failed sync may be lost and yet look written; start from nothing.
            drop(file);
            return match disk.remove_file(&path) {
                Err(worse) if worse.kind() != io::ErrorKind::NotFound => {
                    Err(FileError::at("remove", &path)(worse))
                }
                _ => Err(FileError::at("sync", &path)(error)),
            };
        }
    }
    let folder = dir.join(FOLDER);
    disk.sync_dir(&folder)
        .map_err(FileError::at("sync", &folder))
}

/// Gives the prepared segment its name, durably.
pub(crate) fn name_segment(disk: &dyn Disk, dir: &Path, first: u64) -> Result<PathBuf, FileError> {
    let path = crate::format::segment::segment_path(dir, first);
    disk.rename(&prepared_path(dir), &path)
        .map_err(FileError::at("name", &path))?;
    let folder = dir.join(FOLDER);
    disk.sync_dir(&folder)
        .map_err(FileError::at("sync", &folder))?;
    Ok(path)
}

/// Body of the preparer thread.
pub(crate) fn prepare_segments(shared: &Shared) {
    let mut queue = shared.queue();
    loop {
        if queue.closing || queue.failure.is_some() {
            return;
        }
        match queue.successor() {
            Successor::Ready(_) | Successor::Taken => {
                queue = shared
                    .prepare
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            Successor::Preparing | Successor::Failed => {
                drop(queue);
                let made = prepare(&*shared.disk, &shared.dir, shared.segment_bytes);
                let failed = made.is_err();
                queue = shared.queue();
                queue.set_successor(if failed {
                    Successor::Failed
                } else {
                    Successor::Ready(shared.segment_bytes)
                });
                shared.work.notify_all();
                if failed && !queue.closing {
                    let waited = shared.prepare.wait_timeout(queue, RETRY_INTERVAL);
                    queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}
