//! When may a provisional point be relied on?
//!
//! A cut rests on two things that nobody sees fail: every completed write left its mark, and every
//! write that was issued left its note in the conflict table. Both are counted, and the counts can
//! be held against others. [`Confirmation`] takes looks at all of them and says when they prove
//! that nothing was missed up to the look.
//!
//! At rest, which is when the statistics did not move while the counters were read and nothing is
//! in flight:
//! - completions: `counted - statistics` is the offset that the cross-check has settled. A program
//!   that did not run leaves it smaller.
//! - issues: `issued - completed` is a constant of the disk, [`Sample::outstanding`]. A write whose
//!   issue was not seen leaves it smaller for ever, whenever one looks.
//!
//! One such look could agree by accident: a completion that stands between two counters hides a
//! loss of the same size. Two in a row that agree settle it, as for the cross-check.
//!
//! Neither finds what was missed before the offset was settled. So the caller believes a proof only
//! of points of a disk whose last pass began after that.
//!
//! Under a load that never pauses nothing is ever proven, and points stay provisional. A deficit
//! shows at once even then.

use crate::Reading;

/// One look at the counters of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The kernel's statistics before the counters were read, in sectors.
    pub statistics: u64,
    /// The programs' count of the same sectors.
    pub counted: u64,
    /// Sectors issued less sectors completed, as the programs counted.
    pub outstanding: i64,
    /// The statistics after.
    pub statistics_after: u64,
    /// Whether the statistics knew of anything in flight, before or after.
    pub in_flight: bool,
}

impl Sample {
    /// The counters at a moment of rest, if this is one: nothing was in flight, and nothing moved.
    pub fn at_rest(&self) -> Option<Reading> {
        let Self { statistics, counted, .. } = *self;
        let rests = !self.in_flight && statistics == self.statistics_after;
        rests.then_some(Reading { statistics, counted })
    }
}

/// What a sample says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing was missed up to this look.
    Complete,
    /// Nothing contradicts it.
    None,
    /// So many sectors were issued unseen since the last proof.
    IssuesMissed {
        /// How many.
        sectors: u64,
    },
}

/// What is known of one disk's issues.
#[derive(Clone, Copy, Debug, Default)]
pub struct Confirmation {
    /// `outstanding` at rest.
    rest: Option<i64>,
    /// The look before agreed too, with this value.
    agreed: Option<i64>,
}

impl Confirmation {
    /// One that goes on where another left off.
    pub fn resume(rest: i64) -> Self {
        Self { rest: Some(rest), agreed: None }
    }

    /// What a successor must know: what is outstanding at rest.
    pub fn rest(&self) -> Option<i64> {
        self.rest
    }

    /// The cross-check found that so many sectors completed unseen: they are outstanding for good.
    pub fn handle_missing(&mut self, sectors: u64) {
        let sectors = i64::try_from(sectors).unwrap_or(i64::MAX);
        self.rest = self.rest.map(|rest| rest.saturating_add(sectors));
        self.agreed = None;
    }

    /// Takes a look; `offset` is what the cross-check has settled, without which nothing is proven.
    pub fn handle_sample(&mut self, sample: Sample, offset: Option<i64>) -> Proof {
        if let Some(rest) = self.rest
            && sample.outstanding < rest
        {
            // What is in flight only adds, so this is a loss for sure. It is reported once.
            self.rest = Some(sample.outstanding);
            self.agreed = None;
            return Proof::IssuesMissed { sectors: rest.abs_diff(sample.outstanding) };
        }
        let difference = sample.at_rest().map(Reading::difference);
        let agrees = difference.is_some() && difference == offset.map(i128::from);
        if !agrees || self.rest.is_some_and(|rest| rest != sample.outstanding) {
            self.agreed = None;
            return Proof::None;
        }
        if self.agreed.replace(sample.outstanding) != Some(sample.outstanding) {
            return Proof::None;
        }
        match self.rest {
            Some(_) => Proof::Complete,
            None => {
                self.rest = Some(sample.outstanding);
                // Nothing outstanding since the very beginning: nothing can have been missed. A
                // disk that was added while it was busy begins with less, and what was missed
                // before now can't be told from that.
                if sample.outstanding == 0 { Proof::Complete } else { Proof::None }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_rest(sectors: u64, outstanding: i64) -> Sample {
        Sample {
            statistics: 1000 + sectors,
            counted: sectors,
            outstanding,
            statistics_after: 1000 + sectors,
            in_flight: false,
        }
    }

    const OFFSET: Option<i64> = Some(-1000);

    #[test]
    fn two_looks_at_rest_that_agree_are_a_proof() {
        let mut confirmation = Confirmation::default();
        assert_eq!(confirmation.handle_sample(at_rest(8, 0), None), Proof::None);
        assert_eq!(confirmation.handle_sample(at_rest(8, 0), OFFSET), Proof::None);
        assert_eq!(confirmation.handle_sample(at_rest(16, 0), OFFSET), Proof::Complete);
        let moving = Sample { statistics_after: 1024, ..at_rest(16, 0) };
        let busy = Sample { in_flight: true, ..at_rest(16, 0) };
        let lacking = Sample { counted: 8, ..at_rest(16, 0) };
        for not in [moving, busy, lacking, at_rest(16, 8)] {
            assert_eq!(confirmation.handle_sample(not, OFFSET), Proof::None);
            assert_eq!(confirmation.handle_sample(at_rest(16, 0), OFFSET), Proof::None);
            assert_eq!(confirmation.handle_sample(at_rest(16, 0), OFFSET), Proof::Complete);
        }
    }

    #[test]
    fn an_issue_that_was_missed_shows_under_load_too() {
        let mut confirmation = Confirmation::default();
        confirmation.handle_sample(at_rest(8, 0), OFFSET);
        confirmation.handle_sample(at_rest(8, 0), OFFSET);
        let busy = Sample { in_flight: true, ..at_rest(100, -8) };
        assert_eq!(confirmation.handle_sample(busy, OFFSET), Proof::IssuesMissed { sectors: 8 });
        assert_eq!(confirmation.handle_sample(busy, OFFSET), Proof::None);
    }

    #[test]
    fn one_that_is_hidden_by_what_is_in_flight_shows_at_rest() {
        let mut confirmation = Confirmation::resume(-16);
        let busy = Sample { in_flight: true, ..at_rest(100, -16) };
        assert_eq!(confirmation.handle_sample(busy, OFFSET), Proof::None);
        let later = confirmation.handle_sample(at_rest(108, -24), OFFSET);
        assert_eq!(later, Proof::IssuesMissed { sectors: 8 });
    }

    #[test]
    fn completions_that_were_missed_and_found_are_no_reason_to_doubt_for_ever() {
        let mut confirmation = Confirmation::resume(0);
        let after = Sample { statistics: 1108, statistics_after: 1108, ..at_rest(100, 8) };
        let offset = Some(-1008);
        for _ in 0..3 {
            assert_eq!(confirmation.handle_sample(after, offset), Proof::None);
        }
        confirmation.handle_missing(8);
        assert_eq!(confirmation.handle_sample(after, offset), Proof::None);
        assert_eq!(confirmation.handle_sample(after, offset), Proof::Complete);
    }

    #[test]
    fn a_disk_added_while_busy_proves_nothing_of_before() {
        let mut confirmation = Confirmation::default();
        confirmation.handle_sample(at_rest(8, -8), OFFSET);
        assert_eq!(confirmation.handle_sample(at_rest(8, -8), OFFSET), Proof::None);
        assert_eq!(confirmation.handle_sample(at_rest(8, -8), OFFSET), Proof::Complete);
    }
}
