//! Batches of nothing but zeroes, merged into few frames.

use blocks::SECTOR_SIZE;
use wire::{Content, FrameExtent, frame::EXTENTS_MAX};

use crate::content::push_extent;

/// The most a frame of zeroes covers: what a target does for one frame stays bounded.
const RUN_BYTES_MAX: u64 = 1 << 30;

/// Zero extents of successive batches that were not sent yet.
///
/// Invariant: what it holds fits one frame.
#[derive(Debug, Default)]
pub(crate) struct ZeroRun {
    extents: Vec<FrameExtent>,
    bytes: u64,
    /// The last batch in it.
    sequence: u64,
}

/// What becomes one frame of zeroes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ZeroFrame {
    pub(crate) sequence: u64,
    pub(crate) extents: Vec<FrameExtent>,
    pub(crate) bytes: u64,
}

impl ZeroRun {
    /// Adds the zero extents of a batch that lies after all others; what no longer fits one frame
    /// with them comes back, to be sent first.
    pub(crate) fn add(&mut self, sequence: u64, extents: &[FrameExtent]) -> Option<ZeroFrame> {
        let bytes: u64 = extents.iter().map(|extent| extent.extent().len().0).sum();
        let fits = self.extents.len() + extents.len() <= usize::from(EXTENTS_MAX)
            && self.bytes + bytes <= RUN_BYTES_MAX;
        let full = if fits { None } else { self.take() };
        for extent in extents {
            push_extent(&mut self.extents, extent.extent(), Content::Zeroes);
        }
        self.bytes += bytes;
        self.sequence = sequence;
        full
    }

    /// All that is held, to be sent before anything that comes after it.
    pub(crate) fn take(&mut self) -> Option<ZeroFrame> {
        let run = std::mem::take(self);
        let Self { extents, bytes, sequence } = run;
        (!extents.is_empty()).then_some(ZeroFrame { sequence, extents, bytes })
    }
}

const _: () = assert!(RUN_BYTES_MAX / SECTOR_SIZE <= u32::MAX as u64);

#[cfg(test)]
mod tests {
    use super::*;
    use blocks::Sector;

    fn zeroes(start: u64, sectors: u32) -> FrameExtent {
        FrameExtent { start: Sector(start), sectors, content: Content::Zeroes }
    }

    #[test]
    fn a_gibibyte_of_zeroes_is_one_frame_of_one_extent() {
        let mut run = ZeroRun::default();
        for i in 0..1024 {
            assert_eq!(run.add(i, &[zeroes(i * 2048, 2048)]), None);
        }
        let full = run.add(1024, &[zeroes(1024 * 2048, 2048)]).unwrap();
        assert_eq!(full.extents, [zeroes(0, 1 << 21)]);
        assert_eq!((full.sequence, full.bytes), (1023, 1 << 30));
        let rest = run.take().unwrap();
        assert_eq!((rest.sequence, rest.bytes), (1024, 1 << 20));
        assert_eq!(run.take(), None);
    }

    #[test]
    fn a_table_never_overflows() {
        let mut run = ZeroRun::default();
        let scattered: Vec<_> = (0..256).map(|i| zeroes(i * 16, 8)).collect();
        for sequence in 0..4 {
            let shifted: Vec<_> = scattered
                .iter()
                .map(|extent| zeroes(extent.start.0 + sequence * 4096, 8))
                .collect();
            assert_eq!(run.add(sequence, &shifted), None);
        }
        let full = run.add(4, &[zeroes(1 << 20, 8)]).unwrap();
        assert_eq!(full.extents.len(), 1024);
        assert_eq!(run.take().unwrap().extents, [zeroes(1 << 20, 8)]);
    }
}
