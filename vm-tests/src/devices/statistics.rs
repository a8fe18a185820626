//! What the kernel counts on a disk: `/sys/block/NAME/stat`.

use std::fs;

use anyhow::{Context, Result};

/// The counters that matter to tracking; see the kernel's `Documentation/block/stat.rst`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStatistics {
    /// Sectors read.
    pub sectors_read: u64,
    /// Writes completed.
    pub writes: u64,
    /// Sectors written.
    pub sectors_written: u64,
    /// Requests in flight, reads and writes.
    pub in_flight: u64,
    /// Discards completed.
    pub discards: u64,
    /// Sectors discarded.
    pub sectors_discarded: u64,
}

impl DiskStatistics {
    /// Reads the counters of a whole disk.
    pub(super) fn read(name: &str) -> Result<Self> {
        let path = format!("/sys/block/{name}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let fields: Vec<u64> = text.split_whitespace().filter_map(|f| f.parse().ok()).collect();
        let field = |index: usize| {
            fields.get(index).copied().with_context(|| format!("{path} has no field {}", index + 1))
        };
        Ok(Self {
            sectors_read: field(2)?,
            writes: field(4)?,
            sectors_written: field(6)?,
            in_flight: field(8)?,
            discards: field(11)?,
            sectors_discarded: field(13)?,
        })
    }

    /// Sectors written or discarded since `earlier`.
    pub fn changed_since(&self, earlier: &Self) -> u64 {
        (self.sectors_written - earlier.sectors_written)
            + (self.sectors_discarded - earlier.sectors_discarded)
    }
}
