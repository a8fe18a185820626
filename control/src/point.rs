//! Recovery points, as far as keeping them is concerned.

use std::time::Duration;

/// When a cut was made: nanoseconds since the Unix epoch, by the source's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CutTime(pub u64);

impl CutTime {
    /// The time since `earlier`, zero if that is later: clocks are set back now and then.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What a point's content can be relied on for, rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consistency {
    /// One instant, as a crash would have left it.
    Crash,
    /// The file systems were frozen: nothing needs to be replayed.
    Filesystem,
    /// The applications were told, too.
    Application,
}

/// One recovery point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When its cut was made.
    pub cut: CutTime,
    /// What it can be relied on for.
    pub consistency: Consistency,
    /// Whether all of it is here: all disks of the machine or group.
    pub complete: bool,
    /// Whether somebody asked to keep it, whatever its age.
    pub pinned: bool,
}
