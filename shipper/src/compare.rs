//! Leaving out what the replica already holds, by the hashes of fixed blocks.
//!
//! A comparison goes over the disk in blocks of [`COMPARE_BLOCK`]; a block whose BLAKE3 hash the
//! replica's block has too is not sent. The whole block is hashed, even where only some of its
//! chunks belong to the epoch: equal blocks have equal chunks, and unequal ones cost a frame that
//! was not needed, never one that was missing. Of a block that differs, the leaves that do are sent,
//! if the replica can tell; else all of it.
//!
//! The hashes themselves come from [`ReplicaHashes`]; asking the replica is not done here.

use std::{error::Error, ops::Range};

use blocks::{Extent, Geometry, Sector};
pub use wire::leaf::BlockHash;
use wire::{
    COMPARE_BLOCK,
    leaf::{LEAF_LEN, LEAVES_PER_BLOCK, LeafHash, leaf_hash, zero_block},
};

use crate::{
    plan::{Batch, Placed, push_joined},
    zeroes::is_zero,
};

/// The most blocks asked for at once: 256 MiB of disk, 128 KiB of hashes.
pub const HASHES_PER_REQUEST: u32 = 4096;

const BLOCK_SECTORS: u64 = COMPARE_BLOCK.0 / blocks::SECTOR_SIZE;

const LEAF_SECTORS: u64 = LEAF_LEN as u64 / blocks::SECTOR_SIZE;

/// The hashes of a block's leaves; what lies past the end of the disk may be anything.
pub type LeavesOfBlock = [LeafHash; LEAVES_PER_BLOCK];

/// A half-open range of compare blocks, from the start of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRange {
    /// The first block.
    pub first: u64,
    /// How many: at least 1, at most [`HASHES_PER_REQUEST`].
    pub count: u32,
}

/// Why a replica's hashes could not be had.
pub type HashSourceError = Box<dyn Error + Send + Sync>;

/// Where a replica's hashes come from: exactly one for each block of the range, in order.
///
/// They must be of the replica's content after every earlier epoch of the disk was applied: a
/// hash of older content makes a block look unchanged that an epoch under way will change.
///
/// It is called on a thread of its own and may block, but not for ever: dropping the engine waits
/// for it.
pub type HashSource = Box<dyn FnMut(BlockRange) -> Result<Vec<BlockHash>, HashSourceError> + Send>;

/// Where the hashes of leaves come from: those of each block, which ascend, in order. Otherwise as
/// a [`HashSource`].
pub type LeafSource = Box<dyn FnMut(&[u64]) -> Result<Vec<LeavesOfBlock>, HashSourceError> + Send>;

/// What a replica tells of itself.
pub struct ReplicaHashes {
    /// Of its blocks.
    pub blocks: HashSource,
    /// Of the leaves of blocks, if it can.
    pub leaves: Option<LeafSource>,
}

/// The compare blocks that a batch reads, in order. Reads of a comparison start at blocks.
pub(crate) fn blocks_of(batch: &Batch) -> impl Iterator<Item = u64> {
    batch.reads.iter().flat_map(blocks_in)
}

fn blocks_in(read: &Placed) -> Range<u64> {
    read.extent.start.0 / BLOCK_SECTORS..read.extent.end().0.div_ceil(BLOCK_SECTORS)
}

/// The sectors of a compare block of a disk.
fn extent_of(block: u64, geometry: &Geometry) -> Extent {
    let start = block * BLOCK_SECTORS;
    let end = (start + BLOCK_SECTORS).min(geometry.sectors());
    Extent { start: Sector(start), sectors: end - start }
}

/// The blocks of a batch whose hash is not the replica's, placed in the batch's buffer.
///
/// `buffer` holds what was read; `replica` holds one hash for each of [`blocks_of`] the batch.
pub(crate) fn differing_blocks(
    batch: &Batch,
    buffer: &[u8],
    replica: &[BlockHash],
    geometry: &Geometry,
) -> Vec<Placed> {
    let blocks = batch.reads.iter().flat_map(|read| {
        blocks_in(read).map(|block| Placed::within(extent_of(block, geometry), *read))
    });
    let differs = |(block, hash): &(Placed, &BlockHash)| hash_of(&buffer[block.range()]) != **hash;
    blocks.zip(replica).filter(differs).map(|(block, _)| block).collect()
}

