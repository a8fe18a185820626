//! Hashes of compare blocks and of their leaves: what a source compares its own content with.
//!
//! A source leaves out a block whose hash is equal. So what is hashed must be durable and must not
//! be about to change: it is the content of the newest durable epoch, of which unsynced remains of
//! a seed that was given up are synced first.
//!
//! The base is not read for it: the hashes of its leaves are kept ([`LeafTable`]). Read are the
//! leaves that a delta covers which is not in the base yet, and those of which no hash is kept,
//! which then is.
//!
//! [`LeafTable`]: crate::leaves::LeafTable

use std::ops::Range;

use blocks::{Epoch, Extent, Sector};
use storage::StorageError;
use wire::{
    COMPARE_BLOCK,
    leaf::{BlockHash, LEAF_LEN, LEAVES_PER_BLOCK, LeafHash, block_hash},
    message::{HASH_COUNT_MAX, HashedFrom, LEAF_BLOCKS_MAX, LeavesOfBlock},
};

use crate::{
    Disk, MustReopenError, ReadError,
    catalog::{CatalogError, Record},
    disk::DiskShared,
    error::FailureClass,
    leaves::{self, LeafIndex},
    view::{LayerError, Layers},
};

/// Leaves that are read at once: 1 MiB.
const LEAVES_PER_READ: u64 = 256;
/// Decoded frames that are kept while blocks are hashed.
const CACHE_BYTES: usize = 16 << 20;

/// Hashes of neighbouring compare blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockHashes {
    /// The epoch of which this is the content.
    pub as_of: Epoch,
    /// The hashes in order of the blocks.
    pub hashes: Vec<BlockHash>,
}

/// Hashes of the leaves of compare blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockLeaves {
    /// The epoch of which this is the content.
    pub as_of: Epoch,
    /// In the order in which the blocks were asked for.
    pub blocks: Vec<LeavesOfBlock>,
}

/// Hashes that can't be given.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Blocks past the end of the disk, or too many at once.
    #[error("{count} blocks from block {first}: at most {limit}, and a disk of {blocks}")]
    Range {
        /// The first block asked for.
        first: u64,
        /// How many were asked for.
        count: u32,
        /// How many may be asked for at once.
        limit: u32,
        /// How many the disk has.
        blocks: u64,
    },
    /// A seed is being written to the base.
    #[error("epoch {0} is being written to the base")]
    Seeding(Epoch),
    /// A delta can't be read.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The content can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The base can't be synced.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The catalogue can't be changed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// See there.
    #[error(transparent)]
    MustReopen(#[from] MustReopenError),
}

impl HashError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Range { .. } | Self::Seeding(_) => FailureClass::Refused,
            Self::Layer(error) => error.class(),
            Self::Read(error) => error.class(),
            Self::Storage(error) => FailureClass::of_storage(error),
            Self::Catalog(error) => error.class(),
            Self::MustReopen(_) => FailureClass::StoreFailed,
        }
    }
}

impl Disk {
    /// The hashes of `count` compare blocks from block `first`, of the newest durable content. The
    /// last block of a disk may be short and is hashed as it is.
    ///
    /// The hashes hold for the epoch they name. A source that has later epochs under way must leave
    /// out nothing by them that those hold.
    pub fn hashes(&self, first: u64, count: u32) -> Result<BlockHashes, HashError> {
        let blocks = self.blocks();
        let (limit, end) = (HASH_COUNT_MAX, first.checked_add(count.into()));
        let Some(end) = end.filter(|end| *end <= blocks && count <= limit) else {
            return Err(HashError::Range { first, count, limit, blocks });
        };
        self.shared.with_newest(|newest| {
            let hashes = newest.block_hashes(first..end)?;
            newest.keep_learnt()?;
            Ok(BlockHashes { as_of: newest.as_of, hashes })
        })
    }

    /// The hashes of the leaves of compare blocks, otherwise as [`Self::hashes`]. If they are to come
    /// from the medium, all that is hashed is read, and held against what is kept; what is kept is
    /// corrected, so that a comparison finds what the medium has lost.
    pub fn leaves(&self, from: HashedFrom, of: &[u64]) -> Result<BlockLeaves, HashError> {
        let (blocks, limit) = (self.blocks(), LEAF_BLOCKS_MAX);
        let count = u32::try_from(of.len()).unwrap_or(u32::MAX);
        let past = of.iter().find(|block| **block >= blocks);
        if let Some(first) = past.or(of.first().filter(|_| count > limit)).copied() {
            return Err(HashError::Range { first, count, limit, blocks });
        }
        self.shared.with_newest(|newest| {
            let leaves = of.iter().map(|block| newest.leaves_of_block(*block, from));
            let blocks = leaves.collect::<Result<_, HashError>>()?;
            Ok(BlockLeaves { as_of: newest.as_of, blocks })
        })
    }

    fn blocks(&self) -> u64 {
        self.geometry().len().0.div_ceil(COMPARE_BLOCK.0)
    }
}

/// The content of the newest durable epoch, for as long as nothing is folded.
struct Newest<'a> {
    disk: &'a DiskShared,
    as_of: Epoch,
    layers: Layers,
}

