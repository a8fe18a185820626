//! Recovery points, as far as keeping them is concerned.

use std::time::Duration;

use blocks::Consistency;

/// Nanoseconds since 1970, UTC, by the source's clock: what slots and ages are counted by.
///
/// It is the `unix_ns` of a [`blocks::CutTime`]. This clock may be set back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixNs(pub u64);

impl UnixNs {
    /// The time since `earlier`, zero if that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// One recovery point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When its cut was made.
    pub cut: UnixNs,
    /// What it can be relied on for.
    pub consistency: Consistency,
    /// Whether all of it is here: all disks of the machine or group.
    pub complete: bool,
    /// Whether somebody asked to keep it, whatever its age.
    pub pinned: bool,
}
