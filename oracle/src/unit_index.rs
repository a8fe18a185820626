//! The writes on each block of one disk.
//!
//! Invariant: the entries of a block rise by the time of issue.

use std::ops::Range;

use crate::{
    History, Layout,
    history::{Effect, Write},
    layout::Place,
};

/// One write on one unit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Its index.
    pub(crate) write: u32,
    /// The index of the one that completed last, of this and the entries before.
    pub(crate) latest: u32,
}

/// Which kinds of writes reached a unit, besides stamps at first hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds {
    pub(crate) discards: bool,
    pub(crate) zeroes: bool,
    pub(crate) repeats: bool,
}

/// All blocks of one disk.
pub(crate) struct UnitIndex {
    /// The entries of block `b` are `entries[offsets[b]..offsets[b + 1]]`.
    offsets: Vec<usize>,
    entries: Vec<Entry>,
    /// What was written to each block.
    kinds: Vec<Kinds>,
}

impl Kinds {
    fn note(&mut self, write: u32, effect: Effect) {
        match effect {
            Effect::Stamps(stamps) => self.repeats |= stamps != write,
            Effect::Zeroes => self.zeroes = true,
            Effect::Anything => self.discards = true,
        }
    }
}

impl UnitIndex {
    /// Indexes the writes of the disk at `place`; `order` has all of the run's by issue.
    pub(crate) fn new(layout: &Layout, place: Place, writes: &[Write], order: &[u32]) -> Self {
        let blocks = layout.blocks(place);
        let per_block = layout.block_sectors(place);
        let range = |write: &Write| blocks_of(write, per_block);
        let here = || {
            let here = |write: &Write| write.place as usize == place;
            order.iter().map(|at| (*at, &writes[*at as usize])).filter(move |(_, w)| here(w))
        };
        let mut offsets = vec![0; blocks + 1];
        let mut kinds = vec![Kinds::default(); blocks];
        for (at, write) in here() {
            for block in range(write) {
                offsets[block + 1] += 1;
                kinds[block].note(at, write.effect);
            }
        }
        let mut total = 0;
        for offset in &mut offsets {
            total += *offset;
            *offset = total;
        }
        let mut entries = vec![Entry { write: 0, latest: 0 }; total];
        // While it is being filled, `offsets[b]` is where the next entry of block b goes.
        for (at, write) in here() {
            for block in range(write) {
                entries[offsets[block]] = Entry { write: at, latest: at };
                offsets[block] += 1;
            }
        }
        offsets.rotate_right(1);
        offsets[0] = 0;
        let mut index = Self { offsets, entries, kinds };
        index.note_latest(writes);
        index
    }

    /// The writes on a block, by issue.
    pub(crate) fn entries(&self, block: usize) -> &[Entry] {
        &self.entries[self.offsets[block]..self.offsets[block + 1]]
    }

    /// Which kinds of writes reached a block.
    pub(crate) fn kinds(&self, block: usize) -> Kinds {
        self.kinds[block]
    }

    fn note_latest(&mut self, writes: &[Write]) {
        for bounds in self.offsets.windows(2) {
            let entries = &mut self.entries[bounds[0]..bounds[1]];
            for at in 1..entries.len() {
                let (before, this) = (entries[at - 1].latest, entries[at].write);
                let completed = |index: u32| writes[index as usize].completed;
                let latest = if completed(before) > completed(this) { before } else { this };
                entries[at].latest = latest;
            }
        }
    }
}

/// The blocks that a write covers.
fn blocks_of(write: &Write, per_block: u64) -> Range<usize> {
    let extent = History::extent(write);
    let index = |block: u64| usize::try_from(block).expect("64-bit");
    index(extent.start.0 / per_block)..index(extent.end().0 / per_block)
}
