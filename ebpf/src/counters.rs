//! What the programs counted, summed over processors.
//!
//! Each copy of the programs counts for itself. A write to a bio-based disk is counted by the copy
//! that marked it, so the copies' counts are added. A completed request is counted by every copy
//! that ran: one that was skipped is behind, and the largest is the best known lower bound, since an
//! event is lost only if all copies were skipped. What is issued is counted by the first copy alone.

use blocks::Slot;
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::{device::DiskClass, limits::COPIES};

pub use ebpf_object::Counters;

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
        DiskClass::RequestBased | DiskClass::Multipath => of_copies(field).fold(0, u64::max),
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
