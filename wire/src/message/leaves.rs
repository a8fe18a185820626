//! Asking for the hashes of leaves, and the answer: what a comparison wants to know of blocks that
//! differ, and a verification of all. Both ends must have [`Features::LEAVES`].
//!
//! [`Features::LEAVES`]: super::Features::LEAVES

use blocks::{DiskId, Epoch};

use super::RequestId;
use crate::layout::{LayoutError, Reader, Writer};
use crate::leaf::{LEAVES_PER_BLOCK, LeafHash};

/// Blocks of a request at most: 16 MiB of disk, an answer of 129 KiB.
pub const LEAF_BLOCKS_MAX: u32 = 256;

/// A request for the hashes of the leaves of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafRequest {
    /// The disk.
    pub disk: DiskId,
    /// The number of the request.
    pub request: RequestId,
    /// Where the hashes are to come from.
    pub from: HashedFrom,
    /// The blocks: `1..=LEAF_BLOCKS_MAX` of them, ascending.
    pub blocks: Vec<u64>,
}

/// Where hashes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HashedFrom {
    /// From what the target keeps of what it has written.
    Kept = 0,
    /// From what its medium holds, which it reads.
    Medium = 1,
}

/// The hashes of the leaves of blocks of the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaves {
    /// The disk.
    pub disk: DiskId,
    /// The request this answers.
    pub request: RequestId,
    /// The epoch of which this is the content.
    pub as_of: Epoch,
    /// In the order in which they were asked for; more than [`LEAF_BLOCKS_MAX`] are not sent.
    pub blocks: Vec<LeavesOfBlock>,
}

/// A block's leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeavesOfBlock {
    /// Leaves of which the medium holds something else than was written to it: a bit each, the
    /// first leaf the lowest.
    pub decayed: u16,
    /// Their hashes; those past the end of the disk are zeroes.
    pub hashes: [LeafHash; LEAVES_PER_BLOCK],
}

impl LeafRequest {
    pub(super) fn write(&self, body: &mut Writer) {
        body.array(&self.disk.0);
        body.u64(self.request.0);
        body.u8(self.from as u8);
        body.u32(u32::try_from(self.blocks.len()).expect("at most LEAF_BLOCKS_MAX"));
        self.blocks.iter().for_each(|block| body.u64(*block));
    }

    pub(super) fn read(body: &mut Reader<'_>) -> Result<Self, LayoutError> {
        let disk = DiskId(body.array()?);
        let request = RequestId(body.u64()?);
        let from = match body.u8()? {
            0 => HashedFrom::Kept,
            1 => HashedFrom::Medium,
            value => return Err(LayoutError::Field { field: "source", value: value.into() }),
        };
        let count = body.u32()?;
        if !(1..=LEAF_BLOCKS_MAX).contains(&count) {
            return Err(LayoutError::Field { field: "count of blocks", value: count.into() });
        }
        let (blocks, _) = body.bytes(count as usize * 8)?.as_chunks::<8>();
        let blocks: Vec<u64> = blocks.iter().map(|block| u64::from_le_bytes(*block)).collect();
        match blocks.windows(2).find(|pair| pair[0] >= pair[1]) {
            Some(pair) => Err(LayoutError::Field { field: "next block", value: pair[1] }),
            None => Ok(Self { disk, request, from, blocks }),
        }
    }
}

impl Leaves {
    pub(super) fn write(&self, body: &mut Writer) {
        let blocks = &self.blocks[..self.blocks.len().min(LEAF_BLOCKS_MAX as usize)];
        body.array(&self.disk.0);
        body.u64(self.request.0);
        body.u64(self.as_of.0);
        body.u32(u32::try_from(blocks.len()).expect("cut to LEAF_BLOCKS_MAX"));
        for block in blocks {
            body.u16(block.decayed);
            block.hashes.iter().for_each(|hash| body.array(hash));
        }
    }

    pub(super) fn read(body: &mut Reader<'_>) -> Result<Self, LayoutError> {
        /// A block's mask and hashes.
        const LEN: usize = 2 + LEAVES_PER_BLOCK * 32;
        let disk = DiskId(body.array()?);
        let request = RequestId(body.u64()?);
        let as_of = Epoch(body.u64()?);
        let count = body.u32()?;
        if count > LEAF_BLOCKS_MAX {
            return Err(LayoutError::Field { field: "count of blocks", value: count.into() });
        }
        let (blocks, _) = body.bytes(count as usize * LEN)?.as_chunks::<LEN>();
        let block = |bytes: &[u8; LEN]| {
            let (hashes, _) = bytes[2..].as_chunks::<32>();
            let decayed = u16::from_le_bytes([bytes[0], bytes[1]]);
            LeavesOfBlock { decayed, hashes: std::array::from_fn(|place| hashes[place]) }
        };
        Ok(Self { disk, request, as_of, blocks: blocks.iter().map(block).collect() })
    }
}
