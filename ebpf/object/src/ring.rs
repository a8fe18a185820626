//! The size of the ring of marks; `ebpf/src/ring.rs` has its shape, and reads it.

use std::{io, os::fd::AsFd, sync::atomic::Ordering::SeqCst};

use blocks::ByteLen;

use crate::mapped::Mapped;

/// Entries before the first record.
pub const RECORDS: u32 = 4;

/// Words of an entry.
pub const WORDS: usize = 4;

/// Of the writers' entry: a mask that makes a record's number its place.
pub const MASK: usize = 1;

/// Of the writers' entry: how many records may wait at once.
pub const MOST: usize = 2;

/// How many records a processor can have under way: one in each context that does block I/O.
pub const CONTEXTS: u64 = 3;

/// The size of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSize {
    records: u32,
    most: u64,
}

impl RingSize {
    /// The size of a ring of `len`, or as many records more as `processors` can have under way
    /// twice. Nothing if `len` is not a power of two from 4 KiB to 1 GiB.
    pub fn new(len: ByteLen, processors: usize) -> Option<Self> {
        let sound = len.0.is_power_of_two() && (4096..=1 << 30).contains(&len.0);
        let under_way = CONTEXTS * processors as u64;
        let records = (len.0 / (8 * WORDS as u64)).max((2 * under_way).next_power_of_two());
        let records = u32::try_from(records).ok().filter(|_| sound)?;
        Some(Self { records, most: u64::from(records) - under_way })
    }

    /// How many entries its map has.
    pub fn entries(self) -> u32 {
        RECORDS + self.records
    }

    /// How many of its records may wait to be read.
    pub fn most(self) -> u64 {
        self.most
    }

    /// Prepares a ring, before there are programs that write.
    ///
    /// # Errors
    /// If it can't be mapped.
    pub fn prepare(self, map: &impl AsFd) -> io::Result<()> {
        let head = Mapped::new(map, u64::from(RECORDS) * WORDS as u64)?;
        head.words()[MASK].store(u64::from(self.records) - 1, SeqCst);
        head.words()[MOST].store(self.most, SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_has_room_for_every_processor() {
        assert_eq!(RingSize::new(ByteLen(4096), 2), Some(RingSize { records: 128, most: 122 }));
        assert_eq!(RingSize::new(ByteLen(4096), 100), Some(RingSize { records: 1024, most: 724 }));
        assert_eq!(RingSize::new(ByteLen(4 << 20), 4).unwrap().entries(), (1 << 17) + RECORDS);
        assert_eq!(RingSize::new(ByteLen(2048), 2), None);
        assert_eq!(RingSize::new(ByteLen(5000), 2), None);
    }
}
