//! What the programs counted, summed over processors.
//!
//! Each copy of the programs counts for itself. A write to a bio-based disk is counted by the copy
//! that marked it, so the copies' counts are added. A completed request is counted by every copy
//! that ran: one that was skipped is behind, and the largest is the best known lower bound, since an
//! event is lost only if all copies were skipped. What is issued is counted by the first copy alone.

use blocks::Slot;
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::{device::DiskClass, limits::COPIES};

/// What was seen of one disk since it was added. Numbers of sectors unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Written by write and zone append.
    pub written: u64,
    /// Discarded.
    pub discarded: u64,
    /// Changed by anything else: write zeroes, secure erase.
    pub other: u64,
    /// Completions.
    pub events: u64,
    /// Ring records that found no room.
    pub ring_lost: u64,
    /// Given to the driver, less what came back undone.
    pub issued: u64,
}

impl Counters {
    /// Everything that was done.
    pub const fn completed(&self) -> u64 {
        self.written + self.discarded + self.other
    }

    /// What was counted since the counters were `earlier`.
    pub(crate) const fn since(&self, earlier: &Self) -> Self {
        Self {
            written: self.written.wrapping_sub(earlier.written),
            discarded: self.discarded.wrapping_sub(earlier.discarded),
            other: self.other.wrapping_sub(earlier.other),
            events: self.events.wrapping_sub(earlier.events),
            ring_lost: self.ring_lost.wrapping_sub(earlier.ring_lost),
            issued: self.issued.wrapping_sub(earlier.issued),
        }
    }

    /// The lesser of each. They may be a little below zero, and wrapped.
    pub(crate) fn least(&self, other: &Self) -> Self {
        let least = |a: u64, b: u64| a.cast_signed().min(b.cast_signed()).cast_unsigned();
        Self {
            written: least(self.written, other.written),
            discarded: least(self.discarded, other.discarded),
            other: least(self.other, other.other),
            events: least(self.events, other.events),
            ring_lost: least(self.ring_lost, other.ring_lost),
            issued: least(self.issued, other.issued),
        }
    }

    /// What was issued and is not yet done.
    ///
    /// When nothing is in flight this is a constant of the disk: zero, or less by what was in flight
    /// when it was added. If it has fallen since, so many sectors were issued unseen: a cut in
    /// between may hold writes of after its instant.
    pub const fn outstanding(&self) -> i64 {
        self.issued.wrapping_sub(self.completed()).cast_signed()
    }
}

/// The counters could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The kernel refused.
    #[error("reading the counters of the tracking programs")]
    Kernel(#[from] libbpf_rs::Error),
    /// The map is not of the expected shape.
    #[error("the counters of the tracking programs have an unexpected shape")]
    Shape,
}

/// What each copy of a program counts for itself.
const OF_COPIES: usize = COPIES as usize;

/// Where the fields are in a record (`bpf/tables.h`), in words. Two more are the programs' own clock.
const WRITTEN: usize = 0;
const EVENTS: usize = WRITTEN + OF_COPIES;
const ISSUED: usize = EVENTS + OF_COPIES;
const REQUEUED: usize = ISSUED + 1;
const DISCARDED: usize = REQUEUED + 1;
const OTHER: usize = DISCARDED + OF_COPIES;
const RING_LOST: usize = OTHER + OF_COPIES;
const WORDS: usize = RING_LOST + 3 * OF_COPIES;

/// Reads the counters of `slot`.
///
/// What is issued is read after what was completed, so that writes which start and end meanwhile
/// never look unissued.
pub(crate) fn read(map: &MapHandle, slot: Slot, class: DiskClass) -> Result<Counters, ReadError> {
    let done = read_words(map, slot)?;
    let given = read_words(map, slot)?;
    let of_copies = |field: usize| done[field..field + OF_COPIES].iter().copied();
    let joined = |field| match class {
        DiskClass::RequestBased => of_copies(field).fold(0, u64::max),
        DiskClass::BioBased => of_copies(field).fold(0, u64::wrapping_add),
    };
    Ok(Counters {
        written: joined(WRITTEN),
        discarded: joined(DISCARDED),
        other: joined(OTHER),
        events: joined(EVENTS),
        // A record is tried by the copy that set the bit, so these add up.
        ring_lost: of_copies(RING_LOST).sum(),
        issued: given[ISSUED].wrapping_sub(given[REQUEUED]),
    })
}

/// Sets all counters of `slot` to zero. No program must be counting there.
pub(crate) fn reset(map: &MapHandle, slot: Slot) -> Result<(), ReadError> {
    let cpus = libbpf_rs::num_possible_cpus()?;
    let zeroes = vec![vec![0u8; WORDS * 8]; cpus];
    Ok(map.update_percpu(&slot.0.to_ne_bytes(), &zeroes, MapFlags::ANY)?)
}

/// The fields, each summed over processors.
fn read_words(map: &MapHandle, slot: Slot) -> Result<[u64; WORDS], ReadError> {
    let key = slot.0.to_ne_bytes();
    let cpus = map.lookup_percpu(&key, MapFlags::ANY)?.ok_or(ReadError::Shape)?;
    let mut sums = [0u64; WORDS];
    for cpu in cpus {
        let words = cpu.chunks_exact(8).map(|word| word.try_into().map(u64::from_le_bytes));
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum += word.map_err(|_| ReadError::Shape)?;
        }
    }
    Ok(sums)
}
