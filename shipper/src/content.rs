//! What a batch turns out to hold: zeroes, and data to be moved together.
//!
//! Pure, over the bytes of a buffer. Zeroes are looked for in units of 4 KiB, so a batch makes at
//! most one extent for each unit, which a frame's table has room for.

use std::ops::Range;

use blocks::{Extent, SECTOR_SIZE};
use wire::{Content, FrameExtent, frame::EXTENTS_MAX};

use crate::{
    plan::{BATCH_BYTES, Placed},
    zeroes::{ZERO_UNIT, is_zero},
};

const _: () = assert!(BATCH_BYTES.0 / ZERO_UNIT as u64 <= EXTENTS_MAX as u64);

/// The content of a batch, sorted into zeroes and data.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sorted {
    /// Every piece, cut where zeroes begin and end; ascending and disjoint.
    pub(crate) extents: Vec<FrameExtent>,
    /// Where the data extents' bytes lie in the buffer, in order; no two of them touch.
    segments: Vec<Range<usize>>,
    /// Bytes in data extents.
    pub(crate) data_bytes: u64,
    /// Bytes in zero extents.
    pub(crate) zero_bytes: u64,
}

impl Sorted {
    /// Sorts the pieces of a buffer.
    pub(crate) fn new(buffer: &[u8], pieces: &[Placed]) -> Self {
        let mut sorted = Self::default();
        for piece in pieces {
            for unit in units(piece) {
                let content =
                    if is_zero(&buffer[unit.range()]) { Content::Zeroes } else { Content::Data };
                sorted.push(unit, content);
            }
        }
        sorted
    }

    /// Whether there is nothing but zeroes, or nothing at all.
    pub(crate) fn has_no_data(&self) -> bool {
        self.segments.is_empty()
    }

    fn push(&mut self, unit: Placed, content: Content) {
        push_extent(&mut self.extents, unit.extent, content);
        let bytes = unit.extent.len().0;
        match content {
            Content::Zeroes => self.zero_bytes += bytes,
            Content::Data => {
                self.data_bytes += bytes;
                match self.segments.last_mut() {
                    Some(last) if last.end == unit.at => last.end = unit.range().end,
                    _ => self.segments.push(unit.range()),
                }
            }
        }
    }
}

/// Moves the data of a sorted buffer together and returns it. Moves nothing if it is in one place.
pub(crate) fn gather<'b>(buffer: &'b mut [u8], sorted: &Sorted) -> &'b [u8] {
    let Some(first) = sorted.segments.first() else { return &[] };
    let mut end = first.end;
    for segment in &sorted.segments[1..] {
        buffer.copy_within(segment.clone(), end);
        end += segment.len();
    }
    &buffer[first.start..end]
}

/// Appends an extent to a frame's table, joined to the last if it goes on there.
pub(crate) fn push_extent(table: &mut Vec<FrameExtent>, extent: Extent, content: Content) {
    if let Some(last) = table.last_mut()
        && last.content == content
        && last.extent().end() == extent.start
        && let Ok(sectors) = u32::try_from(u64::from(last.sectors) + extent.sectors)
    {
        last.sectors = sectors;
        return;
    }
    let sectors = u32::try_from(extent.sectors).expect("an extent of a batch or of a frame");
    table.push(FrameExtent { start: extent.start, sectors, content });
}

/// A piece in units of 4 KiB, the last possibly short.
fn units(piece: &Placed) -> impl Iterator<Item = Placed> {
    const UNIT_SECTORS: u64 = ZERO_UNIT as u64 / SECTOR_SIZE;
    let piece = *piece;
    (0..piece.extent.sectors.div_ceil(UNIT_SECTORS)).map(move |i| {
        let start = blocks::Sector(piece.extent.start.0 + i * UNIT_SECTORS);
        let sectors = UNIT_SECTORS.min(piece.extent.sectors - i * UNIT_SECTORS);
        Placed::within(Extent { start, sectors }, piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use blocks::Sector;
    use proptest::prelude::*;

    /// Pieces of whole units but for the last, with their bytes at the same distance from each
    /// other as on the disk.
    fn layout() -> impl Strategy<Value = (Vec<u8>, Vec<Placed>)> {
        let unit = prop_oneof![Just(None), Just(Some(0u8)), Just(Some(7u8))];
        (prop::collection::vec(unit, 1..60), 1u64..=8).prop_map(|(units, last)| {
            let mut buffer = Vec::new();
            let mut pieces: Vec<Placed> = Vec::new();
            let count = units.len();
            for (i, unit) in units.into_iter().enumerate() {
                let sectors = if i + 1 == count { last } else { 8 };
                let start = Sector(1000 + 8 * i as u64);
                let placed = Placed { extent: Extent { start, sectors }, at: buffer.len() };
                if unit.is_some() {
                    crate::plan::push_joined(&mut pieces, placed);
                }
                let byte = unit.unwrap_or(9);
                buffer.resize(buffer.len() + placed.range().len() - 1, 0);
                buffer.push(byte);
            }
            (buffer, pieces)
        })
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_moved_wrongly((buffer, pieces) in layout()) {
            let sorted = Sorted::new(&buffer, &pieces);
            let mut rebuilt = vec![None; buffer.len()];
            let mut scratch = buffer.clone();
            let mut data = gather(&mut scratch, &sorted).iter();
            for extent in &sorted.extents {
                let from = usize::try_from(extent.start.bytes() - 1000 * SECTOR_SIZE).unwrap();
                let len = usize::try_from(extent.extent().len().0).unwrap();
                for byte in &mut rebuilt[from..from + len] {
                    *byte = Some(match extent.content {
                        Content::Zeroes => 0,
                        Content::Data => *data.next().unwrap(),
                    });
                }
            }
            prop_assert!(data.next().is_none());
            for (at, byte) in buffer.iter().enumerate() {
                let shipped = pieces.iter().any(|piece| piece.range().contains(&at));
                prop_assert_eq!(rebuilt[at], shipped.then_some(*byte));
            }
            let shipped: u64 = pieces.iter().map(|piece| piece.extent.len().0).sum();
            prop_assert_eq!(sorted.data_bytes + sorted.zero_bytes, shipped);
            prop_assert_eq!(sorted.has_no_data(), sorted.data_bytes == 0);
        }
    }

    #[test]
    fn neighbours_of_one_content_are_one_extent() {
        let whole = Placed { extent: Extent { start: Sector(0), sectors: 2048 }, at: 0 };
        let sorted = Sorted::new(&vec![0; 1 << 20], &[whole]);
        assert_eq!(sorted.extents.len(), 1);
        assert_eq!((sorted.data_bytes, sorted.zero_bytes), (0, 1 << 20));
    }
}
