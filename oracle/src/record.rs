//! The records of the write log, wherever it is kept.
//!
//! A record is out before its write is submitted and finished after the write completed, so for
//! every write `issued <= start of the write` and `end of the write <= completed`. A late
//! completion only weakens a check; a late issue would raise false alarms.

use blocks::{Bitmap, Extent, Geometry, MonotonicNs};

/// What a write does to its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// Stamped sectors.
    Data,
    /// A discard: undefined until overwritten.
    Discard,
    /// Zeroes, by whatever command.
    Zeroes,
    /// The bytes of an earlier write of the same stream once more, in its place or a part of it.
    Repeat {
        /// That write's number.
        of: u64,
    },
}

/// A write that is about to be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The disk, by the run's numbering.
    pub disk: u32,
    /// The writer.
    pub stream: u32,
    /// The write, rising within its stream.
    pub write: u64,
    /// Where, absolute on the whole disk.
    pub extent: Extent,
    /// What.
    pub kind: WriteKind,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No completion was recorded.
    InFlight,
    /// Completed, at this time at the latest.
    Completed(MonotonicNs),
    /// Ended in an error: the medium may have changed or not.
    Failed,
}

/// One write, as logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What was submitted.
    pub issue: Issue,
    /// When, before it was.
    pub issued: MonotonicNs,
    /// How it ended.
    pub outcome: Outcome,
}

impl Record {
    /// The chunks of `disk` that any of `records` touches.
    pub fn chunks(records: &[Self], disk: u32, geometry: &Geometry) -> Bitmap {
        let mut chunks = Bitmap::new(geometry.chunks());
        for record in records.iter().filter(|record| record.issue.disk == disk) {
            chunks.insert_range(geometry.chunks_of(record.issue.extent));
        }
        chunks
    }
}
