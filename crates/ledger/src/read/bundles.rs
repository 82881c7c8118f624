//! The sealed part of a log: entries that are left only in their bundles (see `write/seal.rs`).
//!
//! A segment has a checksum in each frame. A bundle has none, but beside it lies the tile with the
//! hash of each of its entries, and every entry is held to that. Who changed both is found by
//! verification, which goes up to the signed root.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, read_file};
use crate::format::error::{FileError, ReadError};
use crate::format::merkle::{Hash, leaf_hash, perfect_root};
use crate::format::segment::{Corruption, CorruptionKind, payload_is, split_payload};
use crate::format::tile::{
    BUNDLE_BYTES_MAX, HASH_TILE_BYTES, TILE_LEVEL_MAX, TILE_WIDTH, Tile, TileBuilder, TileKind,
    tiles_at,
};
use crate::read::prune_point::PrunePoint;

/// A full bundle, and the hashes its entries must have.
#[derive(Debug)]
pub(crate) struct Bundle {
    path: PathBuf,
    hashes: Vec<u8>,
    /// Each entry after its length, as in a frame.
    pub(crate) payload: Vec<u8>,
    /// Index of its first entry.
    pub(crate) first: u64,
}

impl Bundle {
    /// Reads the full bundle that holds entry `index`.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path, index: u64) -> Result<Bundle, ReadError> {
        let n = index / u64::from(TILE_WIDTH);
        let mut bundle = Bundle::read_unproven(disk, dir, index)?;
        bundle.hashes = full_tile(disk, dir, TileKind::Hashes(0), n)?;
        Ok(bundle)
    }

    /// The same for whoever hashes all entries anyway: without what [`Bundle::check`] needs.
    pub(crate) fn read_unproven(
        disk: &dyn Disk,
        dir: &Path,
        index: u64,
    ) -> Result<Bundle, ReadError> {
        let n = index / u64::from(TILE_WIDTH);
        let payload = match full_tile(disk, dir, TileKind::Entries, n) {
            Ok(payload) => payload,
            Err(error) => return Err(pruned(disk, dir, index).unwrap_or(error)),
        };
        let bundle = Bundle {
            path: dir.join(full(TileKind::Entries, n).to_string()),
            hashes: Vec::new(),
            payload,
            first: n * u64::from(TILE_WIDTH),
        };
        if !payload_is(&bundle.payload, TILE_WIDTH.into()) {
            return Err(bundle.corrupt(bundle.first));
        }
        Ok(bundle)
    }

    /// Holds the entry to its hash.
    pub(crate) fn check(&self, index: u64, entry: &[u8]) -> Result<(), ReadError> {
        let at = index.checked_sub(self.first);
        let at = at
            .and_then(|at| usize::try_from(at).ok())
            .unwrap_or(usize::MAX);
        match self.hashes.as_chunks::<32>().0.get(at) {
            Some(hash) if leaf_hash(entry).0 == *hash => Ok(()),
            _ => Err(self.corrupt(index)),
        }
    }

    fn corrupt(&self, index: u64) -> ReadError {
        let before = usize::try_from(index - self.first).unwrap_or_default();
        let offset = split_payload(&self.payload)
            .take(before)
            .map(|entry| 2 + entry.len() as u64)
            .sum();
        corrupt(&self.path, offset, index)
    }
}

/// That it was pruned, if it was.
fn pruned(disk: &dyn Disk, dir: &Path, index: u64) -> Option<ReadError> {
    let first = PrunePoint::size_at(disk, dir).ok()?;
    (index < first).then_some(ReadError::Pruned { index, first })
}

fn corrupt(path: &Path, offset: u64, index: u64) -> ReadError {
    let kind = CorruptionKind::Bundle;
    ReadError::Corrupt(Corruption {
        path: path.to_path_buf(),
        offset,
        index,
        kind,
    })
}

/// The tile of this kind and number with all that it can have.
pub(crate) fn full(kind: TileKind, n: u64) -> Tile {
    Tile {
        kind,
        n,
        width: TILE_WIDTH,
    }
}

fn full_tile(disk: &dyn Disk, dir: &Path, kind: TileKind, n: u64) -> Result<Vec<u8>, ReadError> {
    let path = dir.join(full(kind, n).to_string());
    let most = match kind {
        TileKind::Entries => BUNDLE_BYTES_MAX,
        TileKind::Hashes(_) => HASH_TILE_BYTES,
    };
    let bytes = read_file(disk, &path, most as u64).map_err(FileError::at("read", &path))?;
    if matches!(kind, TileKind::Hashes(_)) && bytes.len() != HASH_TILE_BYTES {
        let index = full(kind, n).first_leaf().unwrap_or_default();
        return Err(corrupt(&path, bytes.len() as u64, index));
    }
    Ok(bytes)
}

/// What a [`TileBuilder`] holds after `size` entries, read from full tiles alone: partial ones are
/// never synced, and of a sealed part the full ones are.
///
/// What is read here is proven by what follows: the root of the next frame and of the next signed
/// checkpoint are over it.
pub(crate) fn builder_at(disk: &dyn Disk, dir: &Path, size: u64) -> Result<TileBuilder, ReadError> {
    if size == 0 {
        return Ok(TileBuilder::new());
    }
    let mut levels = Vec::new();
    for level in 0..=TILE_LEVEL_MAX {
        let kind = TileKind::Hashes(level);
        let (n, width) = tiles_at(kind, size);
        if n == 0 && width == 0 {
            break;
        }
        levels.push(match level.checked_sub(1) {
            None if width == 0 => Vec::new(),
            None => {
                let mut hashes = full_tile(disk, dir, kind, n)?;
                hashes.truncate(usize::from(width) * 32);
                hashes
            }
            Some(below) => {
                let start = n * u64::from(TILE_WIDTH);
                hashes_over(disk, dir, TileKind::Hashes(below), start, width)?
            }
        });
    }
    let (_, width) = tiles_at(TileKind::Entries, size);
    let mut bundle = Vec::new();
    if width > 0 {
        let found = Bundle::read(disk, dir, size)?;
        for (index, entry) in (found.first..size).zip(split_payload(&found.payload)) {
            found.check(index, entry)?;
        }
        let tile = full(TileKind::Entries, 0);
        bundle = Tile { width, ..tile }.prefix(&found.payload).to_vec();
    }
    Ok(TileBuilder::from_parts(size, bundle, levels))
}

/// The roots of `count` full tiles from number `start` on, one after the other.
fn hashes_over(
    disk: &dyn Disk,
    dir: &Path,
    kind: TileKind,
    start: u64,
    count: u16,
) -> Result<Vec<u8>, ReadError> {
    let mut hashes = Vec::with_capacity(usize::from(count) * 32);
    for n in start..start + u64::from(count) {
        let tile = full_tile(disk, dir, kind, n)?;
        let tile = tile.as_chunks::<32>().0.iter().map(|hash| Hash(*hash));
        hashes.extend_from_slice(&perfect_root(tile.collect()).0);
    }
    Ok(hashes)
}
