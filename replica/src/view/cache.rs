//! Frames that were opened and decoded, the least recently used dropped first.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use blocks::{Extent, Sector};
use wire::{CheckedFrame, Content, FrameExtent};

/// What an entry costs beside its data.
const ENTRY_COST: usize = 512;

/// The authentic content of a part of a frame.
#[derive(Debug)]
pub(crate) struct DecodedFrame {
    /// The extents with data, ascending, and where in the data each begins.
    extents: Vec<(FrameExtent, usize)>,
    data: Vec<u8>,
}

/// A bounded cache of frames, by their number.
#[derive(Debug)]
pub(crate) struct FrameCache {
    bytes_max: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    frames: HashMap<u32, (Arc<DecodedFrame>, u64)>,
    /// Frames by when they were used last.
    by_use: BTreeMap<u64, u32>,
    uses: u64,
    bytes: usize,
}

impl DecodedFrame {
    /// The part of a frame that is near: its extents from that of `first` on for `window` sectors.
    /// `data` is all that the frame holds.
    ///
    /// The extents of a frame may lie all over a disk. Whoever reads in order comes to the far ones
    /// much later; kept till then, those of a thousand frames would drive each other out.
    pub(crate) fn near(frame: &CheckedFrame, data: &[u8], first: Sector, window: u64) -> Self {
        let end = Sector(first.0.saturating_add(window));
        let (mut at, mut near) = (0, Self { extents: Vec::new(), data: Vec::new() });
        for extent in frame.extents().iter().filter(|extent| extent.content == Content::Data) {
            let len = usize::try_from(extent.data_len()).expect("a frame holds 1 MiB at most");
            if extent.extent().end() > first && extent.start < end {
                near.extents.push((*extent, near.data.len()));
                near.data.extend_from_slice(&data[at..at + len]);
            }
            at += len;
        }
        debug_assert_eq!(at, data.len(), "a checked frame's extents add up to its data");
        near
    }

    /// The data of all sectors of `extent`, piece by piece; nothing if they are not all here.
    pub(crate) fn get(&self, extent: Extent) -> Option<impl Iterator<Item = &[u8]>> {
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
        Some(self.extents[first..first + count].iter().map(move |(held, begins)| {
            let offset = |sector: Sector| {
                let within = sector.bytes() - held.start.bytes();
                begins + usize::try_from(within).expect("a frame holds 1 MiB at most")
            };
            let (start, end) =
                (held.start.max(extent.start), held.extent().end().min(extent.end()));
            &self.data[offset(start)..offset(end)]
        }))
    }

    fn cost(&self) -> usize {
        ENTRY_COST
            + self.data.capacity()
            + self.extents.capacity() * size_of::<(FrameExtent, usize)>()
    }
}

impl FrameCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, entries: Mutex::default() }
    }

    /// What is here of a frame.
    pub(crate) fn get(&self, number: u32) -> Option<Arc<DecodedFrame>> {
        self.entries().get(number)
    }

    /// Keeps a frame, or another part of it.
    pub(crate) fn put(&self, number: u32, frame: &Arc<DecodedFrame>) {
        self.entries().put(number, frame, self.bytes_max);
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn get(&mut self, number: u32) -> Option<Arc<DecodedFrame>> {
        self.uses += 1;
        let (frame, used) = self.frames.get_mut(&number)?;
        self.by_use.remove(used);
        *used = self.uses;
        self.by_use.insert(self.uses, number);
        Some(Arc::clone(frame))
    }

    fn put(&mut self, number: u32, frame: &Arc<DecodedFrame>, bytes_max: usize) {
        self.remove(number);
        self.uses += 1;
        self.bytes += frame.cost();
        self.frames.insert(number, (Arc::clone(frame), self.uses));
        self.by_use.insert(self.uses, number);
        while self.bytes > bytes_max {
            let Some((_, oldest)) = self.by_use.first_key_value() else { break };
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, number: u32) {
        if let Some((frame, used)) = self.frames.remove(&number) {
            self.by_use.remove(&used);
            self.bytes -= frame.cost();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> DecodedFrame {
        DecodedFrame { extents: Vec::new(), data: vec![0; len] }
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let cache = FrameCache::new(3 * (ENTRY_COST + 1000));
        let mut reads = 0;
        let mut read = |number| {
            if cache.get(number).is_none() {
                reads += 1;
                cache.put(number, &Arc::new(frame(1000)));
            }
            assert!(cache.entries().bytes <= cache.bytes_max);
        };
        [1, 2, 3, 1, 4, 1, 3, 2].into_iter().for_each(&mut read);
        assert_eq!(reads, 5, "2 was dropped for 4");
        cache.put(9, &Arc::new(frame(100_000)));
        let entries = cache.entries();
        assert_eq!((entries.bytes, entries.frames.len(), entries.by_use.len()), (0, 0, 0));
    }

    #[test]
    fn an_extent_is_given_whole_or_not_at_all() {
        let extent = |start, sectors| Extent { start: Sector(start), sectors };
        let held = |start: u64, sectors| {
            (FrameExtent { start: Sector(start), sectors, content: Content::Data }, 0)
        };
        let mut frame =
            DecodedFrame { extents: vec![held(10, 2), held(12, 1), held(20, 1)], data: Vec::new() };
        for (at, (_, begins)) in [0, 2, 3].into_iter().zip(&mut frame.extents) {
            *begins = at * 512;
        }
        frame.data = (0..4u8).flat_map(|byte| [byte; 512]).collect();
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
