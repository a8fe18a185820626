//! Where the content of each sector is: the extents of several deltas laid over each other.
//!
//! Invariant of a map: its segments ascend and don't overlap. Two maps are laid over each other in
//! one pass; a thousand of them pairwise, so that every extent is looked at about ten times.

use blocks::{Extent, Sector};
use wire::{Content, FrameExtent};

/// Where a segment's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Source(u32);

/// Sectors whose content is in one place. 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    start: u64,
    sectors: u32,
    source: Source,
}

const _: () = assert!(size_of::<Segment>() == 16);

/// Segments that overlap: no epoch of a sane source has such.
#[derive(Debug)]
pub(crate) struct OverlapError;

impl Source {
    /// Nowhere: it reads as zeroes.
    pub(crate) const ZEROES: Self = Self(u32::MAX);

    /// A frame by its number; nothing if numbers have run out.
    pub(crate) fn frame(number: u64) -> Option<Self> {
        u32::try_from(number).ok().map(Self).filter(|source| *source != Self::ZEROES)
    }

    /// The number of the frame, if it is one.
    pub(crate) fn as_frame(self) -> Option<u32> {
        (self != Self::ZEROES).then_some(self.0)
    }
}

impl Segment {
    pub(crate) fn new(extent: &FrameExtent, frame: Source) -> Self {
        let source = match extent.content {
            Content::Data => frame,
            Content::Zeroes => Source::ZEROES,
        };
        Self { start: extent.start.0, sectors: extent.sectors, source }
    }

    pub(crate) fn source(&self) -> Source {
        self.source
    }

    pub(crate) fn extent(&self) -> Extent {
        Extent { start: Sector(self.start), sectors: self.sectors.into() }
    }

    /// The part before `sector`, which is after its start, and the rest if there is one.
    pub(crate) fn split_at(self, sector: Sector) -> (Self, Option<Self>) {
        if sector.0 >= self.end() {
            return (self, None);
        }
        (self.part(self.start, sector.0), Some(self.part(sector.0, self.end())))
    }

    /// Adds a segment after all others; as a longer last one if that is in the same place and ends
    /// where this one begins.
    pub(crate) fn push_joined(segments: &mut Vec<Self>, next: Self) {
        if let Some(last) = segments.last_mut()
            && last.end() == next.start
            && last.source == next.source
            && let Some(sectors) = last.sectors.checked_add(next.sectors)
        {
            last.sectors = sectors;
            return;
        }
        segments.push(next);
    }

    fn end(&self) -> u64 {
        self.start + u64::from(self.sectors)
    }

    /// The part of it from `start` to `end`, which lie within.
    fn part(&self, start: u64, end: u64) -> Self {
        let sectors = u32::try_from(end - start).expect("a part is not longer than the whole");
        Self { start, sectors, source: self.source }
    }
}

/// The map of one delta, from its extents in any order.
pub(crate) fn map_of(mut segments: Vec<Segment>) -> Result<Vec<Segment>, OverlapError> {
    // Stable: the extents come in runs that ascend.
    segments.sort_by_key(|segment| segment.start);
    if !segments.is_sorted_by(|segment, next| segment.end() <= next.start) {
        return Err(OverlapError);
    }
    segments.dedup_by(|next, segment| {
        let sectors = segment.sectors.checked_add(next.sectors);
        let joins = segment.end() == next.start && segment.source == next.source;
        match sectors {
            Some(sectors) if joins => {
                segment.sectors = sectors;
                true
            }
            _ => false,
        }
    });
    Ok(segments)
}

/// Lays maps over each other, of which each is newer than the one before.
pub(crate) fn overlay_all(mut maps: Vec<Vec<Segment>>) -> Vec<Segment> {
    while maps.len() > 1 {
        let mut halved = Vec::with_capacity(maps.len().div_ceil(2));
        let mut rest = maps.into_iter();
        while let Some(old) = rest.next() {
            halved.push(match rest.next() {
                Some(new) => overlay(old, new),
                None => old,
            });
        }
        maps = halved;
    }
    maps.pop().unwrap_or_default()
}

/// `new` laid over `old`.
fn overlay(old: Vec<Segment>, new: Vec<Segment>) -> Vec<Segment> {
    let mut laid = Vec::with_capacity(old.len() + new.len());
    let mut below = old.into_iter();
    let mut current = below.next();
    for above in new {
        while let Some(segment) = current.filter(|segment| segment.start < above.end()) {
            if segment.start < above.start {
                laid.push(segment.part(segment.start, segment.end().min(above.start)));
            }
            if segment.end() > above.end() {
                current = Some(segment.part(above.end(), segment.end()));
                break;
            }
            current = below.next();
        }
        laid.push(above);
    }
    laid.extend(current);
    laid.extend(below);
    laid.shrink_to_fit();
    laid
}

/// The segments of `map` that have a sector in common with `extent`, cut to it.
pub(crate) fn within(map: &[Segment], extent: Extent) -> impl Iterator<Item = Segment> {
    let (start, end) = (extent.start.0, extent.end().0);
    let first = map.partition_point(|segment| segment.end() <= start);
    let touching = map[first..].iter().take_while(move |segment| segment.start < end);
    touching.map(move |segment| segment.part(segment.start.max(start), segment.end().min(end)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECTORS: u64 = 60;

    fn segments() -> impl Strategy<Value = Vec<Segment>> {
        let part = (0u64..8, 1u32..9, any::<bool>());
        prop::collection::vec((part, 0u32..3), 0..8).prop_map(|parts| {
            let mut at = 0;
            let mut place = |((gap, sectors, zero), frame): ((u64, u32, bool), u32)| {
                let source = if zero { Source::ZEROES } else { Source(frame) };
                let segment = Segment { start: at + gap, sectors, source };
                at = segment.end();
                segment
            };
            parts.into_iter().map(&mut place).filter(|segment| segment.end() <= SECTORS).collect()
        })
    }

    fn paint(model: &mut [Option<Source>], map: &[Segment]) {
        for segment in map {
            for at in segment.start..segment.end() {
                model[usize::try_from(at).unwrap()] = Some(segment.source);
            }
        }
    }

    proptest! {
        #[test]
        fn maps_laid_over_each_other_agree_with_painting(
            maps in prop::collection::vec(segments(), 0..7), from in 0..SECTORS, to in 0..SECTORS,
        ) {
            let mut model = vec![None; 60];
            maps.iter().for_each(|map| paint(&mut model, map));
            let maps = maps.into_iter().map(|map| map_of(map).unwrap()).collect();
            let laid = overlay_all(maps);
            prop_assert!(laid.is_sorted_by(|segment, next| segment.end() <= next.start));
            let mut shown = vec![None; 60];
            paint(&mut shown, &laid);
            prop_assert_eq!(&shown, &model);

            let cut = Extent { start: Sector(from), sectors: to.saturating_sub(from) };
            let mut shown = vec![None; 60];
            paint(&mut shown, &within(&laid, cut).collect::<Vec<_>>());
            let is_in = |at: &usize| (from..to).contains(&(*at as u64));
            let expected: Vec<_> =
                (0..60).map(|at| if is_in(&at) { model[at] } else { None }).collect();
            prop_assert_eq!(shown, expected);
        }
    }

    #[test]
    fn an_epoch_that_overlaps_itself_is_refused() {
        let segment = |start, sectors| Segment { start, sectors, source: Source(0) };
        assert!(map_of(vec![segment(9, 2), segment(0, 9)]).is_ok_and(|map| map.len() == 1));
        assert!(map_of(vec![segment(9, 2), segment(0, 10)]).is_err());
    }
}
