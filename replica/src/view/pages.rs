//! What frames hold of a disk, decoded, in pages: those that readers come to soonest.
//!
//! A frame gathers chunks from all over a disk, so whoever has decoded one has what other places
//! need. It is kept by place on the disk and not by frame: what of a frame is overwritten by a later
//! one takes no room, and what of it was read can go while the rest stays.
//!
//! Invariants: no more than `pages_max` pages are held, spare ones counted; of a page, the sectors
//! that are marked as here hold what the view shows there, which never changes.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use blocks::{SECTOR_SIZE, Sector};

use super::{
    by_place::ByPlace,
    map::Segment,
    readers::{BEHIND, Positions},
};

/// A page of the disk, counted from its start.
pub(super) type PageNumber = u64;

const PAGE_LEN: usize = 4096;
const SECTOR_LEN: usize = 512;
const PAGE_SECTORS: u64 = 8;
const _: () = assert!(SECTOR_LEN as u64 == SECTOR_SIZE && PAGE_LEN == 8 * SECTOR_LEN);
/// What a page costs in all, with its place in a row and the allocator's share. One that is alone in
/// its row costs an eighth more.
const PAGE_COST: usize = PAGE_LEN + 64;

/// Spare pages that are made of what was left behind, before there have to be.
const SPARE: usize = 1024;

/// The page of a sector.
pub(super) fn page_of(sector: Sector) -> PageNumber {
    sector.0 / PAGE_SECTORS
}

/// A bounded set of pages.
#[derive(Debug)]
pub(super) struct PageCache {
    pages_max: usize,
    held: RwLock<ByPlace<Box<Page>>>,
    /// Pages without content, so that memory is used again instead of given back.
    spare: Mutex<Vec<Box<Page>>>,
}

#[derive(Clone, Debug)]
struct Page {
    /// A bit for each sector that is here.
    here: u8,
    bytes: [u8; PAGE_LEN],
}

/// Pages that are being filled by one thread, ascending.
pub(super) struct Gathered<'a> {
    cache: &'a PageCache,
    pages: Vec<(PageNumber, Box<Page>)>,
}

/// Where what is read goes: a buffer for whole sectors.
pub(super) struct Destination<'a> {
    start: u64,
    bytes: &'a mut [u8],
}

impl PageCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (pages_max, held, spare) = (bytes_max / PAGE_COST, RwLock::default(), Mutex::default());
        Self { pages_max, held, spare }
    }

    /// Copies what is here of segments, which ascend, to where it is wanted; returns the rest.
    pub(super) fn read(
        &self,
        wanted: impl IntoIterator<Item = Segment>,
        to: &mut Destination<'_>,
    ) -> Vec<Segment> {
        let held = self.held();
        let mut held = held.finder();
        let mut missing: Vec<Segment> = Vec::new();
        for part in wanted.into_iter().flat_map(in_pages) {
            let page = held.get(page_of(part.extent().start));
            match page.and_then(|page| page.get(part)) {
                Some(bytes) => to.sectors(part).copy_from_slice(bytes),
                None => Segment::push_joined(&mut missing, part),
            }
        }
        missing
    }

    /// The segments, which ascend, of which not all is here.
    pub(super) fn missing(&self, segments: impl Iterator<Item = Segment>) -> Vec<Segment> {
        let held = self.held();
        let mut held = held.finder();
        let mut is_here = |part: Segment| {
            let page = held.get(page_of(part.extent().start));
            page.is_some_and(|page| page.get(part).is_some())
        };
        segments.filter(|segment| !in_pages(*segment).all(&mut is_here)).collect()
    }

    /// Whether all of a segment is here.
    pub(super) fn holds(&self, segment: Segment) -> bool {
        self.missing(std::iter::once(segment)).is_empty()
    }

    /// How far away a page may be to be worth keeping; nothing if none is.
    pub(super) fn reach(&self, positions: &Positions) -> Option<u64> {
        let held = self.held();
        if held.len() < self.pages_max {
            return Some(BEHIND);
        }
        let (_, farthest) = positions.farthest(&held)?;
        farthest.checked_sub(1)
    }

    /// Begins to fill pages.
    pub(super) fn gather(&self) -> Gathered<'_> {
        Gathered { cache: self, pages: Vec::new() }
    }

    /// Keeps pages, and drops the farthest.
    pub(super) fn keep(&self, gathered: Gathered<'_>, positions: &Positions) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let mut spare = self.spare();
        for (number, page) in gathered.pages {
            held.insert(number, page, |there, page| {
                there.add(&page);
                spare.push(page);
            });
        }
        while held.len() > self.pages_max {
            let (farthest, _) = positions.farthest(&held).expect("more are held than none");
            spare.extend(held.remove(farthest));
        }
        // Before new memory is touched, what all readers have left behind makes room.
        while held.len() > self.pages_max / 4
            && spare.len() < SPARE
            && let Some(first) = held.first().filter(|first| positions.is_behind(*first))
        {
            spare.extend(held.remove(first));
        }
        spare.truncate(self.pages_max - held.len());
    }

    fn blank(&self) -> Box<Page> {
        let spare = self.spare().pop();
        let mut page = spare.unwrap_or_else(|| Box::new(Page { here: 0, bytes: [0; PAGE_LEN] }));
        page.here = 0;
        page
    }

    fn held(&self) -> RwLockReadGuard<'_, ByPlace<Box<Page>>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Box<Page>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathered<'_> {
    /// Adds the data of a segment, which comes after all others, as far as its pages are `wanted`.
    pub(super) fn add<'d>(
        &mut self,
        segment: Segment,
        mut data: impl Iterator<Item = &'d [u8]>,
        wanted: impl Fn(PageNumber) -> bool,
    ) {
        let mut piece: &[u8] = &[];
        for part in in_pages(segment) {
            let number = page_of(part.extent().start);
            let mut target = wanted(number).then(|| self.page(number).place(part));
            let mut left = bytes_of(part);
            while left > 0 {
                if piece.is_empty() {
                    piece = data.next().expect("data for all of the segment");
                }
                let (now, rest) = piece.split_at(left.min(piece.len()));
                if let Some(target) = &mut target {
                    let (filled, unfilled) = std::mem::take(target).split_at_mut(now.len());
                    filled.copy_from_slice(now);
                    *target = unfilled;
                }
                (piece, left) = (rest, left - now.len());
            }
        }
    }

    /// The page of a number, which is that of the last one or higher.
    fn page(&mut self, number: PageNumber) -> &mut Page {
        if self.pages.last().is_none_or(|(last, _)| *last != number) {
            self.pages.push((number, self.cache.blank()));
        }
        let (_, page) = self.pages.last_mut().expect("one was pushed");
        page
    }
}