impl DiskShared {
    fn with_newest<T>(
        &self,
        look: impl FnOnce(&Newest<'_>) -> Result<T, HashError>,
    ) -> Result<T, HashError> {
        // Held to the end, so that no fold changes the base below the reads.
        let _folding = self.lock_folding();
        let as_of = {
            let books = self.books();
            books.check_health()?;
            if let Some(epoch) = books.seeding {
                return Err(HashError::Seeding(epoch));
            }
            books.catalog.record().state.last_durable
        };
        self.taker.base.sync_if_needed().inspect_err(|error| self.note_failure(error))?;
        look(&Newest { disk: self, as_of, layers: self.layers_at(as_of, CACHE_BYTES)? })
    }
}

impl Newest<'_> {
    fn block_hashes(&self, blocks: Range<u64>) -> Result<Vec<BlockHash>, HashError> {
        let leaves = self.leaf_hashes(self.leaves_in(blocks.clone()))?;
        let of_block = blocks.zip(leaves.chunks(LEAVES_PER_BLOCK));
        let hashes = of_block.map(|(block, leaves)| match block_hash(leaves) {
            Some(hash) => Ok(hash),
            None => Ok(*blake3::hash(&self.read(self.leaves_in(block..block + 1))?).as_bytes()),
        });
        hashes.collect()
    }

    fn leaves_of_block(&self, block: u64, from: HashedFrom) -> Result<LeavesOfBlock, HashError> {
        let leaves = self.leaves_in(block..block + 1);
        let kept = self.leaf_hashes(leaves.clone())?;
        let mut found = kept.clone();
        if from == HashedFrom::Medium {
            self.hash_leaves(leaves.clone(), &mut found)?;
        }
        let mut of_block = LeavesOfBlock { decayed: 0, hashes: Default::default() };
        for (place, (leaf, (found, kept))) in leaves.zip(found.iter().zip(&kept)).enumerate() {
            of_block.hashes[place] = *found;
            if found != kept {
                // Of the base: what is in deltas was read both times.
                of_block.decayed |= 1 << place;
                self.disk.taker.leaves.correct(leaf, found)?;
            }
        }
        Ok(of_block)
    }

    /// The hashes of neighbouring leaves: those that are kept, and the others of what is read.
    fn leaf_hashes(&self, wanted: Range<LeafIndex>) -> Result<Vec<LeafHash>, HashError> {
        let table = &self.disk.taker.leaves;
        let known = wanted.start..wanted.end.min(table.known()).max(wanted.start);
        let mut hashes = table.read(known.clone())?;
        hashes.resize(index(&wanted), LeafHash::default());
        let covered = self.layers.within(table.extent_of(&known)).map(|s| s.extent());
        let unknown = table.extent_of(&(known.end..wanted.end));
        let mut next = wanted.start;
        for extent in covered.chain((!unknown.is_empty()).then_some(unknown)) {
            let touched = leaves::touched_by(extent);
            let run = touched.start.max(next)..touched.end.min(wanted.end);
            if !run.is_empty() {
                next = run.end;
                let place = index(&(wanted.start..run.start));
                self.hash_leaves(run.clone(), &mut hashes[place..place + index(&run)])?;
            }
        }
        if !unknown.is_empty() {
            // A hash that can't be kept is asked for again.
            let _ = table.learn(known.end, &hashes[index(&known)..]);
        }
        Ok(hashes)
    }

    fn hash_leaves(&self, leaves: Range<LeafIndex>, to: &mut [LeafHash]) -> Result<(), HashError> {
        let mut to = to.iter_mut();
        let mut start = leaves.start;
        while start < leaves.end {
            let part = start..leaves.end.min(start + LEAVES_PER_READ);
            let content = self.read(part.clone())?;
            for (leaf, content) in part.clone().zip(content.chunks(LEAF_LEN)) {
                to.next()
                    .expect("a place for each leaf")
                    .copy_from_slice(&leaves::hash(leaf, content));
            }
            start = part.end;
        }
        Ok(())
    }

    fn read(&self, leaves: Range<LeafIndex>) -> Result<Vec<u8>, ReadError> {
        let Extent { start, sectors } = self.disk.taker.leaves.extent_of(&leaves);
        let len = Extent { start: Sector(0), sectors }.len().0;
        let mut content = vec![0; usize::try_from(len).expect("a part of what fits in memory")];
        self.disk.read_newest(&self.layers, start, &mut content)?;
        Ok(content)
    }

    /// Lets a crash leave in force what was learnt, once nothing is left to learn.
    fn keep_learnt(&self) -> Result<(), HashError> {
        let table = &self.disk.taker.leaves;
        let hashed = self.disk.books().catalog.record().hashed;
        if hashed == table.leaves() || table.known() < table.leaves() {
            return Ok(());
        }
        table.sync_if_needed().inspect_err(|error| self.disk.note_failure(error))?;
        let mut books = self.disk.books();
        let record = books.catalog.record().clone();
        let hashed = books.hashed(table.known());
        Ok(books.flip(Record { hashed, ..record })?)
    }

    fn leaves_in(&self, blocks: Range<u64>) -> Range<LeafIndex> {
        let all = self.disk.taker.leaves.leaves();
        let leaf = |block: u64| (block * LEAVES_PER_BLOCK as u64).min(all);
        leaf(blocks.start)..leaf(blocks.end)
    }
}

/// How many leaves.
fn index(leaves: &Range<LeafIndex>) -> usize {
    usize::try_from(leaves.end - leaves.start).expect("hashes fit in memory")
}
