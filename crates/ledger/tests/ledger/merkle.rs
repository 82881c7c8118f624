//! RFC 6962 trees against published vectors, an independent implementation, and each other.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use curfew_ledger::Hash;
use curfew_ledger::merkle::{
    CompactTree, Nodes, ProofError, consistency_proof, empty_root, inclusion_proof, leaf_hash,
    node_hash, root, verify_consistency, verify_growth, verify_inclusion,
};
use curfew_ledger::tile::{TILE_WIDTH, Tile, TileBuilder, TileKind, tiles_at};
use proptest::prelude::*;

/// The eight leaves of the published vectors (transparency-dev/merkle), and the roots 0..=8.
const LEAVES: [&[u8]; 8] = [
    b"",
    &[0x00],
    &[0x10],
    &[0x20, 0x21],
    &[0x30, 0x31],
    &[0x40, 0x41, 0x42, 0x43],
    &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
    &[
        0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e,
        0x6f,
    ],
];

struct Leaves(Vec<Hash>);

impl Nodes for Leaves {
    type Error = std::convert::Infallible;

    fn node(&mut self, height: u32, index: u64) -> Result<Hash, Self::Error> {
        let (from, to) = (index << height, (index + 1) << height);
        let mut hashes = self.0[from as usize..to as usize].to_vec();
        while hashes.len() > 1 {
            hashes = hashes
                .chunks(2)
                .map(|pair| node_hash(&pair[0], &pair[1]))
                .collect();
        }
        Ok(hashes[0])
    }
}

