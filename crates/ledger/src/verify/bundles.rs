//! The part of verification that goes over a log of which only C2SP tlog-tiles are there: a
//! checkpoint, tiles of hashes and bundles of entries, as an archive or a mirror keeps it.
//!
//! What the bundles hold is hashed like any other entry, and the tiles of hashes are compared with
//! that. So nothing is taken from a bundle on trust, and what is signed cannot be missing.

use crate::disk::read_file;
use crate::format::error::{FileError, ReadError};
use crate::format::segment::{Corruption, CorruptionKind, payload_is, split_payload};
use crate::format::tile::{BUNDLE_BYTES_MAX, TILE_WIDTH, Tile, TileKind};
use crate::read::bundles::full;
use crate::verify::check::{Check, Visitor};
use crate::verify::failure::FailureKind;
use crate::verify::signed::Signed;
use crate::verify::walk::{Walk, progress};

impl Check<'_> {
    /// Goes over the bundles: all that is signed must be there, and what follows is read as far as
    /// it goes.
    pub(crate) fn walk_tiles(
        &mut self,
        walk: &mut Walk,
        signed: &mut Signed,
        visitor: &mut dyn Visitor,
    ) -> Result<(), ReadError> {
        while let Some((tile, bundle)) = self.next_bundle(walk.builder.size(), signed.newest)? {
            let start = walk.builder.size();
            let first = tile.first_leaf().unwrap_or_default();
            // Of the first bundle a part may have been verified earlier: it is compared with that.
            walk.from_bundles = start == first;
            let whole = (tile.width == TILE_WIDTH).then_some(&*bundle);
            let entries = (first..).zip(split_payload(&bundle));
            self.take(entries, whole, walk, signed, visitor);
            progress(walk, signed, visitor);
            if tile.width < TILE_WIDTH {
                break;
            }
        }
        let next = bundle_at(walk.builder.size());
        let place = (self.what.dir.join(next.to_string()), None);
        self.check_end(walk, signed, place, None);
        Ok(())
    }

    /// The bundle that goes on after `size` entries, the widest there is.
    fn next_bundle(
        &mut self,
        size: u64,
        newest: u64,
    ) -> Result<Option<(Tile, Vec<u8>)>, ReadError> {
        let full = bundle_at(size);
        let covered = full.end_leaf().is_some_and(|end| end <= newest);
        match self.read_bundle(full) {
            Ok(Some(bundle)) => return Ok(Some((full, bundle))),
            Ok(None) => {}
            // One that no checkpoint covers may be half written: nobody reads it yet.
            Err(ReadError::Corrupt(_)) if !covered => {}
            Err(error) => return Err(error),
        }
        // At most 256, so it fits.
        let first = full.first_leaf().unwrap_or_default();
        let required = newest.saturating_sub(first).min(TILE_WIDTH.into()) as u16;
        let width = self.widest_partial(full).max(required);
        let tile = Tile { width, ..full };
        if first + u64::from(width) <= size {
            return Ok(None);
        }
        let found = if width < TILE_WIDTH {
            self.read_bundle(tile)?
        } else {
            None
        };
        if found.is_none() && required > 0 {
            let path = self.what.dir.join(tile.to_string());
            self.fail(&path, None, Some(size), FailureKind::Missing);
        }
        Ok(found.map(|bundle| (tile, bundle)))
    }

    fn read_bundle(&self, tile: Tile) -> Result<Option<Vec<u8>>, ReadError> {
        let path = self.what.dir.join(tile.to_string());
        let bundle = match read_file(&*self.what.disk, &path, BUNDLE_BYTES_MAX as u64) {
            Ok(bundle) => bundle,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::at("read", &path)(error).into()),
        };
        if payload_is(&bundle, tile.width.into()) {
            return Ok(Some(bundle));
        }
        Err(Corruption {
            path,
            offset: 0,
            index: tile.first_leaf().unwrap_or_default(),
            kind: CorruptionKind::Count { width: tile.width },
        }
        .into())
    }

    /// Width of the widest partial form of a bundle, 0 when there is none.
    fn widest_partial(&self, full: Tile) -> u16 {
        let folder = self.what.dir.join(full.partial_dir());
        let names = self.what.disk.list(&folder).unwrap_or_default();
        let widths = names.iter().filter_map(|entry| {
            let tile = Tile::parse(&format!("{}/{}", full.partial_dir(), entry.name))?;
            (!entry.is_dir).then_some(tile.width)
        });
        widths.max().unwrap_or(0)
    }
}

/// The full bundle that holds entry `index`.
pub(crate) fn bundle_at(index: u64) -> Tile {
    full(TileKind::Entries, index / u64::from(TILE_WIDTH))
}
