//! Leaving out what the replica already holds, by the hashes of fixed blocks.
//!
//! A comparison goes over the disk in blocks of [`COMPARE_BLOCK`]; a block whose BLAKE3 hash the
//! replica's block has too is not sent. The whole block is hashed, even where only some of its
//! chunks belong to the epoch: equal blocks have equal chunks, and unequal ones cost a frame that
//! was not needed, never one that was missing.
//!
//! The hashes themselves come from a [`HashSource`]; asking the replica is not done here.

use std::{error::Error, ops::Range};

use blocks::{Extent, Geometry, Sector};
use wire::COMPARE_BLOCK;

use crate::plan::{Batch, Placed, push_joined};

/// The most blocks asked for at once: 256 MiB of disk, 128 KiB of hashes.
pub const HASHES_PER_REQUEST: u32 = 4096;

const BLOCK_SECTORS: u64 = COMPARE_BLOCK.0 / blocks::SECTOR_SIZE;

/// The BLAKE3 hash of a compare block.
pub type BlockHash = [u8; 32];

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

/// The pieces of `batch` in blocks whose hash differs from the replica's.
///
/// `buffer` holds what was read; `replica` holds one hash for each of [`blocks_of`] the batch.
pub(crate) fn changed_pieces(
    batch: &Batch,
    buffer: &[u8],
    replica: &[BlockHash],
    geometry: &Geometry,
) -> Vec<Placed> {
    let mut changed = Vec::new();
    let mut pieces = batch.pieces.iter().peekable();
    let placed = batch.reads.iter().flat_map(|read| {
        blocks_in(read).map(|block| Placed::within(extent_of(block, geometry), *read))
    });
    for (block, hash) in placed.zip(replica) {
        let unchanged = hash_of(&buffer[block.range()]) == *hash;
        while let Some(piece) = pieces.peek() {
            if let Some(part) = piece.overlap(block.extent)
                && !unchanged
            {
                push_joined(&mut changed, part);
            }
            if piece.extent.end() > block.extent.end() {
                break;
            }
            pieces.next();
        }
    }
    changed
}

fn hash_of(block: &[u8]) -> BlockHash {
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
