//! What the committer has hashed, kept until the publisher has made tiles of it.
//!
//! So each entry is hashed once on its way, by whoever hands it over, and each node of the tree once, by
//! the committer. The publisher still reads from the segments what it publishes: that a frame has the
//! checksum it was written with says that it is what was hashed. Sealing hashes all of it once more before
//! a segment goes.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::format::segment::FrameAt;
use crate::format::tile::HashedBatch;
use crate::write::writer::lock;

/// Most hashes of entries kept: 64 MiB of memory, two seconds at a million entries a second. The
/// publisher hashes what is past it.
const KEPT_MAX: usize = 2 * 1024 * 1024;

/// See the module text.
#[derive(Debug, Default)]
pub(crate) struct Hashed(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// In the order of the log, each with its frame's checksum; there may be gaps.
    batches: VecDeque<(u32, HashedBatch)>,
    /// How many hashes of entries they hold.
    count: usize,
}

impl Hashed {
    /// Keeps the hashes of the frame that has this checksum, if there is room.
    pub(crate) fn keep(&self, checksum: u32, batch: HashedBatch) {
        let mut kept = lock(&self.0);
        let count = kept.count + batch.leaves.len();
        if count <= KEPT_MAX {
            kept.count = count;
            kept.batches.push_back((checksum, batch));
        }
    }

    /// Gives back the hashes of a frame, if they are kept and it is as it was written; forgets earlier ones.
    pub(crate) fn take(&self, frame: &FrameAt) -> Option<HashedBatch> {
        let size = frame.header.end();
        let mut kept = lock(&self.0);
        while kept.batches.front()?.1.tree.size() <= size {
            let (checksum, batch) = kept.batches.pop_front()?;
            kept.count -= batch.leaves.len();
            if batch.tree.size() == size {
                return (checksum == frame.checksum).then_some(batch);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::merkle::{CompactTree, leaf_hash};
    use crate::format::segment::FrameHeader;
    use crate::format::tile::{Tile, TileBuilder};

    /// Payload and hashes of `count` entries that follow `tree`.
    fn batch(tree: &mut CompactTree, count: u64) -> (Vec<u8>, HashedBatch) {
        let entries: Vec<_> = (tree.size()..tree.size() + count)
            .map(|index| index.to_string().into_bytes())
            .collect();
        let mut payload = Vec::new();
        for entry in &entries {
            payload.extend_from_slice(&(entry.len() as u16).to_be_bytes());
            payload.extend_from_slice(entry);
        }
        let leaves = entries.iter().map(|entry| leaf_hash(entry)).collect();
        (payload, HashedBatch::new(leaves, tree))
    }

    fn frame(size: u64, checksum: u32) -> FrameAt {
        FrameAt {
            header: FrameHeader {
                epoch: 1,
                nonce: 0,
                first: size - 1,
                durable: 0,
                count: 1,
                payload_bytes: 3,
                root: crate::format::merkle::empty_root(),
            },
            offset: 0,
            checksum,
            padded: true,
        }
    }

    #[test]
    fn tiles_are_the_same_whether_hashes_are_known_or_made() {
        let (mut plain, mut known) = (TileBuilder::new(), TileBuilder::new());
        let (mut made, mut taken) = (Vec::new(), Vec::new());
        let mut tree = CompactTree::new();
        // Past a tile of the second level, in batches of all kinds of sizes.
        let mut counts = [1, 255, 1, 7, 700, 256, 3, 512, 0x1_0000, 1, 300].into_iter();
        for (nth, count) in counts.by_ref().enumerate() {
            let (payload, hashed) = batch(&mut tree, count);
            let keep =
                |into: &mut Vec<_>, tile: Tile, bytes: &[u8]| into.push((tile, bytes.to_vec()));
            plain.push_payload(&payload, |tile, bytes| keep(&mut made, tile, bytes));
            // Hashes may be missing for some.
            if nth % 4 == 3 {
                known.push_payload(&payload, |tile, bytes| keep(&mut taken, tile, bytes));
            } else {
                known.push_hashed(&payload, hashed, |tile, bytes| {
                    keep(&mut taken, tile, bytes)
                });
            }
            assert_eq!(plain.root(), known.root(), "after batch {nth}");
            assert!(plain.partial().eq(known.partial()), "after batch {nth}");
        }
        assert_eq!(made.len(), taken.len());
        assert!(made == taken);
    }

    #[test]
    fn hashes_are_given_only_for_the_frame_that_was_written() {
        let (hashed, mut tree) = (Hashed::default(), CompactTree::new());
        for checksum in 1..=4 {
            hashed.keep(checksum, batch(&mut tree, 1).1);
        }
        assert!(hashed.take(&frame(1, 1)).is_some());
        assert!(hashed.take(&frame(1, 1)).is_none(), "given once");
        assert!(hashed.take(&frame(2, 7)).is_none(), "another frame");
        assert_eq!(hashed.take(&frame(4, 4)).unwrap().tree.size(), 4);
        assert_eq!(lock(&hashed.0).count, 0, "earlier ones are forgotten");
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let (hashed, mut tree) = (Hashed::default(), CompactTree::new());
        let full = HashedBatch {
            leaves: vec![leaf_hash(b"x"); KEPT_MAX],
            nodes: Vec::new(),
            tree: batch(&mut tree, 1).1.tree,
        };
        hashed.keep(1, full);
        hashed.keep(2, batch(&mut tree, 1).1);
        assert!(hashed.take(&frame(2, 2)).is_none());
        hashed.keep(3, batch(&mut tree, 1).1);
        assert!(hashed.take(&frame(3, 3)).is_some());
    }
}
