//! What a starting agent may rely on.
//!
//! The kernel's bitmap and the pending bits live in pinned maps: they outlive the agent, not the
//! machine. No program in the kernel can hold a write back until a mark is durable, so after an
//! unclean stop of the machine there is nothing to be clever about: it is a gap.

use blocks::{Bitmap, Coverage, Epoch, GapReason};

use crate::hrl::Log;

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
    /// The maps of programs that were attached before the root file system was mounted, and of which
    /// no agent knows yet: with the log that the machine wrote last, if it is believed
    /// ([`crate::last::believed`]).
    Early(Option<Box<Log>>),
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
/// A log that was closed cleanly is not enough on its own: it takes a proof that nothing was written
/// between its closing and the attachment of the programs, and only who attached them before anything
/// could be written has that. Else maps that are gone are a gap, whatever the log says; its state
/// only names the reason.
pub fn decide(pins: Pins, record: Option<Record>) -> Start {
    match (pins, record) {
        (_, None) => Start::Gap(GapReason::NeverReplicated),
        (Pins::Present { pending, acked }, Some(record)) => {
            Start::Continue { pending, coverage: record.coverage, acked }
        }
        (Pins::Early(Some(log)), Some(_)) => {
            let Log { header, dirty } = *log;
            Start::Continue { pending: dirty, coverage: header.coverage, acked: header.acked }
        }
        (Pins::Early(None) | Pins::Absent, Some(record)) => Start::Gap(match record.coverage {
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
    fn early_maps_are_worth_what_the_last_log_is() {
        let following = record(Coverage::Complete);
        let of = |log| decide(Pins::Early(log), Some(following));
        assert_eq!(gap(&of(None)), Some(GapReason::UncleanStop));
        let log = |coverage| {
            let geometry =
                blocks::Geometry::new(64, 512, blocks::ChunkSize::from_bytes(4096).unwrap());
            let header = crate::hrl::LogHeader {
                disk: blocks::DiskId([1; 16]),
                generation: blocks::Generation([2; 16]),
                geometry: geometry.unwrap(),
                boot_id: [0; 16],
                disk_sequence: 1,
                acked: Epoch(5),
                coverage,
                state: crate::hrl::LogState::Closed,
            };
            let mut dirty = Bitmap::new(8);
            dirty.insert_word(0, 1 << 3);
            Some(Box::new(Log { header, dirty }))
        };
        for coverage in [Coverage::Complete, Coverage::Gap(GapReason::Requested)] {
            let Start::Continue { pending, coverage: c, acked } = of(log(coverage)) else {
                panic!("a log that is believed was not");
            };
            assert_eq!((pending.count(), c, acked), (1, coverage, Epoch(5)));
        }
        assert_eq!(
            gap(&decide(Pins::Early(log(Coverage::Complete)), None)),
            Some(GapReason::NeverReplicated),
            "what is on no record was never replicated"
        );
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
