//! Half-open ranges of sectors and of chunks.

use crate::{ByteLen, ChunkIndex, SECTOR_SIZE, Sector};

/// A half-open range of sectors: `start <= s < start + sectors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Its first sector.
    pub start: Sector,
    /// How many sectors; zero is an empty extent.
    pub sectors: u64,
}

impl Extent {
    /// The first sector after it. Saturates, so that a range past any disk stays past it.
    pub const fn end(&self) -> Sector {
        Sector(self.start.0.saturating_add(self.sectors))
    }

    /// Its length in bytes.
    pub const fn len(&self) -> ByteLen {
        ByteLen(self.sectors * SECTOR_SIZE)
    }

    /// Whether it holds no sector.
    pub const fn is_empty(&self) -> bool {
        self.sectors == 0
    }
}

/// A half-open range of chunks: `start <= c < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkRange {
    /// Its first chunk.
    pub start: ChunkIndex,
    /// The first chunk after it.
    pub end: ChunkIndex,
}

impl ChunkRange {
    /// How many chunks it holds.
    pub const fn len(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether it holds no chunk.
    pub const fn is_empty(&self) -> bool {
        self.end.0 <= self.start.0
    }
}
