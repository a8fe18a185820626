//! The plan: which sectors to read, where they land in a buffer, and which of them to ship.
//!
//! Owns the cutting of a sealed epoch into batches. A batch is what fills one pool buffer and,
//! after zeroes and unchanged blocks are taken out, becomes one frame. Batches are made one at a
//! time, so a plan for a disk of any size needs no more memory than the epoch's bitmap.
//!
//! Invariants, for every batch:
//! - pieces are ascending, disjoint, whole chunks (the disk's last may be short), and over all
//!   batches they are exactly the epoch's chunks;
//! - every piece lies inside a read, at the same distance from the read's start on the disk and in
//!   the buffer;
//! - reads are ascending, disjoint, aligned to the disk's logical blocks, in the buffer to
//!   [`BUFFER_ALIGN`] bytes, and together at most [`BATCH_BYTES`];
//! - a batch that holds 64 KiB spans no more than 64 MiB of the disk, so that a frame of it can be
//!   read later without much that lies far away;
//! - reads of a comparison are whole compare blocks, so that they can be hashed.
//!
//! The kind of a plan is the kind of the sealed epoch it was made from, and there is no other way
//! to make one: a gap has no way into a delta.
//!
//! Nothing here reads, sleeps or knows a device.

use std::{fmt, sync::Arc};

use blocks::{ByteLen, ChunkIndex, ChunkRange, Epoch, EpochKind, Extent, Geometry, SealedEpoch};
use wire::{COMPARE_BLOCK, frame::should_end_before};

mod batch;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Placed};
pub(crate) use batch::{buffer_len, push_joined};

/// The most bytes a batch reads: one pool buffer, and the most data a frame holds.
pub const BATCH_BYTES: ByteLen = ByteLen(1 << 20);

/// The alignment of every read within its buffer, in bytes. Direct I/O needs no more than this of
/// any disk with logical blocks up to 4 KiB.
pub const BUFFER_ALIGN: usize = 4096;

/// How a plan trades reads for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanLimits {
    /// Two dirty runs are read in one go, and what lies between is thrown away, if no more than
    /// this lies between. Comparisons don't bridge.
    pub bridge: ByteLen,
}

impl Default for PlanLimits {
    fn default() -> Self {
        // A disk reads 32 KiB more in less time than it takes another request.
        Self { bridge: ByteLen(32 << 10) }
    }
}

/// The batches of one sealed epoch, in order. Iterate over it, or over a clone for a dry run.
#[derive(Clone, Debug)]
pub struct Plan {
    sealed: Arc<SealedEpoch>,
    geometry: Geometry,
    /// What is read or not as a whole, in chunks.
    unit: u64,
    /// The longest gap to bridge, in chunks.
    bridge: u64,
    /// Chunks before this one are planned.
    next: ChunkIndex,
    sequence: u64,
}

impl Plan {
    /// Plans `sealed`, an epoch of a disk of this geometry.
    ///
    /// # Panics
    /// If the epoch's bitmap is not as long as the disk.
    pub fn new(sealed: Arc<SealedEpoch>, geometry: Geometry, limits: PlanLimits) -> Self {
        assert_eq!(sealed.chunks().len(), geometry.chunks(), "an epoch of this disk");
        let chunk = geometry.chunk().bytes();
        let (unit, bridge) = match &*sealed {
            SealedEpoch::Seed(_) | SealedEpoch::Delta(_) => (1, limits.bridge.0 / chunk),
            SealedEpoch::Compare(_) => ((COMPARE_BLOCK.0 / chunk).max(1), 0),
        };
        Self { sealed, geometry, unit, bridge, next: ChunkIndex(0), sequence: 0 }
    }

    /// The epoch's number.
    pub fn epoch(&self) -> Epoch {
        self.sealed.epoch()
    }

    /// The epoch's kind.
    pub fn kind(&self) -> EpochKind {
        self.sealed.kind()
    }

