//! What bounds a cut, and how it may hold the application.

use std::time::Duration;

use blocks::ByteLen;

/// The bounds of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutLimits {
    /// The largest image, over all disks. A disk with more that is dirty ships a delta first.
    pub memory: ByteLen,
    /// Chunks that one queue depth of reads takes: an iteration of no more stops at a conflict.
    pub depth: u64,
    /// The longest read.
    pub run: ByteLen,
    /// Unfrozen attempts to make at least.
    pub attempts: u32,
    /// How long to make unfrozen attempts at least.
    pub time: Duration,
    /// A disk is slow when a read takes longer than this.
    pub slow: Duration,
    /// How long to make unfrozen attempts at least on slow disks.
    pub time_slow: Duration,
    /// The longest pause between two attempts on slow disks: it keeps retries out of step with
    /// what the application does at regular intervals.
    pub pause: Duration,
    /// Large iterations in a row, none smaller than the one before, after which writes arrive
    /// faster than they can be read.
    pub rounds_not_shrinking: u32,
    /// Attempts in a row with the file systems frozen, of each kind.
    pub attempts_frozen: u32,
}

impl Default for CutLimits {
    fn default() -> Self {
        Self {
            memory: ByteLen(64 << 20),
            depth: 256,
            run: ByteLen(256 << 10),
            attempts: 20,
            time: Duration::from_millis(50),
            slow: Duration::from_millis(1),
            time_slow: Duration::from_millis(300),
            pause: Duration::from_millis(16),
            rounds_not_shrinking: 3,
            attempts_frozen: 2,
        }
    }
}

/// Whether file systems may be frozen for a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// Never.
    Never,
    /// Once it does not succeed without.
    IfNeeded,
    /// In any case: the point is to be consistent for the file systems.
    Always,
}

/// What stands still for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nothing.
    None,
    /// The file systems, at T and no longer.
    Instant,
    /// The file systems, from T until everything is read.
    Throughout,
}

impl Hold {
    /// What to try next, if anything may be tried.
    pub(super) fn harder(self, freeze: Freeze) -> Option<Self> {
        match (self, freeze) {
            (_, Freeze::Never) | (Self::Throughout, _) => None,
            (Self::None, _) => Some(Self::Instant),
            (Self::Instant, _) => Some(Self::Throughout),
        }
    }
}

/// Pauses of random lengths, the same for the same seed.
#[derive(Debug)]
pub(super) struct Pauses(u64);

impl Pauses {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From nothing to `longest`.
    pub(super) fn next(&mut self, longest: Duration) -> Duration {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let longest = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos((mixed ^ mixed >> 31) % longest.max(1))
    }
}
