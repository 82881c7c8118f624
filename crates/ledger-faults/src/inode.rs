//! What one file holds, what of it is stored, and what a crash leaves of it.

use std::collections::BTreeSet;

use super::SECTOR_BYTES;

#[derive(Debug, Default, Clone)]
pub(super) struct Inode {
    /// What reads see.
    pub(super) cached: Vec<u8>,
    /// What a crash leaves.
    pub(super) stored: Vec<u8>,
    /// Sectors that differ and are still to be stored.
    pub(super) dirty: BTreeSet<usize>,
    /// Whether the cached length is still to be stored.
    pub(super) resized: bool,
    /// How often a sync has lost what was to be stored.
    pub(super) losses: u64,
    pub(super) secret: bool,
}

/// SplitMix64: small, seeded, and good enough to scatter faults.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

impl Inode {
    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if end > self.cached.len() {
            self.cached.resize(end, 0);
            self.resized = true;
        }
        self.cached[offset..end].copy_from_slice(bytes);
        self.dirty
            .extend(offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
    }

    pub(super) fn store(&mut self) {
        if self.resized {
            self.stored.resize(self.cached.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            self.store_sector(sector);
        }
        self.resized = false;
    }

    pub(super) fn store_sector(&mut self, sector: usize) {
        let start = sector * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES)
            .min(self.cached.len())
            .min(self.stored.len());
        if start < end {
            self.stored[start..end].copy_from_slice(&self.cached[start..end]);
        }
    }

    /// Mode 0 keeps all, 1 nothing, others a mix.
    pub(super) fn crash(&mut self, mode: u64, random: &mut Random) {
        let keep = |random: &mut Random| match mode {
            0 => true,
            1 => false,
            _ => random.below(2) == 0,
        };
        if self.resized && keep(random) {
            self.stored.resize(self.cached.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            if keep(random) {
                self.store_sector(sector);
            }
        }
        self.cached = self.stored.clone();
        self.resized = false;
    }
}
