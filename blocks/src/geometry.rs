//! The shape of a disk, and the arithmetic between its sectors and its chunks.

use crate::{ByteLen, ChunkIndex, ChunkRange, ChunkSize, Extent, SECTOR_SIZE, Sector};

/// A disk's length, its logical block size and the size of its chunks.
///
/// Invariants: `sectors > 0`; the logical block is a power of two from 512 to the chunk size and
/// divides the disk; the last chunk may be short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    sectors: u64,
    logical_block: u32,
    chunk: ChunkSize,
}

/// A shape no disk of ours can have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GeometryError {
    /// The disk holds nothing, or more than 2^54 bytes.
    #[error("a disk of {0} sectors: between 1 and 2^45 are supported")]
    Length(u64),
    /// The logical block size is unusable.
    #[error("a logical block of {0} bytes: a power of two from 512 to the chunk size is needed")]
    LogicalBlock(u32),
    /// The disk is not a whole number of logical blocks.
    #[error("{sectors} sectors are not a whole number of blocks of {logical_block} bytes")]
    Unaligned {
        /// The disk's length in sectors.
        sectors: u64,
        /// Its logical block size in bytes.
        logical_block: u32,
    },
}

impl Geometry {
    /// A checked geometry.
    pub const fn new(
        sectors: u64,
        logical_block: u32,
        chunk: ChunkSize,
    ) -> Result<Self, GeometryError> {
        if sectors == 0 || sectors > 1 << 45 {
            return Err(GeometryError::Length(sectors));
        }
        let usable = logical_block.is_power_of_two()
            && logical_block >= 512
            && logical_block as u64 <= chunk.bytes();
        if !usable {
            return Err(GeometryError::LogicalBlock(logical_block));
        }
        if !(sectors * SECTOR_SIZE).is_multiple_of(logical_block as u64) {
            return Err(GeometryError::Unaligned { sectors, logical_block });
        }
        Ok(Self { sectors, logical_block, chunk })
    }

    /// The disk's length in sectors.
    pub const fn sectors(&self) -> u64 {
        self.sectors
    }

    /// The disk's length in bytes.
    pub const fn len(&self) -> ByteLen {
        ByteLen(self.sectors * SECTOR_SIZE)
    }

    /// Never: a geometry of no sectors can't be made.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The logical block size in bytes: the alignment of direct I/O.
    pub const fn logical_block(&self) -> u32 {
        self.logical_block
    }

    /// The unit of tracking.
    pub const fn chunk(&self) -> ChunkSize {
        self.chunk
    }

    /// How many chunks the disk has, the last of them possibly short.
    pub const fn chunks(&self) -> u64 {
        self.sectors.div_ceil(self.chunk.sectors())
    }

    /// The chunks that `extent` touches, clipped to the disk.
    pub fn chunks_of(&self, extent: Extent) -> ChunkRange {
        let end = extent.end().0.min(self.sectors);
        let start = extent.start.0.min(end);
        let per_chunk = self.chunk.sectors();
        if start == end {
            let at = ChunkIndex(start / per_chunk);
            return ChunkRange { start: at, end: at };
        }
        ChunkRange {
            start: ChunkIndex(start / per_chunk),
            end: ChunkIndex(end.div_ceil(per_chunk)),
        }
    }

    /// The sectors of a range of chunks, clipped to the disk.
    pub fn extent_of(&self, range: ChunkRange) -> Extent {
        let per_chunk = self.chunk.sectors();
        let start = (range.start.0 * per_chunk).min(self.sectors);
        let end = (range.end.0 * per_chunk).clamp(start, self.sectors);
        Extent { start: Sector(start), sectors: end - start }
    }

    /// Whether `extent` lies within the disk.
    pub const fn holds(&self, extent: Extent) -> bool {
        extent.end().0 <= self.sectors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: Geometry = match Geometry::new(8 * 5 + 3, 512, ChunkSize::DEFAULT) {
        Ok(geometry) => geometry,
        Err(_) => panic!("a valid geometry"),
    };

    #[test]
    fn the_last_chunk_is_short() {
        assert_eq!(SMALL.chunks(), 6);
        let last = ChunkRange { start: ChunkIndex(5), end: ChunkIndex(6) };
        assert_eq!(SMALL.extent_of(last), Extent { start: Sector(40), sectors: 3 });
    }

    #[test]
    fn shapes_that_cannot_be_are_refused() {
        let chunk = ChunkSize::DEFAULT;
        assert_eq!(Geometry::new(0, 512, chunk), Err(GeometryError::Length(0)));
        assert_eq!(Geometry::new(8, 8192, chunk), Err(GeometryError::LogicalBlock(8192)));
        assert!(matches!(Geometry::new(9, 4096, chunk), Err(GeometryError::Unaligned { .. })));
    }

    proptest! {
        #[test]
        fn every_sector_of_an_extent_is_in_its_chunks(start in 0u64..60, sectors in 0u64..60) {
            let extent = Extent { start: Sector(start), sectors };
            let range = SMALL.chunks_of(extent);
            for sector in 0..SMALL.sectors() {
                let chunk = sector / SMALL.chunk().sectors();
                let touched = start < start + sectors
                    && (start..start + sectors).any(|s| s < SMALL.sectors() && s / 8 == chunk);
                prop_assert_eq!(touched, range.start.0 <= chunk && chunk < range.end.0);
            }
        }
    }
}
