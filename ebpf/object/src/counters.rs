//! What the programs count of a disk.

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
    pub const fn since(&self, earlier: &Self) -> Self {
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
    pub fn least(&self, other: &Self) -> Self {
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
