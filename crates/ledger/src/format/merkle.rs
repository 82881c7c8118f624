//! RFC 6962 Merkle trees: hashing, the growing tree, proofs and their verification.
//!
//! Source: RFC 6962 section 2.1 (the same as RFC 9162 section 2.1). SHA-256 throughout.

use std::fmt;

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

/// Highest a tree of at most 2^64 leaves can be, and so the longest proof.
pub const HEIGHT_MAX: usize = 64;

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What SHA-256 starts from (FIPS 180-4 section 5.3.3).
pub(crate) const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The blocks of a message that is laid out as a whole: nearly all entries have under 500 bytes.
const LAID_OUT_BLOCKS: usize = 8;

/// What padding adds at least: a mark and the length (FIPS 180-4 section 5.1.1).
pub(crate) const PADDING_BYTES: usize = 9;

/// SHA-256 of a message of `len` bytes that stands in the first of these blocks, zeros behind it.
///
/// Laid out as a whole and compressed by one call, a short message takes a tenth less time than
/// when it is handed over piece by piece.
fn laid_out_hash<const BLOCKS: usize>(mut blocks: [[u8; 64]; BLOCKS], len: usize) -> Hash {
    let bytes = blocks.as_flattened_mut();
    let end = (len + PADDING_BYTES).next_multiple_of(64);
    bytes[len] = 0x80;
    bytes[end - 8..end].copy_from_slice(&(8 * len as u64).to_be_bytes());
    let mut state = START;
    compress256(&mut state, &blocks[..end / 64]);
    hash_of(state)
}

/// What the last state is as a hash.
pub(crate) fn hash_of(state: [u32; 8]) -> Hash {
    let mut hash = [0; 32];
    for (bytes, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    Hash(hash)
}

/// SHA-256(0x00 ‖ entry).
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let len = 1 + entry.len();
    if len + PADDING_BYTES <= LAID_OUT_BLOCKS * 64 {
        let mut blocks = [[0; 64]; LAID_OUT_BLOCKS];
        blocks.as_flattened_mut()[1..len].copy_from_slice(entry);
        return laid_out_hash(blocks, len);
    }
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(entry);
    Hash(hash.finalize().into())
}

/// SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut blocks = [[0; 64]; 2];
    let node = blocks.as_flattened_mut();
    node[0] = 1;
    node[1..33].copy_from_slice(&left.0);
    node[33..65].copy_from_slice(&right.0);
    laid_out_hash(blocks, 65)
}

/// The root of the tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    Hash(Sha256::digest([]).into())
}

/// A tree that grows leaf by leaf and remembers only its right edge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompactTree {
    size: u64,
    /// Roots of the perfect subtrees that make up the tree, largest first: one per set bit of
    /// `size`.
    subtrees: Vec<Hash>,
}

impl CompactTree {
    /// The tree without leaves.
    #[must_use]
    pub fn new() -> CompactTree {
        CompactTree::default()
    }

    /// The tree of `size` leaves whose perfect subtrees have these roots, largest first.
    pub(crate) fn from_parts(size: u64, subtrees: Vec<Hash>) -> CompactTree {
        debug_assert_eq!(subtrees.len(), size.count_ones() as usize);
        CompactTree { size, subtrees }
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf hash.
    pub fn push(&mut self, leaf: Hash) {
        self.push_with(leaf, |_, _| {});
    }

    /// Adds a leaf hash and hands over each perfect subtree it completes, as (height, root),
    /// lowest first; the leaf itself is of height 0.
    pub fn push_with(&mut self, leaf: Hash, mut completed: impl FnMut(u32, Hash)) {
        completed(0, leaf);
        let mut node = leaf;
        // As many merges as `size` has trailing ones, as in a binary counter.
        for height in 1..=self.size.trailing_ones() {
            if let Some(left) = self.subtrees.pop() {
                node = node_hash(&left, &node);
                completed(height, node);
            }
        }
        self.subtrees.push(node);
        self.size += 1;
    }

    /// The Merkle tree hash.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut subtrees = self.subtrees.iter().rev();
        match subtrees.next() {
            None => empty_root(),
            Some(last) => subtrees.fold(*last, |right, left| node_hash(left, &right)),
        }
    }
}

