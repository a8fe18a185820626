//! The kernel's own statistics of a disk, and what of the programs' counters they compare with.

use std::{fs, io};

use super::{DeviceNumber, sysfs};
use crate::counters::Counters;

/// A disk's statistics since it appeared, as in `/sys/block/X/stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStatistics {
    /// Writes completed.
    pub writes: u64,
    /// Sectors written.
    pub sectors_written: u64,
    /// Discards completed.
    pub discards: u64,
    /// Sectors discarded.
    pub sectors_discarded: u64,
    /// Reads and writes under way.
    pub in_flight: u64,
}

impl DiskStatistics {
    /// Reads them.
    ///
    /// # Errors
    /// If they can't be read, which is so when the disk is gone.
    pub fn read(number: DeviceNumber) -> io::Result<Self> {
        let text = fs::read_to_string(sysfs::directory(number).join("stat"))?;
        Self::parse(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unexpected statistics"))
    }

    fn parse(text: &str) -> Option<Self> {
        let fields: Option<Vec<u64>> =
            text.split_whitespace().map(|field| field.parse().ok()).collect();
        let fields = fields?;
        let field = |number: usize| fields.get(number - 1).copied();
        Some(Self {
            writes: field(5)?,
            sectors_written: field(7)?,
            in_flight: field(9)?,
            discards: field(12)?,
            sectors_discarded: field(14)?,
        })
    }
}

/// What a disk's statistics count.
///
/// Where requests complete, the kernel updates the statistics in the same function as, and after,
/// the programs run. Bio-based drivers account for themselves, some of them before the programs
/// run: compare those only while nothing is under way ([`DiskStatistics::in_flight`] is 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accounting {
    /// Everything that writes; discards apart. Write zeroes and secure erase count as writes.
    Full,
    /// Everything that writes, without discards. md arrays with parity, and striped ones, keep no
    /// statistics of discards.
    WithoutDiscards,
    /// Data written only. zram's discards and write zeroes pass it by without being counted.
    DataOnly,
    /// Nothing. brd keeps no statistics: its tracking can't be checked.
    Nothing,
}

impl Accounting {
    pub(super) fn of(name: &str) -> Self {
        if name.starts_with("zram") {
            Self::DataOnly
        } else if name.starts_with("md") {
            Self::WithoutDiscards
        } else if name.starts_with("ram") {
            Self::Nothing
        } else {
            Self::Full
        }
    }

    /// The sectors the programs counted of those that the statistics count too.
    pub fn counted(self, counters: &Counters) -> u64 {
        match self {
            Self::Full => counters.written + counters.other + counters.discarded,
            Self::WithoutDiscards => counters.written + counters.other,
            Self::DataOnly => counters.written,
            Self::Nothing => 0,
        }
    }

    /// The sectors the statistics count of those that the programs count too.
    pub fn kept(self, statistics: &DiskStatistics) -> u64 {
        match self {
            Self::Full => statistics.sectors_written + statistics.sectors_discarded,
            Self::WithoutDiscards | Self::DataOnly => statistics.sectors_written,
            Self::Nothing => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_the_kernel_documents() {
        let text = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n";
        let read = DiskStatistics::parse(text).unwrap();
        let expected = DiskStatistics {
            writes: 5,
            sectors_written: 7,
            discards: 12,
            sectors_discarded: 14,
            in_flight: 9,
        };
        assert_eq!(read, expected);
        assert_eq!(DiskStatistics::parse("1 2 3"), None);
        assert_eq!(DiskStatistics::parse("1 2 3 x"), None);
    }
}
