//! What of a point takes room: for exports, and for copies that stay sparse.

use std::ops::Range;

use blocks::SECTOR_SIZE;

use super::{ReadError, Source, View};

/// What a range of bytes holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Allocation {
    /// Anything; it may be zeroes.
    Data,
    /// Zeroes, because a delta says so.
    Zero,
    /// Zeroes, because nothing was ever written there.
    Hole,
}

/// A range of a disk that is of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// Offsets within the disk.
    pub bytes: Range<u64>,
    /// What they hold.
    pub state: Allocation,
}

impl View {
    /// What the `len` bytes from `offset` on hold: ranges one behind the other without a gap, of
    /// which neighbours differ. Reads no content.
    pub fn allocation(&self, offset: u64, len: u64) -> Result<Vec<Allocated>, ReadError> {
        let sectors = self.sectors_of(offset, len)?;
        let (end, mut ranges) = (offset + len, Ranges { next: offset, ranges: Vec::new() });
        for segment in self.layers.within(sectors) {
            let extent = segment.extent();
            self.base_until(extent.start.bytes().max(offset), &mut ranges)?;
            let state = match segment.source() {
                Source::ZEROES => Allocation::Zero,
                _ => Allocation::Data,
            };
            ranges.until(extent.end().bytes().min(end), state);
        }
        self.base_until(end, &mut ranges)?;
        Ok(ranges.ranges)
    }

    /// Adds what the base holds up to `end`.
    fn base_until(&self, end: u64, ranges: &mut Ranges) -> Result<(), ReadError> {
        while ranges.next < end {
            let data = self.base.next_data(ranges.next)?;
            let data = data.unwrap_or(end..end);
            // Whole sectors, so that what a hole begins with is zeroes whatever the file system's
            // blocks are.
            let (from, to) = (data.start / SECTOR_SIZE * SECTOR_SIZE, data.end);
            ranges.until(from.min(end), Allocation::Hole);
            ranges.until(to.next_multiple_of(SECTOR_SIZE).min(end), Allocation::Data);
        }
        Ok(())
    }
}

/// Ranges that are added one behind the other.
struct Ranges {
    next: u64,
    ranges: Vec<Allocated>,
}

impl Ranges {
    fn until(&mut self, end: u64, state: Allocation) {
        if end <= self.next {
            return;
        }
        match self.ranges.last_mut() {
            Some(last) if last.state == state => last.bytes.end = end,
            _ => self.ranges.push(Allocated { bytes: self.next..end, state }),
        }
        self.next = end;
    }
}
