//! What is being written to bio-based disks now: the programs' table of bios under way, mapped.
//!
//! Shape (`bpf/tables.h`): entries of four words: key; first sector; sectors and device number;
//! slot and operation. The key is 0 in a free entry, and carries the entry's state in its lowest
//! bits (`bpf/in_flight.h`). What found no room in it is elsewhere, and how much that is stands in
//! the conflict table's record.
//!
//! The programs change entries meanwhile: a key that is the same before and after the other words
//! were read, and says that they are filled, vouches for them.

use std::{
    hint, io,
    os::fd::AsFd,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, SeqCst},
        fence,
    },
};

use blocks::{Extent, Sector, Slot};

use crate::{
    conflicts::Spilled,
    limits::{IN_FLIGHT_BUCKETS_LOG2, IN_FLIGHT_WAYS},
    mapped::Mapped,
};

/// The most buckets there can be.
pub(crate) const BUCKETS: u32 = 1 << IN_FLIGHT_BUCKETS_LOG2;

const ENTRY_WORDS: usize = 4;

/// States in a key.
const DONE: u64 = 1;
const FILLING: u64 = 2;

/// How often an entry that is being filled is looked at again: a program does that in nanoseconds,
/// unless its processor is taken away.
const LOOKS: u32 = 10_000;

/// Whether a list holds everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Listed {
    /// All writes that were in flight.
    All,
    /// There were others.
    Some,
}

#[derive(Debug)]
pub(crate) struct InFlightTable {
    entries: Mapped,
    spilled: Spilled,
}

impl InFlightTable {
    pub(crate) fn new(map: &impl AsFd, buckets: u32, spilled: Spilled) -> io::Result<Self> {
        let words = u64::from(buckets) * u64::from(IN_FLIGHT_WAYS) * ENTRY_WORDS as u64;
        Ok(Self { entries: Mapped::new(map, words)?, spilled })
    }

    /// Hands out what is in flight in `slot`: what was when this was called, and is still when it
    /// is looked at.
    pub(crate) fn list(&self, slot: Slot, out: &mut dyn FnMut(Extent)) -> Listed {
        fence(SeqCst);
        let mut listed = if self.spilled.is_none() { Listed::All } else { Listed::Some };
        for entry in self.entries.words().chunks_exact(ENTRY_WORDS) {
            match read(entry) {
                Ok(Some((of, extent))) if of == slot && !extent.is_empty() => out(extent),
                Ok(_) => {}
                Err(StillFilling) => listed = Listed::Some,
            }
        }
        listed
    }
}

/// A program does not get on with it.
struct StillFilling;

/// The slot and range of an entry; nothing if it holds no write in flight.
fn read(entry: &[AtomicU64]) -> Result<Option<(Slot, Extent)>, StillFilling> {
    for _ in 0..LOOKS {
        let key = entry[0].load(Acquire);
        if key == 0 || key & DONE != 0 {
            return Ok(None);
        }
        let words = [1, 2, 3].map(|word| entry[word].load(Acquire));
        if key & FILLING == 0 && entry[0].load(Acquire) == key {
            let low = |word: u64| word & u64::from(u32::MAX);
            let slot = Slot(u32::try_from(low(words[2])).expect("masked"));
            let extent = Extent { start: Sector(words[0]), sectors: low(words[1]) };
            return Ok(Some((slot, extent)));
        }
        hint::spin_loop();
    }
    Err(StillFilling)
}

#[cfg(test)]
mod tests;
