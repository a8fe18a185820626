//! Frames that were opened and decoded, the least recently used dropped first.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use blocks::Extent;
use wire::{CheckedFrame, Content, FrameExtent};

/// What an entry costs beside its data.
const ENTRY_COST: usize = 512;

/// The authentic content of a frame.
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
    /// `data` is all that the frame holds.
    pub(crate) fn new(frame: &CheckedFrame, data: Vec<u8>) -> Self {
        let mut at = 0;
        let with_data = frame.extents().iter().filter(|extent| extent.content == Content::Data);
        let placed = with_data.map(|extent| {
            let begins = at;
            at += usize::try_from(extent.data_len()).expect("a frame holds 1 MiB at most");
            (*extent, begins)
        });
        let extents = placed.collect();
        debug_assert_eq!(at, data.len(), "a checked frame's extents add up to its data");
        Self { extents, data }
    }

    /// Whether all sectors of `extent` are data of the frame; if so, `take` is given them in order.
    pub(crate) fn give(&self, extent: Extent, mut take: impl FnMut(&[u8])) -> bool {
        let first = self.extents.partition_point(|(held, _)| held.extent().end() <= extent.start);
        let mut next = extent.start;
        for (held, begins) in &self.extents[first..] {
            if next >= extent.end() || held.start > next {
                break;
            }
            let end = held.extent().end().min(extent.end());
            let offset = |sector: blocks::Sector| {
                let within = sector.bytes() - held.start.bytes();
                begins + usize::try_from(within).expect("a frame holds 1 MiB at most")
            };
            take(&self.data[offset(next)..offset(end)]);
            next = end;
        }
        next >= extent.end()
    }

    fn cost(&self) -> usize {
        ENTRY_COST + self.data.len()
    }
}

impl FrameCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, entries: Mutex::default() }
    }

    /// A frame from the cache, or read and put there.
    pub(crate) fn get_or<E>(
        &self,
        number: u32,
        read: impl FnOnce() -> Result<DecodedFrame, E>,
    ) -> Result<Arc<DecodedFrame>, E> {
        if let Some(frame) = self.entries().get(number) {
            return Ok(frame);
        }
        // Not under the lock: two threads may decode one frame, and others go on meanwhile.
        let frame = Arc::new(read()?);
        self.entries().put(number, &frame, self.bytes_max);
        Ok(frame)
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
        let mut get = |number| {
            let read = || {
                reads += 1;
                Ok::<_, ()>(frame(1000))
            };
            cache.get_or(number, read).unwrap();
            assert!(cache.entries().bytes <= cache.bytes_max);
        };
        [1, 2, 3, 1, 4, 1, 3].into_iter().for_each(&mut get);
        get(2);
        assert_eq!(reads, 5, "2 was dropped for 4");
        cache.get_or(9, || Ok::<_, ()>(frame(100_000))).unwrap();
        let entries = cache.entries();
        assert_eq!((entries.bytes, entries.frames.len(), entries.by_use.len()), (0, 0, 0));
    }
}
