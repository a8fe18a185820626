//! Who reads where: what decides which pages are kept, and what is read ahead. Pure.
//!
//! A *reader* is a run of reads of which each begins near the farthest that came before. Requests of
//! one client are carried out side by side and overtake each other, so near is a few mebibytes in
//! either direction. Readers are not told by those who read; they are recognised.
//!
//! A page is as far away as a reader has to go, forwards, to come to it. What all of them have left
//! behind is farthest. For those who read in order, dropping the farthest page first is the best that
//! can be done (Belady's rule), because it is known what they will read.

use blocks::{Extent, Sector};

use super::{
    by_place::ByPlace,
    pages::{PageNumber, page_of},
};

/// Readers that are remembered. One that reads at random is a new one each time.
const READERS_MAX: usize = 8;

/// How far a read may be from where its reader was expected, in sectors: 4 MiB.
const NEAR: u64 = 8192;

/// Further than this no page is.
pub(super) const BEHIND: u64 = u64::MAX;

/// The readers of a view.
#[derive(Debug, Default)]
pub(super) struct Readers {
    readers: Vec<Reader>,
    reads: u64,
}

#[derive(Debug)]
struct Reader {
    /// The end of the farthest read.
    reached: Sector,
    /// Up to where it was read ahead.
    ahead: Sector,
    /// When it read last.
    used: u64,
}

/// The pages that readers may still read, from which on each: ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Positions(Vec<PageNumber>);

impl Readers {
    /// Notes a read. What is to be read ahead, if it was one of a known reader: up to `ahead` sectors
    /// from where that is now, in not too small steps.
    pub(super) fn note(&mut self, read: Extent, ahead: u64) -> Option<Extent> {
        self.reads += 1;
        let used = self.reads;
        let distance = |reader: &Reader| reader.reached.0.abs_diff(read.start.0);
        let near = self.readers.iter_mut().filter(|reader| distance(reader) <= NEAR);
        let Some(reader) = near.min_by_key(|reader| distance(reader)) else {
            self.remember(Reader { reached: read.end(), ahead: read.end(), used });
            return None;
        };
        reader.reached = reader.reached.max(read.end());
        reader.used = used;
        let start = reader.ahead.max(reader.reached);
        let end = Sector(reader.reached.0.saturating_add(ahead));
        if ahead == 0 || end.0 - start.0 < ahead / 4 {
            return None;
        }
        reader.ahead = end;
        Some(Extent { start, sectors: end.0 - start.0 })
    }

    pub(super) fn positions(&self) -> Positions {
        let behind = |reader: &Reader| page_of(Sector(reader.reached.0.saturating_sub(NEAR)));
        let mut positions: Vec<_> = self.readers.iter().map(behind).collect();
        positions.sort_unstable();
        Positions(positions)
    }

    fn remember(&mut self, reader: Reader) {
        if self.readers.len() < READERS_MAX {
            self.readers.push(reader);
        } else if let Some(oldest) = self.readers.iter_mut().min_by_key(|reader| reader.used) {
            *oldest = reader;
        }
    }
}

impl Positions {
    /// How far away a page is, in pages.
    pub(super) fn distance(&self, page: PageNumber) -> u64 {
        let before = self.0.partition_point(|position| *position <= page);
        before.checked_sub(1).map_or(BEHIND, |reader| page - self.0[reader])
    }

    /// Whether all readers have left a page behind.
    pub(super) fn is_behind(&self, page: PageNumber) -> bool {
        self.distance(page) == BEHIND
    }

    /// The page of `held` that is farthest away, and how far.
    pub(super) fn farthest<V>(&self, held: &ByPlace<V>) -> Option<(PageNumber, u64)> {
        let first = held.first()?;
        if self.is_behind(first) {
            return Some((first, BEHIND));
        }
        let ends = self.0.iter().skip(1).map(|next| Some(*next)).chain([None]);
        let last = |(start, end): (&PageNumber, Option<PageNumber>)| {
            let last = held.last_within(*start, end)?;
            Some((last, last - start))
        };
        self.0.iter().zip(ends).filter_map(last).max_by_key(|(_, distance)| *distance)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: u64 = 512;

    fn extent(start: u64, sectors: u64) -> Extent {
        Extent { start: Sector(start), sectors }
    }

    fn holding(pages: impl IntoIterator<Item = PageNumber>) -> ByPlace<()> {
        let mut held = ByPlace::default();
        pages.into_iter().for_each(|page| held.insert(page, (), |(), ()| ()));
        held
    }

    #[test]
    fn who_goes_on_is_read_ahead_in_steps_and_each_sector_once() {
        let mut readers = Readers::default();
        let mut next = STEP;
        assert_eq!(readers.note(extent(0, STEP), 4096), None, "one read says nothing");
        for at in 1..100 {
            if let Some(ahead) = readers.note(extent(at * STEP, STEP), 4096) {
                assert_eq!(ahead.start.0, next.max((at + 1) * STEP));
                next = ahead.end().0;
                assert_eq!(next, (at + 1) * STEP + 4096);
            }
            assert!(next >= (at + 1) * STEP + 3072, "at least three quarters are on their way");
        }
        assert_eq!(readers.readers.len(), 1);
    }

    #[test]
    fn requests_that_overtake_each_other_are_one_reader() {
        let mut readers = Readers::default();
        for at in [0, 2, 1, 3, 6, 5, 4, 7] {
            readers.note(extent(at * STEP, STEP), 0);
        }
        assert_eq!(readers.readers.len(), 1);
        assert_eq!(readers.readers[0].reached, Sector(8 * STEP));
    }

    #[test]
    fn two_readers_keep_their_places_and_what_lies_behind_both_goes_first() {
        let mut readers = Readers::default();
        let far = 1 << 20;
        for at in 0..20 {
            readers.note(extent(100_000 + at * STEP, STEP), 0);
            readers.note(extent(far + at * STEP, STEP), 0);
        }
        let positions = readers.positions();
        let [low, high] = [100_000, far].map(|start| (start + 20 * STEP - NEAR) / 8);
        assert_eq!(positions.0, [low, high]);
        let mut held = holding([low - 1, low, low + 50, high, high + 49]);
        let order: Vec<_> = std::iter::from_fn(|| {
            let (page, _) = positions.farthest(&held)?;
            held.remove(page);
            Some(page)
        })
        .collect();
        assert_eq!(order[..3], [low - 1, low + 50, high + 49]);
        assert_eq!(order.len(), 5);
    }

    #[test]
    fn readers_are_bounded_and_the_oldest_is_forgotten() {
        let mut readers = Readers::default();
        for at in 0..20 {
            readers.note(extent(at * 10 * NEAR, 8), 0);
        }
        assert_eq!(readers.readers.len(), READERS_MAX);
        assert_eq!(readers.positions().0[0], (12 * 10 * NEAR + 8 - NEAR) / 8);
    }

    proptest! {
        #[test]
        fn the_farthest_page_is_the_one_of_the_greatest_distance(
            reads in prop::collection::vec(0u64..1 << 22, 0..12),
            held in prop::collection::vec(0u64..1 << 19, 0..40),
        ) {
            let mut readers = Readers::default();
            for read in reads {
                readers.note(extent(read, 8), 0);
            }
            let positions = readers.positions();
            let expected = held.iter().map(|page| positions.distance(*page)).max();
            let farthest = positions.farthest(&holding(held.iter().copied()));
            prop_assert_eq!(farthest.map(|(_, distance)| distance), expected);
            if let Some((page, distance)) = farthest {
                prop_assert!(held.contains(&page));
                prop_assert_eq!(positions.distance(page), distance);
            }
        }
    }
}
