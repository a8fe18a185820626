//! The two lowest levels that both ends know of a disk's hash tree.
//!
//! A comparison begins with the BLAKE3 hash of each [`COMPARE_BLOCK`]. BLAKE3 is a tree itself, and
//! a *leaf* is its subtree over [`LEAF_LEN`] bytes: the leaf's hash is that subtree's chaining
//! value. So the hash of a block follows from those of its leaves ([`block_hash`]) without the
//! content, and whoever has the whole block hashes it at full speed and never needs its leaves
//! unless it differs.
//!
//! A chaining value depends on where in the block the leaf stands, and is never the hash of a whole
//! input. A block that is a single leaf (the last one of a disk, if it is that short) therefore has
//! no hash that follows from its leaf's.

use std::sync::LazyLock;

use blake3::{
    Hasher,
    hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

use crate::COMPARE_BLOCK;

/// Bytes of a leaf: the last one of a disk may be shorter.
pub const LEAF_LEN: usize = 4096;

/// Leaves of a whole compare block.
pub const LEAVES_PER_BLOCK: usize = 16;

const _: () = assert!((LEAF_LEN * LEAVES_PER_BLOCK) as u64 == COMPARE_BLOCK.0);

/// The hash of a leaf.
pub type LeafHash = [u8; 32];

/// The hash of a compare block: BLAKE3, as anybody computes it.
pub type BlockHash = [u8; 32];

/// The hash of the leaf that is number `place` of its block, counted from 0.
///
/// # Panics
/// If it is empty or longer than a leaf, or if a block has no such place.
pub fn leaf_hash(place: usize, content: &[u8]) -> LeafHash {
    assert!(place < LEAVES_PER_BLOCK && (1..=LEAF_LEN).contains(&content.len()), "a leaf");
    let mut hasher = Hasher::new();
    hasher.set_input_offset((place * LEAF_LEN) as u64).update(content).finalize_non_root()
}

/// The hashes of the whole leaves of a block of zeroes.
static ZERO_LEAVES: LazyLock<[LeafHash; LEAVES_PER_BLOCK]> =
    LazyLock::new(|| std::array::from_fn(|place| leaf_hash(place, &[0; LEAF_LEN])));

static ZERO_BLOCK: LazyLock<BlockHash> =
    LazyLock::new(|| *blake3::hash(&[0; LEAF_LEN * LEAVES_PER_BLOCK]).as_bytes());

/// The hash of a whole leaf of zeroes.
pub fn zero_leaf(place: usize) -> LeafHash {
    ZERO_LEAVES[place]
}

/// The hash of a whole block of zeroes: disks have many, and to see that a block is one is faster
/// than to hash it.
pub fn zero_block() -> BlockHash {
    *ZERO_BLOCK
}

/// The hash of a block from those of its leaves; nothing for a block of one leaf or none.
///
/// # Panics
/// If there are more leaves than a block has.
pub fn block_hash(leaves: &[LeafHash]) -> Option<BlockHash> {
    assert!(leaves.len() <= LEAVES_PER_BLOCK, "the leaves of one block");
    if leaves == *ZERO_LEAVES {
        return Some(zero_block());
    }
    let (left, right) = halves(leaves)?;
    Some(*merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes())
}

fn subtree(leaves: &[LeafHash]) -> LeafHash {
    match halves(leaves) {
        Some((left, right)) => merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash),
        None => leaves[0],
    }
}

/// Where BLAKE3 parts its input: the left half is the largest power of two that leaves something.
fn halves(leaves: &[LeafHash]) -> Option<(&[LeafHash], &[LeafHash])> {
    (leaves.len() > 1).then(|| leaves.split_at(leaves.len().next_power_of_two() / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn leaves(block: &[u8]) -> Vec<LeafHash> {
        let leaves = block.chunks(LEAF_LEN).enumerate();
        leaves.map(|(place, leaf)| leaf_hash(place, leaf)).collect()
    }

    #[test]
    fn the_leaves_of_a_block_give_the_hash_that_everybody_computes() {
        let tails = [512, 1024, 3072, 3584, 4096];
        for len in (1..LEAVES_PER_BLOCK).flat_map(|n| tails.map(|tail| n * LEAF_LEN + tail)) {
            let block = content(len);
            assert_eq!(
                block_hash(&leaves(&block)),
                Some(*blake3::hash(&block).as_bytes()),
                "{len}"
            );
        }
        assert_eq!(block_hash(&leaves(&content(LEAF_LEN))), None, "it is not the root's");
        assert_eq!(block_hash(&[]), None);
    }

    #[test]
    fn a_leaf_counts_where_it_stands() {
        let content = content(LEAF_LEN);
        assert_ne!(leaf_hash(0, &content), leaf_hash(1, &content));
        assert_eq!(zero_leaf(7), leaf_hash(7, &[0; LEAF_LEN]));
        assert_eq!(zero_block(), *blake3::hash(&[0; 65536]).as_bytes());
        assert_eq!(block_hash(&leaves(&[0; 65536])), Some(zero_block()));
    }
}
