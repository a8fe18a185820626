//! The ring of marks, polled.
//!
//! Shape (`bpf/tables.h`): entries of four words. Entry 0 is the writers': how many records were
//! begun, ever; a mask that makes a record's number its place; how many may wait at once. Entry 2 is
//! the reader's: how many were taken, ever. Records follow from entry 4 on: sector, time, sectors
//! (u32), slot << 8 | kind (u32), and the record's turn, which is its number counted from 1 and is
//! written last.
//!
//! Invariants: `taken <= begun <= taken + records`, since `most` is less than there is room for by
//! as many as can be begun at one moment. The kernel never wakes a reader: the owner polls every few
//! tens of milliseconds.

use std::{
    io,
    os::fd::AsFd,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
    },
};

use blocks::{ByteLen, Extent, Mark, MarkKind, MonotonicNs, Sector, Slot};

use crate::mapped::Mapped;

/// Entries before the first record.
const RECORDS: u32 = 4;

const WORDS: usize = 4;
/// Of the writers' entry.
const BEGUN: usize = 0;
const MASK: usize = 1;
const MOST: usize = 2;
/// Of the reader's.
const TAKEN: usize = 2 * WORDS;
/// Of a record.
const TURN: usize = 3;

/// How many records a processor can have under way: one in each context that does block I/O.
const CONTEXTS: u64 = 3;

/// The size of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingSize {
    records: u32,
    most: u64,
}

impl RingSize {
    /// The size of a ring of `len`, or as many records more as `processors` can have under way
    /// twice. Nothing if `len` is not a power of two from 4 KiB to 1 GiB.
    pub(crate) fn new(len: ByteLen, processors: usize) -> Option<Self> {
        let sound = len.0.is_power_of_two() && (4096..=1 << 30).contains(&len.0);
        let under_way = CONTEXTS * processors as u64;
        let records = (len.0 / (8 * WORDS as u64)).max((2 * under_way).next_power_of_two());
        let records = u32::try_from(records).ok().filter(|_| sound)?;
        Some(Self { records, most: u64::from(records) - under_way })
    }

    /// How many entries its map has.
    pub(crate) fn entries(self) -> u32 {
        RECORDS + self.records
    }

    /// Prepares a ring, before there are programs that write.
    pub(crate) fn prepare(self, map: &impl AsFd) -> io::Result<()> {
        let head = Mapped::new(map, u64::from(RECORDS) * WORDS as u64)?;
        head.words()[MASK].store(u64::from(self.records) - 1, SeqCst);
        head.words()[MOST].store(self.most, SeqCst);
        Ok(())
    }
}

/// Reads the ring. One reader at a time.
#[derive(Debug)]
pub(crate) struct RingReader {
    map: Mapped,
    mask: u64,
}

impl RingReader {
    /// Goes on where the last reader ended.
    pub(crate) fn new(map: &impl AsFd, entries: u32) -> io::Result<Self> {
        let map = Mapped::new(map, u64::from(entries) * WORDS as u64)?;
        let mask = map.words()[MASK].load(SeqCst);
        if mask != u64::from(entries - RECORDS) - 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the ring has no such shape"));
        }
        Ok(Self { map, mask })
    }

    /// Hands out what is in the ring, and returns how many records that were. What is begun
    /// meanwhile is for the next time, so that a fast writer can't keep it here.
    pub(crate) fn poll(&mut self, out: &mut dyn FnMut(Mark)) -> usize {
        /// How many records are taken between two words to the writers.
        const BATCH: u64 = 256;
        let first = self.map.words()[TAKEN].load(Relaxed);
        let begun = self.map.words()[BEGUN].load(Acquire);
        let mut next = first;
        while next != begun {
            // One that is being written ends it; the rest is for the next time.
            let Some(mark) = self.record(next) else { break };
            out(mark);
            next += 1;
            if next.is_multiple_of(BATCH) {
                self.give_back(next);
            }
        }
        self.give_back(next);
        usize::try_from(next - first).expect("no more than there are in memory")
    }

    /// The record of a number; nothing if it is not complete.
    fn record(&self, number: u64) -> Option<Mark> {
        let entry = usize::try_from(number & self.mask).expect("an index of a slice in memory");
        let words = &self.map.words()[(RECORDS as usize + entry) * WORDS..][..WORDS];
        (words[TURN].load(Acquire) == number + 1).then(|| decode(words))
    }

    /// Lets writers have the place of what was taken.
    fn give_back(&self, taken: u64) {
        self.map.words()[TAKEN].store(taken, Release);
    }
}

fn decode(record: &[AtomicU64]) -> Mark {
    let word = |at: usize| record[at].load(Relaxed);
    let kind = match word(2) >> 32 & 0xff {
        1 => MarkKind::Discard,
        2 => MarkKind::Zeroes,
        _ => MarkKind::Write,
    };
    Mark {
        slot: Slot(u32::try_from(word(2) >> 40).expect("24 bits are left")),
        extent: Extent { start: Sector(word(0)), sectors: word(2) & u64::from(u32::MAX) },
        at: MonotonicNs(word(1)),
        kind,
    }
}

#[cfg(test)]
mod tests;
