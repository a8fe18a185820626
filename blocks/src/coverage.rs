//! Whether a bitmap is known to hold every write of its epoch, and if not, why.

use std::fmt;

/// What is known about the writes of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coverage {
    /// Every write is in the bitmap.
    Complete,
    /// Writes may be missing. Only a comparison of the disks closes a gap.
    Gap(GapReason),
}

/// Why writes may be missing from a bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// Nothing has been replicated yet: initial synchronisation is due.
    NeverReplicated,
    /// The machine stopped without closing its log.
    UncleanStop,
    /// The programs or maps in the kernel were gone when the agent came back.
    TrackerLost,
    /// The kernel's statistics count more sectors than the programs saw.
    CrossCheck {
        /// How many sectors are missing.
        missing_sectors: u64,
    },
    /// The programs met something they could not follow.
    Tainted(TaintSet),
    /// The replica's last durable epoch is older than one it acknowledged.
    ReplicaBehind,
    /// The disk behind the name is not the one that was tracked.
    DiskChanged,
    /// So much is dirty that a comparison is due instead of a delta.
    DirtyThreshold,
    /// An operator asked for a comparison.
    Requested,
}

impl GapReason {
    /// Its name for machines: in status, logs and records.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NeverReplicated => "never-replicated",
            Self::UncleanStop => "unclean-stop",
            Self::TrackerLost => "tracker-lost",
            Self::CrossCheck { .. } => "cross-check",
            Self::Tainted(_) => "tainted",
            Self::ReplicaBehind => "replica-behind",
            Self::DiskChanged => "disk-changed",
            Self::DirtyThreshold => "dirty-threshold",
            Self::Requested => "requested",
        }
    }
}

impl GapReason {
    /// Whether writes may have been missed. The other reasons are no fault of tracking.
    pub const fn is_loss(self) -> bool {
        matches!(
            self,
            Self::UncleanStop | Self::TrackerLost | Self::CrossCheck { .. } | Self::Tainted(_)
        )
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverReplicated => f.write_str("nothing replicated yet"),
            Self::UncleanStop => f.write_str("unclean stop of the machine"),
            Self::TrackerLost => f.write_str("the tracking programs were gone from the kernel"),
            Self::CrossCheck { missing_sectors } => write!(
                f,
                "the kernel counts {missing_sectors} written sectors that tracking did not see"
            ),
            Self::Tainted(taints) => write!(f, "tracking met what it can't follow: {taints}"),
            Self::ReplicaBehind => f.write_str("the replica is older than it had acknowledged"),
            Self::DiskChanged => f.write_str("another disk is behind this name"),
            Self::DirtyThreshold => f.write_str("too much of the disk is dirty for a delta"),
            Self::Requested => f.write_str("asked for by an operator"),
        }
    }
}

/// One thing that tracking can't follow. The numbers are bits shared with the BPF programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Taint {
    /// A passthrough command that may have written.
    Passthrough = 1 << 0,
    /// An operation this version does not know.
    UnknownOperation = 1 << 1,
    /// The in-flight table of bio-based disks had no room.
    InFlightTableFull = 1 << 2,
    /// A range past the end of the disk.
    OutOfRange = 1 << 3,
    /// A completion of which the start was not seen.
    UnmatchedCompletion = 1 << 4,
    /// A discard of more ranges than can be walked.
    TooManyRanges = 1 << 5,
    /// A map look-up that can't fail did.
    LookupFailed = 1 << 6,
    /// The disk's I/O statistics were switched off, which blinds the cross-check.
    StatisticsOff = 1 << 7,
    /// The disk was removed while in use.
    DiskGone = 1 << 8,
    /// The table of device numbers had no room for a path of a multipath disk.
    UnknownPath = 1 << 9,
}

impl Taint {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Passthrough, "passthrough command"),
        (Self::UnknownOperation, "unknown operation"),
        (Self::InFlightTableFull, "in-flight table full"),
        (Self::OutOfRange, "range past the end"),
        (Self::UnmatchedCompletion, "unmatched completion"),
        (Self::TooManyRanges, "discard of too many ranges"),
        (Self::LookupFailed, "map look-up failed"),
        (Self::StatisticsOff, "I/O statistics off"),
        (Self::DiskGone, "disk gone"),
        (Self::UnknownPath, "unknown path"),
    ];
}

/// A set of [`Taint`]s, as the bits the BPF programs keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TaintSet(pub u32);

impl TaintSet {
    /// Whether it holds none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it holds `taint`.
    pub const fn contains(self, taint: Taint) -> bool {
        self.0 & taint as u32 != 0
    }

    /// The set with `taint` added.
    #[must_use]
    pub const fn with(self, taint: Taint) -> Self {
        Self(self.0 | taint as u32)
    }
}

impl fmt::Display for TaintSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Taint::ALL.iter().filter(|(taint, _)| self.contains(*taint));
        for (i, (_, name)) in names.enumerate() {
            write!(f, "{}{name}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_names_every_taint() {
        let set = TaintSet::default().with(Taint::Passthrough).with(Taint::OutOfRange);
        assert_eq!(set.to_string(), "passthrough command, range past the end");
        assert!(!set.contains(Taint::DiskGone) && !set.is_empty());
    }
}
