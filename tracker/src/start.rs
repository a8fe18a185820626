//! What a starting agent may rely on.
//!
//! The kernel's bitmap and the pending bits live in pinned maps: they outlive the agent, not the
//! machine. No program in the kernel can hold a write back until a mark is durable, so after an
//! unclean stop of the machine there is nothing to be clever about: it is a gap.

use blocks::{Bitmap, Coverage, Epoch, GapReason};

/// What a tracker begins with.
#[derive(Debug)]
pub enum Start {
    /// Tracking was never interrupted: the dirty set, and what is known about it.
    Continue {
        /// The chunks that no acknowledged epoch holds.
        pending: Bitmap,
        /// A gap that was open, if one was.
        coverage: Coverage,
        /// The newest epoch that was acknowledged.
        acked: Epoch,
    },
    /// Writes may have been missed, or nothing was replicated yet: every chunk is suspect.
    Gap(GapReason),
}

/// What the kernel still held of a disk when the agent started.
#[derive(Debug)]
pub enum Pins {
    /// The maps, with programs attached all the while.
    Present {
        /// The pending bits.
        pending: Bitmap,
        /// The newest epoch that was acknowledged, as kept beside them.
        acked: Epoch,
    },
    /// Nothing.
    Absent,
}

/// What is on record of a disk outside the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The gap that was open, or complete coverage.
    pub coverage: Coverage,
    /// Whether the record was made in this boot of the machine.
    pub same_boot: bool,
    /// Whether the log was closed by an orderly stop.
    pub closed: bool,
}

/// Decides where tracking of a disk stands.
///
/// A log that was closed cleanly is not enough on its own: it would need a proof that nothing was
/// written between its closing and the attachment of the programs, which this version does not
/// attempt. So maps that are gone are a gap, whatever the log says; its state only names the
/// reason.
pub fn decide(pins: Pins, record: Option<Record>) -> Start {
    match (pins, record) {
        (_, None) => Start::Gap(GapReason::NeverReplicated),
        (Pins::Present { pending, acked }, Some(record)) => {
            Start::Continue { pending, coverage: record.coverage, acked }
        }
        (Pins::Absent, Some(record)) => Start::Gap(match record.coverage {
            Coverage::Gap(GapReason::NeverReplicated) => GapReason::NeverReplicated,
            _ if record.same_boot || record.closed => GapReason::TrackerLost,
            _ => GapReason::UncleanStop,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(coverage: Coverage) -> Record {
        Record { coverage, same_boot: false, closed: false }
    }

    fn gap(start: &Start) -> Option<GapReason> {
        match start {
            Start::Gap(reason) => Some(*reason),
            Start::Continue { .. } => None,
        }
    }

    #[test]
    fn without_the_maps_it_is_always_a_gap() {
        let of = |record| gap(&decide(Pins::Absent, record));
        assert_eq!(of(None), Some(GapReason::NeverReplicated));
        let following = record(Coverage::Complete);
        assert_eq!(of(Some(following)), Some(GapReason::UncleanStop));
        let closed = Record { closed: true, ..following };
        assert_eq!(of(Some(closed)), Some(GapReason::TrackerLost));
        let seeding = record(Coverage::Gap(GapReason::NeverReplicated));
        assert_eq!(of(Some(seeding)), Some(GapReason::NeverReplicated));
    }

    #[test]
    fn with_the_maps_an_open_gap_stays_open() {
        let pins = Pins::Present { pending: Bitmap::new(4), acked: Epoch(7) };
        let coverage = Coverage::Gap(GapReason::Requested);
        let start = decide(pins, Some(record(coverage)));
        assert!(
            matches!(start, Start::Continue { coverage: c, acked: Epoch(7), .. } if c == coverage)
        );
    }
}
