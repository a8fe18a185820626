//! The ring of marks, polled.
//!
//! A record is 24 bytes: sector, time, sectors (u32), slot << 8 | kind (u32); see `bpf/tables.h`.
//! The kernel never wakes a reader: the owner polls every few tens of milliseconds.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use blocks::{Extent, Mark, MarkKind, MonotonicNs, Sector, Slot};
use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};

/// Records taken from the ring at a time, which bounds what is buffered between it and the caller.
const BATCH: usize = 4096;

/// Reads the ring. One reader at a time.
#[derive(Debug)]
pub(crate) struct RingReader {
    ring: RingBuffer<'static>,
    batch: Arc<Mutex<Vec<Mark>>>,
}

impl RingReader {
    pub(crate) fn new(map: &MapHandle) -> libbpf_rs::Result<Self> {
        let batch = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&batch);
        let mut builder = RingBufferBuilder::new();
        builder.add(map, move |record: &[u8]| {
            let mut batch = sink.lock().unwrap_or_else(PoisonError::into_inner);
            batch.extend(decode(record));
            0
        })?;
        Ok(Self { ring: builder.build()?, batch })
    }

    /// Hands out what is in the ring, and returns how many records that were. Ends when the ring
    /// is empty, or after as many records as it can hold, so that a fast writer can't keep it here.
    pub(crate) fn poll(&mut self, capacity: usize, out: &mut dyn FnMut(Mark)) -> usize {
        let mut total = 0;
        while total < capacity {
            let count = usize::try_from(self.ring.consume_raw_n(BATCH)).unwrap_or(0);
            let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
            mem::take(&mut *batch).into_iter().for_each(&mut *out);
            total += count;
            if count < BATCH {
                break;
            }
        }
        total
    }
}

/// A mark; nothing if the record is of another length, which no program of ours writes.
fn decode(record: &[u8]) -> Option<Mark> {
    let record: &[u8; 24] = record.try_into().ok()?;
    let word = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("8 bytes"));
    let sectors = word(16) & u64::from(u32::MAX);
    let slot = u32::try_from(word(16) >> 40).ok()?;
    let kind = match word(16) >> 32 & 0xff {
        1 => MarkKind::Discard,
        2 => MarkKind::Zeroes,
        _ => MarkKind::Write,
    };
    Some(Mark {
        slot: Slot(slot),
        extent: Extent { start: Sector(word(0)), sectors },
        at: MonotonicNs(word(8)),
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_other_lengths_are_ignored() {
        let mut record = [0; 24];
        record[..8].copy_from_slice(&77u64.to_le_bytes());
        record[8..16].copy_from_slice(&123_456u64.to_le_bytes());
        record[16..20].copy_from_slice(&8u32.to_le_bytes());
        record[20..].copy_from_slice(&(5u32 << 8 | 2).to_le_bytes());
        let mark = Mark {
            slot: Slot(5),
            extent: Extent { start: Sector(77), sectors: 8 },
            at: MonotonicNs(123_456),
            kind: MarkKind::Zeroes,
        };
        assert_eq!(decode(&record), Some(mark));
        assert_eq!(decode(&record[..23]), None);
    }
}
