//! Numbers with a unit.

use std::fmt;

/// Bytes in a sector, the block layer's unit whatever the disk's logical block size.
pub const SECTOR_SIZE: u64 = 512;

/// A position on a disk, in sectors of 512 bytes from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sector(pub u64);

impl Sector {
    /// The position in bytes.
    pub const fn bytes(self) -> u64 {
        self.0 * SECTOR_SIZE
    }
}

/// A length in bytes. Displays in binary units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteLen(pub u64);

impl fmt::Display for ByteLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        if value.fract() == 0.0 {
            write!(f, "{value:.0} {}", UNITS[unit])
        } else {
            write!(f, "{value:.1} {}", UNITS[unit])
        }
    }
}

/// The index of a chunk, the unit of tracking, from the start of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkIndex(pub u64);

/// An instant of `CLOCK_MONOTONIC`, in nanoseconds; what `bpf_ktime_get_ns` returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonotonicNs(pub u64);

impl MonotonicNs {
    /// The time since `earlier`, zero if that is later.
    pub const fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The size of a chunk: a power of two from 4 KiB to 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkSize {
    log2: u32,
}

/// A chunk size that is no power of two, or out of range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a chunk size of {0} bytes is not a power of two from 4096 to 1048576")]
pub struct ChunkSizeError(pub u64);

impl ChunkSize {
    /// 4 KiB, the default.
    pub const DEFAULT: Self = Self { log2: 12 };

    /// A chunk size from its length in bytes.
    pub const fn from_bytes(bytes: u64) -> Result<Self, ChunkSizeError> {
        if !bytes.is_power_of_two() || bytes < 4096 || bytes > 1 << 20 {
            return Err(ChunkSizeError(bytes));
        }
        Ok(Self { log2: bytes.trailing_zeros() })
    }

    /// Its length in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.log2
    }

    /// Its length in sectors.
    pub const fn sectors(self) -> u64 {
        self.bytes() / SECTOR_SIZE
    }

    /// The base-two logarithm of its length in bytes, 12 to 20.
    pub const fn log2(self) -> u32 {
        self.log2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_read_as_people_write_them() {
        assert_eq!(ByteLen(511).to_string(), "511 B");
        assert_eq!(ByteLen(4096).to_string(), "4 KiB");
        assert_eq!(ByteLen(41 * 1024 * 1024 + 200 * 1024).to_string(), "41.2 MiB");
        assert_eq!(ByteLen(40 << 30).to_string(), "40 GiB");
    }

    #[test]
    fn chunk_sizes_outside_the_range_are_refused() {
        for bad in [0, 1, 512, 2048, 4097, 1 << 21] {
            assert_eq!(ChunkSize::from_bytes(bad), Err(ChunkSizeError(bad)));
        }
        assert_eq!(ChunkSize::from_bytes(65536).unwrap().sectors(), 128);
    }
}
