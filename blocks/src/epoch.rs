//! Epochs: what was marked between two harvests, numbered.

use std::fmt;

/// The number of an epoch of a disk. The first is 1, and a new generation goes on counting; 0 means
/// "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Before the first epoch.
    pub const NONE: Self = Self(0);

    /// The highest number that is taken from anybody, so that there is always a next one. At one
    /// a microsecond, numbers last 292,000 years.
    pub const MAX: Self = Self(u64::MAX / 2);

    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How an epoch's content relates to what the replica already holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EpochKind {
    /// Initial synchronisation: the replica holds nothing yet. Sent in segments.
    Seed = 1,
    /// Resynchronisation: chunks whose hash differs from the replica's. Sent in segments.
    Compare = 2,
    /// The chunks marked since the epoch before, all of them.
    Delta = 3,
}

impl EpochKind {
    /// The kind with this number on the wire and on disk.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Seed),
            2 => Some(Self::Compare),
            3 => Some(Self::Delta),
            _ => None,
        }
    }
}