/// The pieces of `batch` in blocks whose hash differs from the replica's, as above.
pub(crate) fn changed_pieces(
    batch: &Batch,
    buffer: &[u8],
    replica: &[BlockHash],
    geometry: &Geometry,
) -> Vec<Placed> {
    pieces_within(&batch.pieces, &differing_blocks(batch, buffer, replica, geometry))
}

/// What of `pieces` lies in `parts`; both ascend.
fn pieces_within(pieces: &[Placed], parts: &[Placed]) -> Vec<Placed> {
    let mut within = Vec::new();
    let mut pieces = pieces.iter().peekable();
    for part in parts {
        while let Some(piece) = pieces.peek() {
            if let Some(common) = piece.overlap(part.extent) {
                push_joined(&mut within, common);
            }
            if piece.extent.end() > part.extent.end() {
                break;
            }
            pieces.next();
        }
    }
    within
}

/// The blocks of a batch that differ, on their own.
#[derive(Debug)]
pub(crate) struct Differing {
    /// Their numbers, ascending.
    pub(crate) blocks: Vec<u64>,
    /// Their content, one after the other.
    pub(crate) content: Vec<u8>,
    /// The sectors of each, placed in `content`.
    placed: Vec<Placed>,
    /// What of them belongs to the epoch.
    pieces: Vec<Placed>,
}

impl Differing {
    /// Copies blocks of a batch out of its buffer.
    pub(crate) fn new(batch: &Batch, buffer: &[u8], blocks: &[Placed]) -> Self {
        let (mut placed, mut content) = (Vec::new(), Vec::new());
        for block in blocks {
            placed.push(Placed { extent: block.extent, at: content.len() });
            content.extend_from_slice(&buffer[block.range()]);
        }
        let of_epoch = pieces_within(&batch.pieces, blocks);
        let mut pieces = Vec::new();
        for block in &placed {
            let parts = of_epoch.iter().filter_map(|piece| block.overlap(piece.extent));
            parts.for_each(|part| push_joined(&mut pieces, part));
        }
        let blocks = blocks.iter().map(|block| block.extent.start.0 / BLOCK_SECTORS).collect();
        Self { blocks, content, placed, pieces }
    }

    /// The pieces in leaves whose hash differs from the replica's, placed in the content.
    pub(crate) fn changed_pieces(&self, replica: &[LeavesOfBlock]) -> Vec<Placed> {
        let mut differing = Vec::new();
        for (block, replica) in self.placed.iter().zip(replica) {
            let content = self.content[block.range()].chunks(LEAF_LEN);
            for (place, (content, hash)) in content.zip(replica).enumerate() {
                if leaf_hash(place, content) != *hash {
                    let start = Sector(block.extent.start.0 + place as u64 * LEAF_SECTORS);
                    let sectors = content.len() as u64 / blocks::SECTOR_SIZE;
                    push_joined(&mut differing, Placed::within(Extent { start, sectors }, *block));
                }
            }
        }
        pieces_within(&self.pieces, &differing)
    }
}

fn hash_of(block: &[u8]) -> BlockHash {
    if block.len() as u64 == COMPARE_BLOCK.0 && is_zero(block) {
        return zero_block();
    }
    *blake3::hash(block).as_bytes()
}

/// The range to ask for next: from `first` over the blocks that are needed after it, in order, as
/// far as one request goes.
pub(crate) fn next_range(first: u64, needed: impl Iterator<Item = u64>) -> BlockRange {
    /// How many blocks that nobody needs are asked for rather than making another request.
    const SLACK: u64 = 256;
    let mut end = first + 1;
    for block in needed.skip_while(|block| *block <= first) {
        if block - first >= u64::from(HASHES_PER_REQUEST) || block - end > SLACK {
            break;
        }
        end = block + 1;
    }
    let count = u32::try_from(end - first).expect("at most HASHES_PER_REQUEST");
    BlockRange { first, count }
}

#[cfg(test)]
mod tests;
