//! Moving bits from the kernel's bitmaps to the pending one, over plain slices of words.
//!
//! Order, for each word, and what a crash of this process between two steps leaves:
//!
//! 1. read the dirty word; (crash: nothing happened)
//! 2. OR it into pending; (crash: the bits are in both, and are handed out twice)
//! 3. clear exactly the bits read, which leaves those set meanwhile; (crash: in pending)
//! 4. hand the bits out.
//!
//! So a bit is in one of the bitmaps at every instant. Clearing is a locked read-modify-write and
//! a full fence ends the harvest, so that blocks read afterwards show at least the writes whose
//! bits were cleared.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
    fence,
};

use crate::limits::INLINE_WORDS;

/// The bitmaps of one disk.
#[derive(Clone, Copy)]
pub(crate) struct Bitmaps<'a> {
    /// One bit a chunk, set by the kernel.
    pub(crate) dirty: &'a [AtomicU64],
    /// One bit for [`crate::limits::COARSE_CHUNKS`] chunks, set by the kernel.
    pub(crate) coarse: &'a [AtomicU64],
    /// One bit a chunk, ours; as long as `dirty`.
    pub(crate) pending: &'a [AtomicU64],
    /// How many chunks the disk has.
    pub(crate) chunks: u64,
}

impl Bitmaps<'_> {
    /// Moves all bits to pending, and hands out each word that held some: its index, and the bits
    /// that were moved. A word may come twice.
    pub(crate) fn harvest(&self, out: &mut dyn FnMut(u64, u64)) {
        self.harvest_of(u64::MAX, out);
    }

    /// The same for some bits of each word of `dirty`.
    pub(crate) fn harvest_of(&self, wanted: u64, out: &mut dyn FnMut(u64, u64)) {
        for (index, word) in (0..).zip(self.dirty) {
            // A bit that this load misses is in the next harvest; its write was not yet
            // acknowledged when this one began, or the load would see it.
            let bits = word.load(Relaxed) & wanted;
            if bits != 0 {
                self.keep(index, bits);
                word.fetch_and(!bits, SeqCst);
                out(index, bits);
            }
        }
        self.harvest_coarse(out);
        fence(SeqCst);
    }

    fn harvest_coarse(&self, out: &mut dyn FnMut(u64, u64)) {
        for (index, word) in (0..).zip(self.coarse) {
            let bits = word.load(Relaxed);
            if bits == 0 {
                continue;
            }
            let covered = || set_bits(bits).flat_map(|bit| self.behind(64 * index + bit));
            covered().for_each(|(index, bits)| self.keep(index, bits));
            word.fetch_and(!bits, SeqCst);
            covered().for_each(|(index, bits)| out(index, bits));
        }
    }

    /// The words of chunks behind a bit of the coarse bitmap, clipped to the disk.
    fn behind(&self, coarse_bit: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let chunks = self.chunks;
        let first = coarse_bit * u64::from(INLINE_WORDS);
        let words = first..first + u64::from(INLINE_WORDS);
        words.map(move |index| (index, full_word(chunks, index))).filter(|(_, bits)| *bits != 0)
    }

    fn keep(&self, index: u64, bits: u64) {
        let index = usize::try_from(index).expect("an index of a slice in memory");
        self.pending[index].fetch_or(bits, SeqCst);
    }

    /// Makes all of the disk pending.
    pub(crate) fn fill_pending(&self) {
        for (index, word) in (0..).zip(self.pending) {
            word.fetch_or(full_word(self.chunks, index), SeqCst);
        }
    }
}

/// The word at `index` of a bitmap of which all `chunks` bits are set.
fn full_word(chunks: u64, index: u64) -> u64 {
    match chunks.saturating_sub(64 * index) {
        0 => 0,
        bits @ 1..64 => (1 << bits) - 1,
        _ => u64::MAX,
    }
}

fn set_bits(word: u64) -> impl Iterator<Item = u64> {
    (0..64).filter(move |bit| word >> bit & 1 == 1)
}

#[cfg(test)]
mod tests;
