//! Hashes of compare blocks: what a source compares its own content with.
//!
//! A source leaves out a block whose hash is equal. So what is hashed must be durable and must not
//! be about to change: it is read from the deltas that are not in the base yet, and from the base
//! below them, of which unsynced remains of a seed that was given up are synced first.

use blocks::{ByteLen, Epoch, SECTOR_SIZE, Sector};
use storage::StorageError;
use wire::{COMPARE_BLOCK, message::HASH_COUNT_MAX};

use crate::{
    Disk, MustReopenError, ReadError,
    disk::DiskShared,
    error::FailureClass,
    view::{LayerError, Layers},
};

const BLOCK_LEN: usize = 64 * 1024;
const BLOCKS_PER_READ: usize = 16;
/// Decoded frames that are kept while blocks are hashed.
const CACHE_BYTES: usize = 16 << 20;

const _: () = assert!(BLOCK_LEN as u64 == COMPARE_BLOCK.0);

/// The BLAKE3 hash of one compare block.
pub type BlockHash = [u8; 32];

/// Hashes of neighbouring compare blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockHashes {
    /// The epoch of which this is the content.
    pub as_of: Epoch,
    /// The hashes in order of the blocks.
    pub hashes: Vec<BlockHash>,
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
            Self::MustReopen(_) => FailureClass::StoreFailed,
        }
    }
}

impl Disk {
    /// The hashes of `count` compare blocks from block `first`, of the newest durable content. The
    /// last block of a disk may be short and is hashed as it is.
    ///
    /// The hashes hold for the epoch they name. A source that has a later epoch under way must not
    /// leave out blocks by them.
    pub fn hashes(&self, first: u64, count: u32) -> Result<BlockHashes, HashError> {
        let disk_len = self.geometry().len();
        let blocks = disk_len.0.div_ceil(COMPARE_BLOCK.0);
        let (limit, end) = (HASH_COUNT_MAX, first.checked_add(count.into()));
        let Some(end) = end.filter(|end| *end <= blocks && count <= limit) else {
            return Err(HashError::Range { first, count, limit, blocks });
        };
        // Held to the end, so that no fold changes the base below the reads.
        let _folding = self.shared.lock_folding();
        let as_of = {
            let books = self.shared.books();
            books.check_health()?;
            if let Some(epoch) = books.seeding {
                return Err(HashError::Seeding(epoch));
            }
            books.catalog.record().state.last_durable
        };
        let shared = self.shared.as_ref();
        shared.taker.base.sync_if_needed().inspect_err(|error| shared.note_failure(error))?;
        let bytes =
            ByteLen(first * COMPARE_BLOCK.0)..ByteLen(disk_len.0.min(end * COMPARE_BLOCK.0));
        let layers = shared.layers_at(as_of, CACHE_BYTES)?;
        Ok(BlockHashes { as_of, hashes: hash_range(shared, &layers, bytes)? })
    }
}

fn hash_range(
    disk: &DiskShared,
    layers: &Layers,
    bytes: std::ops::Range<ByteLen>,
) -> Result<Vec<BlockHash>, ReadError> {
    let mut buffer = vec![0; BLOCK_LEN * BLOCKS_PER_READ];
    let mut hashes = Vec::new();
    let mut at = bytes.start.0;
    while at < bytes.end.0 {
        let left = usize::try_from(bytes.end.0 - at).unwrap_or(usize::MAX);
        let len = left.min(buffer.len());
        let part = &mut buffer[..len];
        disk.read_newest(layers, Sector(at / SECTOR_SIZE), part)?;
        hashes.extend(part.chunks(BLOCK_LEN).map(|block| *blake3::hash(block).as_bytes()));
        at += len as u64;
    }
    Ok(hashes)
}
