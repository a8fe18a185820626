//! Sealed epochs: what may be shipped, and as what.
//!
//! Promise 3 of the design lives in this file: [`DeltaEpoch`] has no public constructor but
//! [`SealedEpoch::seal`], and that makes one from [`Coverage::Complete`] only. A planner of deltas
//! takes a `DeltaEpoch`, so a gap can not be shipped as a delta.

use crate::{Bitmap, Coverage, Epoch, EpochKind, GapReason};

/// An epoch that no longer changes, by the way it must be shipped.
#[derive(Clone, Debug)]
pub enum SealedEpoch {
    /// A segment of the initial synchronisation.
    Seed(SeedEpoch),
    /// A segment of a comparison.
    Compare(CompareEpoch),
    /// Everything marked since the epoch before.
    Delta(DeltaEpoch),
}

/// A segment of the initial synchronisation.
#[derive(Clone, Debug)]
pub struct SeedEpoch(Segment);

/// A segment of a comparison, and the gap that made it necessary.
#[derive(Clone, Debug)]
pub struct CompareEpoch(Segment, GapReason);

/// Every chunk marked since the epoch before, with nothing missing.
#[derive(Clone, Debug)]
pub struct DeltaEpoch(Segment);

#[derive(Clone, Debug)]
struct Segment {
    epoch: Epoch,
    chunks: Bitmap,
    completes: bool,
}

impl SealedEpoch {
    /// Seals `chunks` under the number `epoch`.
    ///
    /// `coverage` decides the kind: complete coverage makes a delta, a disk that was never
    /// replicated a seed, any other gap a comparison. `completes` says that no other chunk is
    /// outstanding, so that the replica holds every write up to the seal once this epoch is
    /// applied; it is meaningful for seeds and comparisons, and always true of a delta.
    pub fn seal(epoch: Epoch, chunks: Bitmap, coverage: Coverage, completes: bool) -> Self {
        let segment = |completes| Segment { epoch, chunks, completes };
        match coverage {
            Coverage::Complete => Self::Delta(DeltaEpoch(segment(true))),
            Coverage::Gap(GapReason::NeverReplicated) => Self::Seed(SeedEpoch(segment(completes))),
            Coverage::Gap(reason) => Self::Compare(CompareEpoch(segment(completes), reason)),
        }
    }

    /// Its number.
    pub fn epoch(&self) -> Epoch {
        self.segment().epoch
    }

    /// The chunks it covers.
    pub fn chunks(&self) -> &Bitmap {
        &self.segment().chunks
    }

    /// Whether the replica holds every write up to the seal once this epoch is applied.
    pub fn completes(&self) -> bool {
        self.segment().completes
    }

    /// Its kind on the wire and on disk.
    pub fn kind(&self) -> EpochKind {
        match self {
            Self::Seed(_) => EpochKind::Seed,
            Self::Compare(_) => EpochKind::Compare,
            Self::Delta(_) => EpochKind::Delta,
        }
    }

    fn segment(&self) -> &Segment {
        match self {
            Self::Seed(SeedEpoch(segment))
            | Self::Compare(CompareEpoch(segment, _))
            | Self::Delta(DeltaEpoch(segment)) => segment,
        }
    }
}

macro_rules! segment_accessors {
    ($name:ident) => {
        impl $name {
            /// Its number.
            pub fn epoch(&self) -> Epoch {
                self.0.epoch
            }

            /// The chunks it covers.
            pub fn chunks(&self) -> &Bitmap {
                &self.0.chunks
            }
        }
    };
}

segment_accessors!(SeedEpoch);
segment_accessors!(CompareEpoch);
segment_accessors!(DeltaEpoch);

impl CompareEpoch {
    /// The gap that made the comparison necessary.
    pub fn reason(&self) -> GapReason {
        self.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_coverage_makes_a_delta() {
        let seal = |coverage| SealedEpoch::seal(Epoch(1), Bitmap::new(8), coverage, false).kind();
        assert_eq!(seal(Coverage::Complete), EpochKind::Delta);
        assert_eq!(seal(Coverage::Gap(GapReason::NeverReplicated)), EpochKind::Seed);
        for reason in [
            GapReason::UncleanStop,
            GapReason::TrackerLost,
            GapReason::CrossCheck { missing_sectors: 8 },
            GapReason::Requested,
        ] {
            assert_eq!(seal(Coverage::Gap(reason)), EpochKind::Compare);
        }
    }
}