fn leaves(count: u64) -> Leaves {
    Leaves((0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect())
}

#[test]
fn published_vectors() {
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(empty_root().to_string(), empty);
    let empty_leaf = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
    assert_eq!(leaf_hash(b"").to_string(), empty_leaf);
    let mut tree = CompactTree::new();
    assert_eq!(tree.root(), empty_root());
    for leaf in LEAVES {
        tree.push(leaf_hash(leaf));
    }
    let root = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328";
    assert_eq!(tree.root().to_string(), root);
}

#[test]
fn an_independent_implementation_agrees() {
    let mut theirs = MemoryBackedTree::<sha2::Sha256, Vec<u8>>::new();
    let mut ours = CompactTree::new();
    let mut tiles = TileBuilder::new();
    for size in 1..=600_u64 {
        let entry = (size - 1).to_be_bytes().to_vec();
        ours.push(leaf_hash(&entry));
        tiles.push(&entry, |_, _| {});
        theirs.push(entry);
        assert_eq!(
            ours.root().0[..],
            theirs.root().as_bytes()[..],
            "size {size}"
        );
        assert_eq!(tiles.root(), ours.root());
        if size % 37 == 0 {
            for index in (0..size).step_by(11) {
                let proof = inclusion_proof(&mut leaves(size), index, size)
                    .unwrap()
                    .unwrap();
                let bytes: Vec<u8> = proof.iter().flat_map(|hash| hash.0).collect();
                let theirs = theirs.prove_inclusion(index as usize);
                assert_eq!(theirs.as_bytes(), bytes, "index {index} of {size}");
            }
        }
    }
}

proptest! {
    #[test]
    fn inclusion_proofs_prove_one_thing(size in 1_u64..300, pick in any::<u64>(), bit in 0_usize..256) {
        let index = pick % size;
        let mut all = leaves(size);
        let root = root(&mut all, size).unwrap();
        let proof = inclusion_proof(&mut all, index, size).unwrap().unwrap();
        let leaf = all.0[index as usize];
        prop_assert_eq!(verify_inclusion(&leaf, index, size, &proof, &root), Ok(()));
        // Neither another leaf, place or root, nor a longer, shorter or changed proof.
        let mut other = leaf;
        other.0[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify_inclusion(&other, index, size, &proof, &root).is_err());
        prop_assert!(verify_inclusion(&leaf, index, size, &proof, &other).is_err());
        prop_assert!(verify_inclusion(&leaf, size, size, &proof, &root).is_err());
        for wrong in (0..size).filter(|wrong| *wrong != index) {
            prop_assert!(verify_inclusion(&leaf, wrong, size, &proof, &root).is_err());
        }
        let mut longer = proof.clone();
        longer.push(leaf);
        prop_assert!(verify_inclusion(&leaf, index, size, &longer, &root).is_err());
        for at in 0..proof.len() {
            let mut changed = proof.clone();
            changed[at].0[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify_inclusion(&leaf, index, size, &changed, &root).is_err());
            let mut shorter = proof.clone();
            shorter.remove(at);
            prop_assert!(verify_inclusion(&leaf, index, size, &shorter, &root).is_err());
        }
    }

    #[test]
    fn consistency_proofs_prove_one_thing(second in 0_u64..300, pick in any::<u64>(), bit in 0_usize..256) {
        let first = pick % (second + 1);
        let mut all = leaves(second);
        let old = root(&mut all, first).unwrap();
        let new = root(&mut all, second).unwrap();
        let proof = consistency_proof(&mut all, first, second).unwrap().unwrap();
        prop_assert_eq!(verify_growth(first, second, &proof, &old, &new), Ok(()));
        let mut other = old;
        other.0[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify_growth(first, second, &proof, &other, &new).is_err());
        if first > 0 {
            prop_assert!(verify_growth(first, second, &proof, &old, &other).is_err());
        }
        let mut longer = proof.clone();
        longer.push(other);
        prop_assert!(verify_growth(first, second, &longer, &old, &new).is_err());
        for at in 0..proof.len() {
            let mut changed = proof.clone();
            changed[at].0[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify_growth(first, second, &changed, &old, &new).is_err());
        }
        prop_assert!(verify_growth(second + 1, second, &[], &old, &new).is_err());
        // The published check is the same, but for what has nothing to prove.
        let strict = verify_consistency(first, second, &proof, &old, &new);
        let is_nothing = first == 0 && second > 0;
        prop_assert_eq!(strict, if is_nothing { Err(ProofError::Range) } else { Ok(()) });
    }

    #[test]
    fn tile_paths_are_one_to_one(n in any::<u64>(), level in 0_u8..=7, width in 1_u16..=256) {
        for kind in [TileKind::Entries, TileKind::Hashes(level)] {
            let tile = Tile { kind, n, width };
            prop_assert_eq!(Tile::parse(&tile.to_string()), Some(tile));
        }
    }
}

#[test]
fn tile_paths_of_the_specification() {
    let tile = Tile {
        kind: TileKind::Hashes(0),
        n: 1_234_067,
        width: TILE_WIDTH,
    };
    assert_eq!(tile.to_string(), "tile/0/x001/x234/067");
    let tile = Tile {
        kind: TileKind::Entries,
        n: 0,
        width: 7,
    };
    assert_eq!(tile.to_string(), "tile/entries/000.p/7");
    for wrong in [
        "tile/0/1",
        "tile/0/x000/001",
        "tile/00/001",
        "tile/8/000",
        "tile/0/000.p/0",
        "tile/+0/000",
        "tile/0/000.p/256",
        "tile/0/000.p/07",
        "tile/0/001/x234",
        "tile/0/000/",
        "tiles/0/000",
        "tile/0/x001/x234",
        "tile/0/0000",
        "tile/data/000",
    ] {
        assert_eq!(Tile::parse(wrong), None, "{wrong}");
    }
    // The example of the specification: 70,000 entries.
    assert_eq!(tiles_at(TileKind::Hashes(0), 70_000), (273, 112));
    assert_eq!(tiles_at(TileKind::Hashes(1), 70_000), (1, 17));
    assert_eq!(tiles_at(TileKind::Hashes(2), 70_000), (0, 1));
    assert_eq!(tiles_at(TileKind::Hashes(3), 70_000), (0, 0));
    assert_eq!(tiles_at(TileKind::Hashes(1), 256), (0, 1));
}