    /// How much of the disk the epoch covers.
    pub fn covered(&self) -> ByteLen {
        let chunks = self.sealed.chunks();
        let last = ChunkIndex(self.geometry.chunks() - 1);
        let short = match chunks.contains(last) {
            true => self.geometry.chunk().bytes() - self.bytes_of(last, 1),
            false => 0,
        };
        ByteLen(chunks.count() * self.geometry.chunk().bytes() - short)
    }

    /// What executing the rest of the plan amounts to. Walks it.
    pub fn totals(&self) -> PlanTotals {
        let none = PlanTotals { batches: 0, reads: 0, read: ByteLen(0), shipped: ByteLen(0) };
        self.clone().fold(none, |sum, batch| PlanTotals {
            batches: sum.batches + 1,
            reads: sum.reads + batch.reads.len() as u64,
            read: ByteLen(sum.read.0 + batch.read_bytes().0),
            shipped: ByteLen(sum.shipped.0 + batch.shipped_bytes().0),
        })
    }

    /// The first unit at or after `next` that holds a dirty chunk.
    fn next_unit(&self) -> Option<ChunkRange> {
        let first = self.sealed.chunks().first_from(self.next)?;
        Some(self.unit_at(ChunkIndex(first.0 / self.unit * self.unit)))
    }

    fn unit_at(&self, start: ChunkIndex) -> ChunkRange {
        let end = (start.0 + self.unit).min(self.geometry.chunks());
        ChunkRange { start, end: ChunkIndex(end) }
    }

    fn bytes_of(&self, start: ChunkIndex, chunks: u64) -> u64 {
        let end = ChunkIndex(start.0 + chunks);
        self.geometry.extent_of(ChunkRange { start, end }).len().0
    }

    /// Whether the unit is too far from the beginning of `batch` to be part of it.
    fn should_end_before(&self, batch: &Batch, unit: ChunkRange) -> bool {
        let Some(first) = batch.pieces.first() else { return false };
        let (start, end) = (first.extent.start, self.geometry.extent_of(unit).end());
        let span = Extent { start, sectors: end.0 - start.0 };
        should_end_before(span, batch.shipped_bytes())
    }

    /// Adds the unit's read to `batch`, joined to the read before if it follows or the gap is
    /// short, and its dirty chunks as pieces. Returns whether there was room.
    fn add_unit(&self, batch: &mut Batch, unit: ChunkRange) -> bool {
        let extent = self.geometry.extent_of(unit);
        let bridge = self.bridge * self.geometry.chunk().sectors();
        let at = match batch.add_read(extent, bridge) {
            Some(at) => at,
            None => return false,
        };
        for chunk in (unit.start.0..unit.end.0).map(ChunkIndex) {
            if self.sealed.chunks().contains(chunk) {
                let end = ChunkIndex(chunk.0 + 1);
                let piece = self.geometry.extent_of(ChunkRange { start: chunk, end });
                batch.add_piece(Placed::within(piece, Placed { extent, at }));
            }
        }
        true
    }
}

impl Iterator for Plan {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let mut batch = Batch::new(self.sequence);
        while let Some(unit) = self.next_unit()
            && !self.should_end_before(&batch, unit)
            && self.add_unit(&mut batch, unit)
        {
            self.next = unit.end;
        }
        self.sequence += 1;
        (!batch.reads.is_empty()).then_some(batch)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind() {
            EpochKind::Seed => "seed",
            EpochKind::Compare => "compare",
            EpochKind::Delta => "delta",
        };
        write!(f, "{kind} epoch {}: {}", self.epoch(), self.totals())
    }
}

/// The size of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanTotals {
    /// Buffers filled.
    pub batches: u64,
    /// Reads issued.
    pub reads: u64,
    /// Bytes read, bridged gaps and the rest of compare blocks included.
    pub read: ByteLen,
    /// Bytes to ship, before zeroes and unchanged blocks are taken out.
    pub shipped: ByteLen,
}

impl fmt::Display for PlanTotals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batches, reads, read, shipped } = self;
        write!(f, "{shipped} to ship in {batches} batches, by {reads} reads of {read}")
    }
}
