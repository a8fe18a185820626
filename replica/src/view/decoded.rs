//! The authentic data of a frame, as long as a thread has it in its buffers.

use blocks::{Extent, Sector};
use wire::{CheckedFrame, Content, FrameExtent};

/// A frame that was opened and decoded.
#[derive(Debug)]
pub(crate) struct Decoded<'a> {
    /// The extents with data, ascending, and where in the data each begins.
    extents: Vec<(FrameExtent, usize)>,
    data: &'a [u8],
}

impl<'a> Decoded<'a> {
    /// `data` is all that the frame holds.
    pub(crate) fn new(frame: &CheckedFrame, data: &'a [u8]) -> Self {
        let mut begins = 0;
        let with_data = frame.extents().iter().filter(|extent| extent.content == Content::Data);
        let placed = with_data.map(|extent| {
            let at = begins;
            begins += usize::try_from(extent.data_len()).expect("a frame holds 1 MiB at most");
            (*extent, at)
        });
        let extents = placed.collect();
        debug_assert_eq!(begins, data.len(), "a checked frame's extents add up to its data");
        Self { extents, data }
    }

    /// The data of all sectors of `extent`, piece by piece; nothing if they are not all here.
    pub(crate) fn get(&self, extent: Extent) -> Option<impl Iterator<Item = &'a [u8]>> {
        let first = self.extents.partition_point(|(held, _)| held.extent().end() <= extent.start);
        let mut reached = extent.start;
        let touching = |(held, _): &&(FrameExtent, usize)| {
            let touches = held.start <= reached && reached < extent.end();
            if touches {
                reached = held.extent().end();
            }
            touches
        };
        let count = self.extents[first..].iter().take_while(touching).count();
        if reached < extent.end() {
            return None;
        }
        let data = self.data;
        Some(self.extents[first..first + count].iter().map(move |(held, begins)| {
            let offset = |sector: Sector| {
                let within = sector.bytes() - held.start.bytes();
                begins + usize::try_from(within).expect("a frame holds 1 MiB at most")
            };
            let (start, end) =
                (held.start.max(extent.start), held.extent().end().min(extent.end()));
            &data[offset(start)..offset(end)]
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_is_given_whole_or_not_at_all() {
        let extent = |start, sectors| Extent { start: Sector(start), sectors };
        let held = |start: u64, sectors, at: usize| {
            (FrameExtent { start: Sector(start), sectors, content: Content::Data }, at * 512)
        };
        let data: Vec<u8> = (0..4u8).flat_map(|byte| [byte; 512]).collect();
        let extents = vec![held(10, 2, 0), held(12, 1, 2), held(20, 1, 3)];
        let frame = Decoded { extents, data: &data };
        let get = |extent| {
            frame.get(extent).map(|parts| parts.flatten().copied().step_by(512).collect::<Vec<_>>())
        };
        assert_eq!(get(extent(10, 3)), Some(vec![0, 1, 2]));
        assert_eq!(get(extent(11, 1)), Some(vec![1]));
        assert_eq!(get(extent(20, 1)), Some(vec![3]));
        for missing in [extent(9, 2), extent(12, 2), extent(19, 2), extent(20, 2), extent(30, 1)] {
            assert_eq!(get(missing), None, "{missing:?}");
        }
    }
}
