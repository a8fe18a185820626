//! Recovery points: the instants that a machine can be taken back to.
//!
//! A point is the content of all protected disks of a machine at one *cut*, the instant T. On each
//! of these disks it is the state after one epoch; the epoch's end carries the [`PointRecord`], the
//! same for every disk of the point. A point is there once every one of its disks holds it.

use std::{fmt, time::Duration};

use crate::MonotonicNs;

/// The cut of a point, by two clocks of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CutTime {
    /// Nanoseconds since 1970, UTC; what people are shown. This clock may be set back.
    pub unix_ns: u64,
    /// What orders points of one boot.
    pub monotonic: MonotonicNs,
}

/// What an application finds when it starts from a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Consistency {
    /// What a crash of the machine at the cut could have left.
    Crash = 1,
    /// The same, with the file systems frozen: nothing was half written in them.
    FileSystem = 2,
    /// The same, after the application's own hooks had made it ready.
    Application = 3,
}

/// How a cut was made one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CutMethod {
    /// Read while the machine worked, and verified: nothing that was read was written after T.
    Verified = 1,
    /// The file systems were frozen at T, thawed at once, and the read verified as above.
    FrozenInstant = 2,
    /// The file systems were frozen from T until everything was read.
    FrozenThroughout = 3,
}

/// Why a point that was sent is none after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RetractReason {
    /// The kernel's own statistics count more writes than were seen.
    CrossCheck = 1,
    /// A write may have been issued unseen while the point was read.
    MissedIssue = 2,
    /// What was written is not known without a gap.
    Gap = 3,
    /// A person said so.
    Operator = 4,
}

/// A recovery point, as its source describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PointRecord {
    /// Which point; the same on all its disks.
    pub id: crate::PointId,
    /// When.
    pub cut: CutTime,
    /// What an application finds.
    pub consistency: Consistency,
    /// How it was made.
    pub method: CutMethod,
    /// Disks of the point: it is there once so many of them hold it. At least 1.
    pub disks: u16,
    /// Cuts that were tried, the one that succeeded counted. At least 1.
    pub attempts: u32,
    /// From T to the last look at what was written meanwhile.
    pub window: Duration,
    /// How long the application stood still; zero without a freeze.
    pub freeze: Duration,
}

impl Consistency {
    /// The one with this number on the wire and on disk.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Crash),
            2 => Some(Self::FileSystem),
            3 => Some(Self::Application),
            _ => None,
        }
    }
}

impl CutMethod {
    /// The one with this number on the wire and on disk.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Verified),
            2 => Some(Self::FrozenInstant),
            3 => Some(Self::FrozenThroughout),
            _ => None,
        }
    }
}

impl RetractReason {
    /// The one with this number on the wire and on disk.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::CrossCheck),
            2 => Some(Self::MissedIssue),
            3 => Some(Self::Gap),
            4 => Some(Self::Operator),
            _ => None,
        }
    }
}

impl fmt::Display for RetractReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CrossCheck => "more was written than was seen",
            Self::MissedIssue => "a write may have been issued unseen",
            Self::Gap => "a gap in what was seen",
            Self::Operator => "by hand",
        })
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crash => "crash-consistent",
            Self::FileSystem => "filesystem-consistent",
            Self::Application => "application-consistent",
        })
    }
}

impl fmt::Display for CutMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verified => "verified",
            Self::FrozenInstant => "frozen for an instant",
            Self::FrozenThroughout => "frozen throughout",
        })
    }
}
