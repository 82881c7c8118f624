//! The C2SP tlog-tiles layout: where a tile is, and what is in it.
//!
//! Source: C2SP tlog-tiles v0.1.0. A tile of level `L` and number `N` holds up to 256 hashes, each
//! the root of 256^L leaves; an entry bundle holds up to 256 entries, each after its length in two
//! bytes, big-endian.

use std::fmt;

use crate::format::ENTRY_BYTES_MAX;
use crate::format::merkle::{CompactTree, Hash, leaf_hash, perfect_root};
use crate::format::segment::split_payload;

/// Hashes in a full tile, and entries in a full bundle.
pub const TILE_WIDTH: u16 = 256;

/// Tree levels per tile level: 2^8 = 256.
pub const TILE_HEIGHT: u32 = 8;

/// Highest tile level: 64 tree levels / 8 per tile, from 0.
pub const TILE_LEVEL_MAX: u8 = 7;

/// Bytes of a full hash tile: 256 × 32.
pub const HASH_TILE_BYTES: usize = 256 * 32;

/// Most bytes of an entry bundle: 256 × (2 + 65,535).
pub const BUNDLE_BYTES_MAX: usize = 256 * (2 + ENTRY_BYTES_MAX);

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Hashes of this level, 0..=7.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// One tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// Hashes of a level, or entries.
    pub kind: TileKind,
    /// Number of the tile in its level.
    pub n: u64,
    /// How many hashes or entries it holds, 1..=256; 256 is a full tile.
    pub width: u16,
}

impl Tile {
    /// Leaves covered by one hash (or entry) of the tile; `None` past 2^64.
    fn leaves_per_item(self) -> Option<u64> {
        match self.kind {
            TileKind::Entries => Some(1),
            TileKind::Hashes(level) => 1_u64.checked_shl(u32::from(level) * TILE_HEIGHT),
        }
    }

    /// Index of the first leaf covered; `None` past 2^64.
    #[must_use]
    pub fn first_leaf(self) -> Option<u64> {
        self.n
            .checked_mul(u64::from(TILE_WIDTH))?
            .checked_mul(self.leaves_per_item()?)
    }

    /// Index after the last leaf covered; `None` past 2^64.
    #[must_use]
    pub fn end_leaf(self) -> Option<u64> {
        let items = self
            .n
            .checked_mul(u64::from(TILE_WIDTH))?
            .checked_add(self.width.into())?;
        items.checked_mul(self.leaves_per_item()?)
    }

    /// Reads a path below the directory of the log, such as `tile/0/x001/234.p/7`; `None` unless
    /// it is exactly what [`Tile`] displays.
    #[must_use]
    pub fn parse(path: &str) -> Option<Tile> {
        let rest = path.strip_prefix("tile/")?;
        let (kind, rest) = rest.split_once('/')?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes(level.parse().ok().filter(|l| *l <= TILE_LEVEL_MAX)?),
        };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse().ok().filter(|w| *w < TILE_WIDTH)?),
            None => (rest, TILE_WIDTH),
        };
        let mut n: u64 = 0;
        for part in number.split('/') {
            let digits = part.strip_prefix('x').unwrap_or(part);
            n = n.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        let tile = Tile { kind, n, width };
        // One tile, one path: leading zeros, signs, missing or surplus `x` all end here.
        (width > 0 && tile.to_string() == path).then_some(tile)
    }

    /// What this tile holds, given the bytes of one of the same number and at least its width.
    #[must_use]
    pub fn prefix(self, bytes: &[u8]) -> &[u8] {
        let width = usize::from(self.width);
        let len = match self.kind {
            TileKind::Hashes(_) => width * 32,
            TileKind::Entries => split_payload(bytes).take(width).map(|e| 2 + e.len()).sum(),
        };
        &bytes[..len.min(bytes.len())]
    }

    /// The same tile at its full width.
    #[must_use]
    pub fn full(self) -> Tile {
        Tile {
            width: TILE_WIDTH,
            ..self
        }
    }

    /// The directory of the partial forms of this tile, such as `tile/0/x001/234.p`.
    #[must_use]
    pub fn partial_dir(self) -> String {
        format!("{}.p", self.full())
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        // Groups of three digits; all but the last carry an x.
        let digits = self.n.to_string();
        let digits = format!("{digits:0>width$}", width = digits.len().div_ceil(3) * 3);
        for (at, digit) in digits.chars().enumerate() {
            if at % 3 == 0 {
                f.write_str(if at == 0 { "" } else { "/" })?;
                f.write_str(if at + 3 < digits.len() { "x" } else { "" })?;
            }
            write!(f, "{digit}")?;
        }
        if self.width < TILE_WIDTH {
            write!(f, ".p/{}", self.width)
        } else {
            Ok(())
        }
    }
}