impl Page {
    /// The bytes of a part of it, if all of them are here.
    fn get(&self, part: Segment) -> Option<&[u8]> {
        let bits = bits_of(part);
        (self.here & bits == bits).then(|| &self.bytes[within_page(part)])
    }

    /// Where the bytes of a part of it go; from now on they count as here.
    fn place(&mut self, part: Segment) -> &mut [u8] {
        self.here |= bits_of(part);
        &mut self.bytes[within_page(part)]
    }

    /// Adds what another page of the same number holds.
    fn add(&mut self, other: &Self) {
        for sector in (0..8).filter(|sector| other.here & 1 << sector != 0) {
            let bytes = sector * SECTOR_LEN..(sector + 1) * SECTOR_LEN;
            self.bytes[bytes.clone()].copy_from_slice(&other.bytes[bytes]);
        }
        self.here |= other.here;
    }
}

impl<'a> Destination<'a> {
    /// A buffer for the sectors from `start` on.
    pub(super) fn new(start: Sector, bytes: &'a mut [u8]) -> Self {
        Self { start: start.0, bytes }
    }

    /// The place of a segment's sectors, which the buffer is for.
    pub(super) fn sectors(&mut self, segment: Segment) -> &mut [u8] {
        let begin = (segment.extent().start.0 - self.start) * SECTOR_SIZE;
        let begin = usize::try_from(begin).expect("within the buffer");
        &mut self.bytes[begin..begin + bytes_of(segment)]
    }
}

/// The parts of a segment, none of which goes beyond a page.
fn in_pages(segment: Segment) -> impl Iterator<Item = Segment> {
    let mut rest = Some(segment);
    std::iter::from_fn(move || {
        let segment = rest?;
        let next_page = Sector((page_of(segment.extent().start) + 1) * PAGE_SECTORS);
        let (part, after) = segment.split_at(next_page);
        rest = after;
        Some(part)
    })
}

/// The bits of a part of a page.
fn bits_of(part: Segment) -> u8 {
    let extent = part.extent();
    let bits = (1u16 << extent.sectors) - 1;
    u8::try_from(bits << (extent.start.0 % PAGE_SECTORS)).expect("within a page")
}

fn within_page(part: Segment) -> std::ops::Range<usize> {
    let sector = usize::try_from(part.extent().start.0 % PAGE_SECTORS).expect("less than a page");
    let begin = sector * SECTOR_LEN;
    begin..begin + bytes_of(part)
}

fn bytes_of(segment: Segment) -> usize {
    usize::try_from(segment.extent().len().0).expect("a segment is shorter than 2 TiB")
}