/// The root over nodes of one height, of which there are a power of two.
pub(crate) fn perfect_root(mut nodes: Vec<Hash>) -> Hash {
    debug_assert!(nodes.len().is_power_of_two());
    while nodes.len() > 1 {
        let pairs = nodes.as_chunks::<2>().0;
        nodes = pairs.iter().map(|[l, r]| node_hash(l, r)).collect();
    }
    nodes.pop().unwrap_or_else(empty_root)
}

/// Gives the root of the perfect subtree over leaves `index << height .. (index + 1) << height`.
pub trait Nodes {
    /// Why a node could not be given.
    type Error;

    /// See the trait.
    ///
    /// # Errors
    /// Whatever stands in the way, e.g. a file that cannot be read.
    fn node(&mut self, height: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// Largest power of two below `n`; `n` must be at least 2.
fn split_point(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// Root of the tree over leaves `start..start + len`, where RFC 6962 has such a subtree.
fn range_root<N: Nodes>(nodes: &mut N, start: u64, len: u64) -> Result<Hash, N::Error> {
    if len == 0 {
        return Ok(empty_root());
    }
    if len.is_power_of_two() {
        return nodes.node(len.ilog2(), start >> len.ilog2());
    }
    let k = split_point(len);
    let left = range_root(nodes, start, k)?;
    let right = range_root(nodes, start + k, len - k)?;
    Ok(node_hash(&left, &right))
}

/// The root of the first `size` leaves.
///
/// # Errors
/// Those of `nodes`.
pub fn root<N: Nodes>(nodes: &mut N, size: u64) -> Result<Hash, N::Error> {
    range_root(nodes, 0, size)
}

/// The proof that leaf `index` is in the tree of `size` leaves, leaf side first; `None` unless
/// `index < size`.
///
/// # Errors
/// Those of `nodes`.
pub fn inclusion_proof<N: Nodes>(
    nodes: &mut N,
    index: u64,
    size: u64,
) -> Result<Option<Vec<Hash>>, N::Error> {
    if index >= size {
        return Ok(None);
    }
    let (mut start, mut len) = (0, size);
    let mut proof = Vec::new();
    while len > 1 {
        let k = split_point(len);
        if index - start < k {
            proof.push(range_root(nodes, start + k, len - k)?);
            len = k;
        } else {
            proof.push(range_root(nodes, start, k)?);
            start += k;
            len -= k;
        }
    }
    proof.reverse();
    Ok(Some(proof))
}

/// The proof that the tree of `first` leaves is a prefix of that of `second`; `None` when
/// `first > second`. Empty when `first` is 0 (see [`verify_growth`]) or equal to `second`.
///
/// # Errors
/// Those of `nodes`.
pub fn consistency_proof<N: Nodes>(
    nodes: &mut N,
    first: u64,
    second: u64,
) -> Result<Option<Vec<Hash>>, N::Error> {
    if first > second {
        return Ok(None);
    }
    if first == 0 || first == second {
        return Ok(Some(Vec::new()));
    }
    let (mut start, mut len) = (0, second);
    let mut proof = Vec::new();
    // RFC 6962 2.1.2, SUBPROOF(m, D[n], b) without the recursion.
    while first - start != len {
        let k = split_point(len);
        if first - start <= k {
            proof.push(range_root(nodes, start + k, len - k)?);
            len = k;
        } else {
            proof.push(range_root(nodes, start, k)?);
            start += k;
            len -= k;
        }
    }
    // At the left edge the verifier knows this root: it is that of the first tree.
    if start != 0 {
        proof.push(range_root(nodes, start, len)?);
    }
    proof.reverse();
    Ok(Some(proof))
}

/// Why a proof was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The sizes or the index make no sense together.
    #[error("the sizes or the index of the proof make no sense together")]
    Range,
    /// Too few or too many hashes.
    #[error("the proof has the wrong length")]
    Length,
    /// The proof leads to another root.
    #[error("the proof leads to another root")]
    Root,
}

/// Checks that `leaf` is at `index` of the tree with `size` leaves and `root`.
///
/// Source: RFC 9162 section 2.1.3.2.
///
/// # Errors
/// See [`ProofError`].
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Range);
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    match (last == 0, hash == *root) {
        (false, _) => Err(ProofError::Length),
        (true, false) => Err(ProofError::Root),
        (true, true) => Ok(()),
    }
}

