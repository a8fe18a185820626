//! The conflict table: what was written since an instant, by all tracked disks.
//!
//! Before a driver gets a write, the programs note its chunks in the *current* one of two halves
//! (`bpf/conflict.h`). [`ConflictTable::flip`] makes the other half current. A block that is read
//! after that, and is not noted in the new half by the time the read is done, holds nothing that
//! was issued after the flip.
//!
//! Why that needs no waiting for programs under way: one that loaded the old half did so before
//! the flip was visible, so its write was in flight at the flip, as at a crash. One that starts
//! later loads the new half, and its note precedes the write, hence its data, hence every read
//! that sees the data.
//!
//! A half is a hashed set: it can name a chunk that nobody wrote, and never fails to name one that
//! somebody did. Invariant: the half that a flip makes current is empty, but for late notes, which
//! are conflicts too many.
//!
//! The table knows nothing of reads, attempts or points.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{
        AtomicU64,
        Ordering::{Relaxed, SeqCst},
        fence,
    },
};

use blocks::{ChunkRange, Slot};

use crate::{limits::CONFLICT_WORDS_LOG2, mapped::Mapped, sys};

/// Shape (`bpf/tables.h`): the current half; an overflow word a half; how many writes in flight
/// were spilled; reserved; the halves.
const CURRENT: usize = 0;
const OVERFLOW: usize = 1;
const SPILLED: usize = 3;
#[cfg(feature = "mutants")]
const SUMMARY: usize = 4;
#[cfg(feature = "mutants")]
const SUMMARY_DELAY: usize = 5;
const HALVES: usize = 8;
const HALF_WORDS: usize = 1 << CONFLICT_WORDS_LOG2;
const WORDS: usize = HALVES + 2 * HALF_WORDS;

/// The conflict table, for one thread at a time; no call but [`Self::misses`] enters the kernel.
///
/// There is one table for all disks and one reader: a second one would flip under the first.
#[derive(Debug)]
pub struct ConflictTable {
    map: Mapped,
    /// The programs that note; the only ones a miss of which hides a conflict.
    programs: Vec<OwnedFd>,
    current: usize,
    other_is_clear: bool,
}

impl ConflictTable {
    pub(crate) fn new(map: &impl AsFd, programs: Vec<OwnedFd>) -> io::Result<Self> {
        let map = Mapped::new(map, WORDS as u64)?;
        let current = usize::from(map.words()[CURRENT].load(SeqCst) & 1 == 1);
        // The process before this one may have ended between two flips.
        Ok(Self { map, programs, current, other_is_clear: false })
    }

    /// From now on looks tell what is issued from now on. The instant T of a cut is when this
    /// returns: whatever was acknowledged before can be harvested then, whatever is issued later
    /// is a conflict, and what is in flight may be read either way.
    pub fn flip(&mut self) {
        if !self.other_is_clear {
            self.clear_other();
        }
        self.current = 1 - self.current;
        self.other_is_clear = false;
        // A full fence: the clearing and this are visible before anything that follows happens.
        self.map.words()[CURRENT].swap(self.current as u64, SeqCst);
    }

    /// Whether a write that was issued since the last flip may have touched one of `chunks`.
    ///
    /// To be asked when the read of these chunks is done. Says so without reason now and then.
    pub fn conflicted(&self, slot: Slot, chunks: ChunkRange) -> bool {
        fence(SeqCst);
        let half = self.half(self.current);
        self.overflow(self.current).load(SeqCst) != 0
            || words_of(chunks).any(|(index, bits)| {
                let place = Place::of(slot, index);
                half[place.word].load(SeqCst) & place.turned(bits) != 0
            })
    }

    /// Whether something was issued since the last flip that is noted as touching everything: a
    /// long range, a passthrough command, an unknown operation.
    pub fn overflowed(&self) -> bool {
        fence(SeqCst);
        self.overflow(self.current).load(SeqCst) != 0
    }

    /// Empties the half that is not current, for the next flip, which would otherwise do it.
    /// Some tens of microseconds; best spent after an attempt at a cut and not in it.
    pub fn clear_other(&mut self) {
        let other = 1 - self.current;
        for word in self.half(other).iter().chain([self.overflow(other)]) {
            if word.load(Relaxed) != 0 {
                word.swap(0, SeqCst);
            }
        }
        self.other_is_clear = true;
    }

    /// How often the kernel skipped a program that notes, because it was running on that processor
    /// already. Two system calls. If it has changed since before the last flip, then writes may
    /// have been issued that no look tells of.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn misses(&self) -> io::Result<u64> {
        // A program counts before its write goes on, and we ask after we have seen the data.
        fence(SeqCst);
        let misses = |program: &OwnedFd| Ok(sys::program_info(program.as_fd())?.recursion_misses);
        self.programs.iter().map(misses).sum()
    }

    /// Takes the summary that the programs keep by mistake (`bpf/mutant.h`): which chunks may be
    /// dirty, by the last six bits of their numbers.
    #[cfg(feature = "mutants")]
    pub fn take_summary(&self) -> u64 {
        self.map.words()[SUMMARY].swap(0, SeqCst)
    }

    /// Has the programs set some of the summary's bits so much later than those of the bitmaps.
    #[cfg(feature = "mutants")]
    pub fn delay_summary(&self, by: std::time::Duration) {
        let delay = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.map.words()[SUMMARY_DELAY].store(delay, SeqCst);
    }

    fn half(&self, half: usize) -> &[AtomicU64] {
        &self.map.words()[HALVES + half * HALF_WORDS..][..HALF_WORDS]
    }

    fn overflow(&self, half: usize) -> &AtomicU64 {
        &self.map.words()[OVERFLOW + half]
    }
}

/// How many writes in flight found no room in their table.
#[derive(Debug)]
pub(crate) struct Spilled(Mapped);

impl Spilled {
    pub(crate) fn new(map: &impl AsFd) -> io::Result<Self> {
        Mapped::new(map, HALVES as u64).map(Self)
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0.words()[SPILLED].load(SeqCst) == 0
    }
}

/// Where a word of a disk's chunks, 64 neighbours, is in a half; as `note_word` in
/// `bpf/conflict.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    word: usize,
    turn: u32,
}

impl Place {
    fn of(slot: Slot, index: u64) -> Self {
        const LINES_LOG2: u32 = CONFLICT_WORDS_LOG2 - 3;
        let eight = index / 8;
        let hash = (u64::from(slot.0) << 32 ^ eight).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (line, rest) = (hash >> (64 - LINES_LOG2), hash << LINES_LOG2);
        let within = (index + (rest << 6 >> 61)) % 8;
        Self {
            word: usize::try_from(line * 8 + within).expect("a few bits"),
            turn: u32::try_from(rest >> 58).expect("6 bits"),
        }
    }

    /// The bits of the disk's word, as they stand in the table's.
    fn turned(self, bits: u64) -> u64 {
        bits.rotate_left(self.turn)
    }
}

/// The words that hold a range of chunks: their indices, and the bits of the range in them.
fn words_of(chunks: ChunkRange) -> impl Iterator<Item = (u64, u64)> {
    let (start, end) = (chunks.start.0, chunks.end.0);
    (start / 64..end.div_ceil(64)).filter_map(move |index| {
        let from = start.saturating_sub(64 * index);
        let count = (end - 64 * index).min(64).checked_sub(from).filter(|count| *count > 0)?;
        Some((index, u64::MAX >> (64 - count) << from))
    })
}

#[cfg(test)]
mod tests;
