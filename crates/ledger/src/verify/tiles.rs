//! The part of verification that looks at tiles.

use std::io;
use std::path::Path;

use crate::disk::read_file;
use crate::format::error::FileError;
use crate::format::segment::split_payload;
use crate::format::tile::{BUNDLE_BYTES_MAX, TILE_HEIGHT, TILE_WIDTH, Tile, TileKind};
use crate::read::reader::LogReader;
use crate::verify::check::Check;
use crate::verify::failure::FailureKind;

/// Deepest a path under `tile/` can be: level, seven groups of three digits for a number below
/// 2^56, the directory of partials, the width.
const DEPTH_MAX: usize = 10;

/// Compares a tile, and its partial forms where there are any, with what the entries make.
pub(crate) fn check_tile(check: &mut Check<'_>, tile: Tile, expected: &[u8], required: bool) {
    check_file(check, tile, expected, required);
    check_partials(check, tile, expected);
}

/// The same of its partial forms alone.
pub(crate) fn check_partials(check: &mut Check<'_>, tile: Tile, expected: &[u8]) {
    let folder = check.what.dir.join(tile.partial_dir());
    // Most tiles have none; what cannot be listed is met again in `check_tree`.
    let Ok(names) = check.what.disk.list(&folder) else {
        return;
    };
    for entry in names {
        let width = entry.name.parse().unwrap_or(TILE_WIDTH);
        if (1..tile.width).contains(&width) {
            let partial = Tile { width, ..tile };
            check_file(check, partial, partial.prefix(expected), false);
        }
    }
}

fn check_file(check: &mut Check<'_>, tile: Tile, expected: &[u8], required: bool) {
    let mut path = check.what.dir.join(tile.to_string());
    let read = |path: &Path| read_file(&*check.what.disk, path, BUNDLE_BYTES_MAX as u64);
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let mut found = read(&path);
    if required && tile.width < TILE_WIDTH && found.as_ref().is_err_and(is_gone) {
        // A partial tile may go once the full one is there, which begins with the same.
        let full = check.what.dir.join(tile.full().to_string());
        if let Ok(bytes) = read(&full) {
            found = Ok(tile.prefix(&bytes).to_vec());
            path = full;
        }
    }
    match found {
        Ok(found) if found == expected => {}
        // A full one that no checkpoint covers may be half written, and nobody reads it.
        Ok(found) if is_unread(check, tile) && expected.starts_with(&found) => {}
        Ok(found) => {
            let same = found
                .iter()
                .zip(expected)
                .take_while(|(a, b)| a == b)
                .count();
            let index = entry_at(tile, expected, same);
            check.fail(&path, Some(same as u64), index, FailureKind::Tile);
        }
        Err(error) if is_gone(&error) => {
            if required {
                check.fail(&path, None, tile.first_leaf(), FailureKind::Missing);
            }
        }
        Err(error) => check.fail_file(&FileError::at("read", &path)(error)),
    }
}

fn is_unread(check: &Check<'_>, tile: Tile) -> bool {
    tile.width == TILE_WIDTH && tile.end_leaf() > Some(check.newest)
}

/// Index of the first entry that byte `offset` of a tile speaks of.
fn entry_at(tile: Tile, expected: &[u8], offset: usize) -> Option<u64> {
    let item = match tile.kind {
        TileKind::Hashes(_) => offset as u64 / 32,
        TileKind::Entries => {
            let mut end = 0;
            let before = split_payload(expected).take_while(|entry| {
                end += 2 + entry.len();
                end <= offset
            });
            before.count() as u64
        }
    };
    let height = match tile.kind {
        TileKind::Hashes(level) => u32::from(level) * TILE_HEIGHT,
        TileKind::Entries => 0,
    };
    tile.first_leaf()?.checked_add(item << height)
}

/// Looks for files under `tile/` that a log of `size` entries cannot have. Their content has been
/// compared where the log can have them. Of tiles alone the newest may be ahead of the checkpoint and
/// the bundles, if they were copied while the log grew: they speak of nothing that is signed here.
pub(crate) fn check_tree(check: &mut Check<'_>, size: u64, tiles_only: bool) {
    // One path per level of depth, so memory is bounded by the names of a few directories.
    let mut size = Size {
        known: if tiles_only { u64::MAX } else { size },
        looked: tiles_only,
    };
    check_folder(check, "tile", &mut size, 0);
}

/// How many entries the log has. A writer may have added some since they were gone over.
struct Size {
    known: u64,
    looked: bool,
}

impl Size {
    fn covers(&mut self, check: &Check<'_>, end: u64) -> bool {
        if end > self.known && !self.looked {
            self.looked = true;
            let reader = LogReader::open_on(check.what.dir, check.what.disk.clone());
            self.known = self.known.max(reader.map_or(0, |reader| reader.size()));
        }
        end <= self.known
    }
}

fn check_folder(check: &mut Check<'_>, folder: &str, size: &mut Size, depth: usize) {
    let path = check.what.dir.join(folder);
    let names = match check.what.disk.list(&path) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return check.fail_file(&FileError::at("list", &path)(error)),
    };
    for entry in names {
        let name = format!("{folder}/{}", entry.name);
        if entry.is_dir && depth < DEPTH_MAX {
            check_folder(check, &name, size, depth + 1);
            continue;
        }
        let tile = if entry.is_dir {
            None
        } else {
            Tile::parse(&name)
        };
        let possible = tile
            .and_then(Tile::end_leaf)
            .is_some_and(|end| size.covers(check, end));
        if !possible {
            let index = tile.and_then(Tile::first_leaf);
            check.fail(
                &check.what.dir.join(&name),
                None,
                index,
                FailureKind::Unexpected,
            );
        }
    }
}
