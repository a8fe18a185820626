//! What of a point takes room: for exports, and for copies that stay sparse.

use std::{ops::Range, sync::PoisonError};

use blocks::SECTOR_SIZE;
use storage::StorageError;

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

/// What was last found out about the base: from `asked` on it is a hole up to `data`, and then data.
///
/// It stays true while the view lives. The base changes only where the view has deltas, and there
/// it is not asked.
#[derive(Clone, Debug)]
pub(super) struct KnownBase {
    asked: u64,
    data: Range<u64>,
}

impl View {
    /// What the `len` bytes from `offset` on hold: ranges one behind the other without a gap, of
    /// which neighbours differ; `ranges_max` of them at most, which may not reach the end. Reads no
    /// content.
    pub fn allocation(
        &self,
        offset: u64,
        len: u64,
        ranges_max: usize,
    ) -> Result<Vec<Allocated>, ReadError> {
        let sectors = self.sectors_of(offset, len)?;
        let (end, mut ranges) = (offset + len, Ranges { next: offset, ranges: Vec::new() });
        for segment in self.layers.within(sectors) {
            let extent = segment.extent();
            self.base_until(extent.start.bytes().max(offset), ranges_max, &mut ranges)?;
            let state = match segment.source() {
                Source::ZEROES => Allocation::Zero,
                _ => Allocation::Data,
            };
            ranges.until(extent.end().bytes().min(end), state);
            // One more is needed to know that the last one ends.
            if ranges.ranges.len() > ranges_max {
                break;
            }
        }
        self.base_until(end, ranges_max, &mut ranges)?;
        ranges.ranges.truncate(ranges_max);
        Ok(ranges.ranges)
    }

    /// Adds what the base holds up to `end`, or until there are more ranges than `ranges_max`.
    fn base_until(
        &self,
        end: u64,
        ranges_max: usize,
        ranges: &mut Ranges,
    ) -> Result<(), ReadError> {
        while ranges.next < end && ranges.ranges.len() <= ranges_max {
            let data = self.next_data(ranges.next)?;
            // Whole sectors, so that what a hole begins with is zeroes whatever the file system's
            // blocks are.
            let (from, to) = (data.start / SECTOR_SIZE * SECTOR_SIZE, data.end);
            ranges.until(from.min(end), Allocation::Hole);
            ranges.until(to.next_multiple_of(SECTOR_SIZE).min(end), Allocation::Data);
        }
        Ok(())
    }

    /// The next bytes of the base that are data, from `offset` on; empty at the end if none are.
    pub(super) fn next_data(&self, offset: u64) -> Result<Range<u64>, StorageError> {
        let known = || self.known_base.lock().unwrap_or_else(PoisonError::into_inner);
        let last = known().clone();
        if let Some(last) = last.filter(|last| (last.asked..last.data.end).contains(&offset)) {
            return Ok(last.data.start.max(offset)..last.data.end);
        }
        let end = self.len().0;
        let data = self.base.next_data(offset)?.unwrap_or(end..end);
        *known() = Some(KnownBase { asked: offset, data: data.clone() });
        Ok(data)
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
