//! One batch: reads that fill a buffer, and the pieces of it that are to be shipped.

use std::fmt;

use blocks::{ByteLen, Extent};

use super::{BATCH_BYTES, BUFFER_ALIGN};

/// An extent of the disk, and where in a buffer its first byte lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The sectors.
    pub extent: Extent,
    /// The offset of their first byte in the buffer.
    pub at: usize,
}

impl Placed {
    /// `extent`, which lies inside `outer`, placed with it.
    pub(crate) fn within(extent: Extent, outer: Placed) -> Self {
        let skipped = extent.start.bytes() - outer.extent.start.bytes();
        Self { extent, at: outer.at + buffer_len(ByteLen(skipped)) }
    }

    /// Its bytes in the buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.at..self.at + buffer_len(self.extent.len())
    }

    /// The part that both hold, if any.
    pub(crate) fn overlap(&self, other: Extent) -> Option<Self> {
        let start = self.extent.start.max(other.start);
        let end = self.extent.end().min(other.end());
        let extent = Extent { start, sectors: end.0.saturating_sub(start.0) };
        (!extent.is_empty()).then(|| Self::within(extent, *self))
    }

    /// Whether `next` follows directly, on the disk and in the buffer.
    pub(crate) fn joins(&self, next: &Placed) -> bool {
        self.extent.end() == next.extent.start && self.range().end == next.at
    }
}

/// What fills one buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its place among the epoch's batches, from 0.
    pub sequence: u64,
    /// What to read, and to where.
    pub reads: Vec<Placed>,
    /// What to ship of it.
    pub pieces: Vec<Placed>,
}

impl Batch {
    pub(super) fn new(sequence: u64) -> Self {
        Self { sequence, reads: Vec::new(), pieces: Vec::new() }
    }

    /// Bytes to read.
    pub fn read_bytes(&self) -> ByteLen {
        total(&self.reads)
    }

    /// Bytes to ship, at most.
    pub fn shipped_bytes(&self) -> ByteLen {
        total(&self.pieces)
    }

    /// Makes room for reading `extent`, which lies after all that is read: as part of the last
    /// read if no more than `bridge` sectors lie between, else on its own. Returns the offset of
    /// `extent` in the buffer, or nothing if the buffer is full.
    pub(super) fn add_read(&mut self, extent: Extent, bridge: u64) -> Option<usize> {
        let used = self.reads.last().map_or(0, |read| read.range().end);
        let room = buffer_len(BATCH_BYTES) - used.next_multiple_of(BUFFER_ALIGN);
        if let Some(last) = self.reads.last_mut() {
            let gap = extent.start.0 - last.extent.end().0;
            let longer = Extent { start: extent.start, sectors: extent.sectors + gap };
            if gap <= bridge && buffer_len(longer.len()) <= room {
                last.extent.sectors += longer.sectors;
                return Some(last.range().end - buffer_len(extent.len()));
            }
        }
        if buffer_len(extent.len()) > room {
            return None;
        }
        let at = used.next_multiple_of(BUFFER_ALIGN);
        self.reads.push(Placed { extent, at });
        Some(at)
    }

    /// Adds a piece after all others.
    pub(super) fn add_piece(&mut self, piece: Placed) {
        push_joined(&mut self.pieces, piece);
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch {}: read", self.sequence)?;
        write_extents(f, &self.reads)?;
        f.write_str("; ship")?;
        write_extents(f, &self.pieces)
    }
}

/// Appends `next`, joined to the last if it follows directly.
pub(crate) fn push_joined(list: &mut Vec<Placed>, next: Placed) {
    match list.last_mut() {
        Some(last) if last.joins(&next) => last.extent.sectors += next.extent.sectors,
        _ => list.push(next),
    }
}

/// A length within a buffer as an index.
pub(crate) fn buffer_len(len: ByteLen) -> usize {
    usize::try_from(len.0).expect("a length of at most a buffer fits a usize")
}

fn total(list: &[Placed]) -> ByteLen {
    ByteLen(list.iter().map(|placed| placed.extent.len().0).sum())
}

fn write_extents(f: &mut fmt::Formatter<'_>, list: &[Placed]) -> fmt::Result {
    list.iter()
        .try_for_each(|placed| write!(f, " {}+{}", placed.extent.start.0, placed.extent.sectors))
}
