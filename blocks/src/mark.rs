//! What the kernel side tells the tracker.

use crate::{Extent, MonotonicNs};

/// A disk's place in the kernel side's tables, `0..64` and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// One record of the ring: a completed write that set at least one bit which was clear.
///
/// The bitmap is the truth and the ring only a stream of hints: a record may be lost, and records
/// of writes to chunks that are dirty already are never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The disk.
    pub slot: Slot,
    /// What was written; absolute on the whole disk.
    pub extent: Extent,
    /// When: at the earliest one tick of the kernel (at most 10 ms) before the bit was set.
    pub at: MonotonicNs,
    /// What kind of write it was.
    pub kind: MarkKind,
}

/// Kinds of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MarkKind {
    /// Data, zone append, and whatever else carries or clears data.
    Write = 0,
    /// Discard: the content is undefined until overwritten.
    Discard = 1,
    /// Write zeroes.
    Zeroes = 2,
}
