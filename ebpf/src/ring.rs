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

use blocks::{Extent, Mark, MarkKind, MonotonicNs, Sector, Slot};

pub(crate) use ebpf_object::ring::RingSize;
use ebpf_object::ring::{MASK, RECORDS, WORDS};

use crate::mapped::Mapped;

/// Of the writers' entry.
const BEGUN: usize = 0;
/// Of the reader's.
const TAKEN: usize = 2 * WORDS;
/// Of a record.
const TURN: usize = 3;

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