/// Every tile a log of `size` entries has: number of full ones and width of the partial one.
#[must_use]
pub fn tiles_at(kind: TileKind, size: u64) -> (u64, u16) {
    let items = match kind {
        TileKind::Entries => size,
        TileKind::Hashes(level) => size >> (u32::from(level) * TILE_HEIGHT),
    };
    // The remainder is below 256, so it fits.
    (
        items / u64::from(TILE_WIDTH),
        (items % u64::from(TILE_WIDTH)) as u16,
    )
}

/// All kinds of tiles: entries, then hashes from the lowest level up.
pub fn kinds() -> impl Iterator<Item = TileKind> {
    std::iter::once(TileKind::Entries).chain((0..=TILE_LEVEL_MAX).map(TileKind::Hashes))
}

fn add_to(levels: &mut Vec<Vec<u8>>, level: usize, hash: Hash) {
    if levels.len() <= level {
        levels.resize_with(level + 1, Vec::new);
    }
    levels[level].extend_from_slice(&hash.0);
}

/// The hashes of one batch.
#[derive(Debug)]
pub(crate) struct HashedBatch {
    /// Those of its entries.
    pub(crate) leaves: Vec<Hash>,
    /// The nodes that stand in tiles above the lowest level, in the order in which entries complete
    /// them.
    pub(crate) nodes: Vec<Hash>,
    /// The tree after it.
    pub(crate) tree: CompactTree,
}

impl HashedBatch {
    /// Adds a batch to the tree.
    pub(crate) fn new(leaves: Vec<Hash>, tree: &mut CompactTree) -> HashedBatch {
        let mut nodes = Vec::new();
        for leaf in &leaves {
            tree.push_with(*leaf, |height, hash| {
                if height > 0 && height % TILE_HEIGHT == 0 {
                    nodes.push(hash);
                }
            });
        }
        HashedBatch {
            leaves,
            nodes,
            tree: tree.clone(),
        }
    }
}

/// Makes tiles out of entries, remembering only what is not yet in a full tile.
#[derive(Debug, Clone, Default)]
pub struct TileBuilder {
    tree: CompactTree,
    bundle: Vec<u8>,
    /// Hashes of the incomplete tile of each level.
    levels: Vec<Vec<u8>>,
}

impl TileBuilder {
    /// A builder for the log without entries.
    #[must_use]
    pub fn new() -> TileBuilder {
        TileBuilder::default()
    }

    /// A builder that goes on after `size` entries: with those of the incomplete bundle, and the
    /// hashes of the incomplete tile of each level that there is.
    pub(crate) fn from_parts(size: u64, bundle: Vec<u8>, levels: Vec<Vec<u8>>) -> TileBuilder {
        let mut subtrees = Vec::new();
        for hashes in levels.iter().rev() {
            let mut hashes = hashes.as_chunks::<32>().0;
            // The incomplete tile is a few perfect subtrees, the largest first.
            while !hashes.is_empty() {
                let (subtree, rest) = hashes.split_at(1 << hashes.len().ilog2());
                subtrees.push(perfect_root(
                    subtree.iter().map(|hash| Hash(*hash)).collect(),
                ));
                hashes = rest;
            }
        }
        TileBuilder {
            tree: CompactTree::from_parts(size, subtrees),
            bundle,
            levels,
        }
    }

    /// What [`TileBuilder::from_parts`] takes.
    pub(crate) fn parts(&self) -> (&[u8], &[Vec<u8>]) {
        (&self.bundle, &self.levels)
    }