/// Checks that the tree with `first` leaves and `first_root` is a prefix of the one with `second`
/// leaves and `second_root`. From no leaves to some there is nothing to prove, and it is refused
/// ([`ProofError::Range`]): such a tree is a prefix of every other, whatever the proof says. Who goes on
/// from a tree of its own, which may be that one, asks [`verify_growth`].
///
/// Source: RFC 9162 section 2.1.4.2; like RFC 6962 section 2.1.2 it defines proofs from `0 < first`
/// alone. Equal sizes as in the vectors of transparency-dev/merkle.
///
/// # Errors
/// See [`ProofError`].
pub fn verify_consistency(
    first: u64,
    second: u64,
    proof: &[Hash],
    first_root: &Hash,
    second_root: &Hash,
) -> Result<(), ProofError> {
    if first > second || (first == 0 && second > 0) {
        return Err(ProofError::Range);
    }
    if first == second {
        same_tree(proof, first_root, second_root)?;
        let is_possible = first > 0 || *first_root == empty_root();
        return is_possible.then_some(()).ok_or(ProofError::Root);
    }
    let (mut node, mut last) = (first - 1, second - 1);
    let shift = node.trailing_ones();
    node >>= shift;
    last >>= shift;
    let mut rest = proof.iter();
    // A first tree that is a perfect subtree of the second is left out of the proof.
    let seed = if first.is_power_of_two() {
        *first_root
    } else {
        *rest.next().ok_or(ProofError::Length)?
    };
    let (mut first_hash, mut second_hash) = (seed, seed);
    for sibling in rest {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node & 1 == 1 || node == last {
            first_hash = node_hash(sibling, &first_hash);
            second_hash = node_hash(sibling, &second_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            second_hash = node_hash(&second_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    match (
        last == 0,
        first_hash == *first_root && second_hash == *second_root,
    ) {
        (false, _) => Err(ProofError::Length),
        (true, false) => Err(ProofError::Root),
        (true, true) => Ok(()),
    }
}

/// Checks that a tree goes on from the one of `first` leaves that whoever asks has seen or made: a
/// witness from what it cosigned, an archive from what it covers. From the tree without leaves any goes
/// on, with no proof: it must only have been that one. `first` must not be taken from whoever gives the
/// proof.
///
/// Source: [`verify_consistency`]; C2SP tlog-witness for `first == 0`, where the proof must be empty.
///
/// # Errors
/// See [`ProofError`].
pub fn verify_growth(
    first: u64,
    second: u64,
    proof: &[Hash],
    first_root: &Hash,
    second_root: &Hash,
) -> Result<(), ProofError> {
    if first == 0 && second > 0 {
        return same_tree(proof, first_root, &empty_root());
    }
    verify_consistency(first, second, proof, first_root, second_root)
}

/// Checks that two roots are one, for which there is no proof to be given.
fn same_tree(proof: &[Hash], one: &Hash, other: &Hash) -> Result<(), ProofError> {
    match (proof.is_empty(), one == other) {
        (false, _) => Err(ProofError::Length),
        (true, false) => Err(ProofError::Root),
        (true, true) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_every_length_are_hashed_alike() {
        let entry: Vec<u8> = (0..2 * 64 * LAID_OUT_BLOCKS).map(|at| at as u8).collect();
        for len in 0..=entry.len() {
            let (entry, mut message) = (&entry[..len], vec![0]);
            message.extend_from_slice(entry);
            let hash = Hash(Sha256::digest(message).into());
            assert_eq!(leaf_hash(entry), hash, "{len} bytes");
        }
        let (left, right) = (leaf_hash(b"left"), leaf_hash(b"right"));
        let node = [&[1][..], &left.0, &right.0].concat();
        assert_eq!(node_hash(&left, &right).0, Sha256::digest(node)[..]);
    }
}