    /// The tree over the entries taken so far.
    pub(crate) fn tree(&self) -> &CompactTree {
        &self.tree
    }

    /// Number of entries taken so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The root over the entries taken so far.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.tree.root()
    }

    /// Takes the next entry, of at most 65,535 bytes, and hands over each tile it completes.
    pub fn push(&mut self, entry: &[u8], mut full: impl FnMut(Tile, &[u8])) {
        debug_assert!(entry.len() <= ENTRY_BYTES_MAX);
        self.bundle
            .extend_from_slice(&(entry.len() as u16).to_be_bytes());
        self.bundle.extend_from_slice(entry);
        self.add(leaf_hash(entry));
        let size = self.tree.size();
        if size.is_multiple_of(u64::from(TILE_WIDTH)) {
            self.finish_bundle(size, &mut full);
            self.finish_levels(size, full);
        }
    }

    /// Takes the entries of a frame.
    pub(crate) fn push_payload(&mut self, payload: &[u8], mut full: impl FnMut(Tile, &[u8])) {
        for entry in split_payload(payload) {
            self.push(entry, &mut full);
        }
    }

    /// The same, where all hashes are known. Both are of one frame, which goes on from here.
    pub(crate) fn push_hashed(
        &mut self,
        payload: &[u8],
        batch: HashedBatch,
        mut full: impl FnMut(Tile, &[u8]),
    ) {
        let mut size = self.tree.size();
        let mut nodes = batch.nodes.into_iter();
        for (entry, leaf) in split_payload(payload).zip(batch.leaves) {
            self.bundle
                .extend_from_slice(&(entry.len() as u16).to_be_bytes());
            self.bundle.extend_from_slice(entry);
            add_to(&mut self.levels, 0, leaf);
            size += 1;
            let completed = size.trailing_zeros() / TILE_HEIGHT;
            for (level, node) in (1..=completed as usize).zip(nodes.by_ref()) {
                add_to(&mut self.levels, level, node);
            }
            if completed > 0 {
                self.finish_bundle(size, &mut full);
                self.finish_levels(size, &mut full);
            }
        }
        self.tree = batch.tree;
    }

    /// Takes the next entry by its hash alone, and hands over each tile of hashes it completes.
    pub(crate) fn push_hash(&mut self, leaf: Hash, full: impl FnMut(Tile, &[u8])) {
        self.add(leaf);
        let size = self.tree.size();
        if size.is_multiple_of(u64::from(TILE_WIDTH)) {
            self.finish_levels(size, full);
        }
    }

    fn add(&mut self, leaf: Hash) {
        let levels = &mut self.levels;
        self.tree.push_with(leaf, |height, hash| {
            if height % TILE_HEIGHT == 0 {
                add_to(levels, (height / TILE_HEIGHT) as usize, hash);
            }
        });
    }

    fn finish_bundle(&mut self, size: u64, mut full: impl FnMut(Tile, &[u8])) {
        let tile = Tile {
            kind: TileKind::Entries,
            n: size / u64::from(TILE_WIDTH) - 1,
            width: TILE_WIDTH,
        };
        full(tile, &self.bundle);
        self.bundle.clear();
    }

    fn finish_levels(&mut self, size: u64, mut full: impl FnMut(Tile, &[u8])) {
        for (level, hashes) in (0..=TILE_LEVEL_MAX).zip(&mut self.levels) {
            if hashes.len() == HASH_TILE_BYTES {
                let kind = TileKind::Hashes(level);
                let (count, _) = tiles_at(kind, size);
                full(
                    Tile {
                        kind,
                        n: count - 1,
                        width: TILE_WIDTH,
                    },
                    hashes,
                );
                hashes.clear();
            }
        }
    }

    /// The incomplete tiles at the present size, none of them empty.
    pub fn partial(&self) -> impl Iterator<Item = (Tile, &[u8])> {
        kinds().filter_map(|kind| {
            let (n, width) = tiles_at(kind, self.size());
            let bytes = match kind {
                TileKind::Entries => self.bundle.as_slice(),
                TileKind::Hashes(level) => self.levels.get(usize::from(level))?.as_slice(),
            };
            (width > 0).then_some((Tile { kind, n, width }, bytes))
        })
    }
}
