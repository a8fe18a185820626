//! Do the programs see every write? Their counters against the kernel's own disk statistics.
//!
//! Both count completed sectors. The programs of request-based disks run before the statistics are
//! updated in the same kernel function, so with the statistics read *first*, nothing lost means
//! `counted - statistics >= offset`, where the offset is what separated the two at the start. A
//! smaller difference is a loss: no reasoning about hooks can rule out what this finds.
//!
//! Drivers of bio-based disks update the statistics first, so the caller gives readings only of
//! moments when nothing is in flight, and even then a completion may stand between the two counters
//! for some microseconds. So a loss is reported when two readings in a row show it: it lasts, and
//! the completion does not.
//!
//! The offset is learnt at rest, which lasts no longer than a look: nothing is in flight, and the
//! statistics did not move around the reading of the counters ([`CrossCheck::handle_rest`]); or from
//! quiet readings, where two readings in a row are the same. Before the first moment of rest the
//! smallest difference seen stands in for it, and a loss of that time is taken for a part of it:
//! what was missed before the offset was settled is never found. So a pass over the disk has to
//! begin after that, or what it made proves nothing.

use blocks::Mutant;

/// One look at both counters, in sectors since some beginning of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The kernel's statistics, read first.
    pub statistics: u64,
    /// The programs' count, read after.
    pub counted: u64,
}

impl Reading {
    pub(crate) fn difference(self) -> i128 {
        i128::from(self.counted) - i128::from(self.statistics)
    }
}

/// What a reading says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The counters agree, at a moment when nothing moved: everything up to here was seen.
    Confirmed,
    /// Nothing contradicts, but writes are under way.
    Plausible,
    /// The statistics hold sectors that no program saw.
    Missing {
        /// How many.
        sectors: u64,
    },
}

/// The comparison of one disk over time.
#[derive(Clone, Copy, Debug, Default)]
pub struct CrossCheck {
    last: Option<Reading>,
    /// `counted - statistics` when both were last known to agree, or the least seen so far.
    offset: Option<i128>,
    /// Whether the offset stems from a quiet reading.
    settled: bool,
    /// The last reading showed a loss.
    suspicious: bool,
    /// The difference at the last moment of rest.
    at_rest: Option<i128>,
}

impl CrossCheck {
    /// A comparison that goes on where another left off: with the offset that was settled then.
    pub fn resume(offset: i64) -> Self {
        Self { offset: Some(offset.into()), settled: true, ..Self::default() }
    }

    /// The offset, once it is settled: what a successor must know to find what is lost meanwhile.
    pub fn settled_offset(&self) -> Option<i64> {
        self.offset.filter(|_| self.settled).and_then(|offset| i64::try_from(offset).ok())
    }

    /// Takes a reading of a moment of rest. Two in a row with the same difference settle the offset:
    /// one could stand between a completion's two counters. If both did, the offset came out too
    /// small, and later ones raise it. Nothing that is lost ever does.
    pub fn handle_rest(&mut self, reading: Reading) {
        let difference = reading.difference();
        let agrees = self.at_rest.replace(difference) == Some(difference);
        let raises = self.offset.is_none_or(|offset| difference > offset);
        if agrees && (raises || !self.settled) {
            self.settled = true;
            self.offset = Some(difference);
        }
    }

    /// Takes a reading and compares it with all before.
    pub fn handle_reading(&mut self, reading: Reading) -> Verdict {
        let quiet = self.last.replace(reading) == Some(reading);
        let difference = reading.difference();
        let offset = *self.offset.get_or_insert(difference);
        let suspicious = difference < offset && self.settled;
        let lasting = suspicious && std::mem::replace(&mut self.suspicious, suspicious);
        self.suspicious = suspicious;
        if suspicious && (!lasting || Mutant::DeficitIgnored.is_on()) {
            return Verdict::Plausible;
        }
        if lasting {
            self.suspicious = false;
            // The loss is reported once: what comes after is compared with the new state.
            self.offset = Some(difference);
            let sectors = u64::try_from(offset - difference).unwrap_or(u64::MAX);
            return Verdict::Missing { sectors };
        }
        if difference < offset {
            self.offset = Some(difference);
        }
        if !quiet {
            return Verdict::Plausible;
        }
        if !self.settled {
            // The first quiet moment fixes the offset; a difference above the least seen so far
            // can only stem from readings that were split by a completion.
            self.settled = true;
            self.offset = self.offset.map(|least| least.min(difference));
        }
        // Where nothing moves, more than the offset was counted and not kept: the statistics were
        // off for a while. Left as it is, so much could be lost and not be found.
        self.offset = self.offset.max(Some(difference));
        Verdict::Confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(statistics: u64, counted: u64) -> Reading {
        Reading { statistics, counted }
    }

    #[test]
    fn agreement_is_confirmed_when_nothing_moves() {
        let mut check = CrossCheck::default();
        assert_eq!(check.handle_reading(reading(1000, 8)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(1000, 8)), Verdict::Confirmed);
        assert_eq!(check.handle_reading(reading(1100, 116)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(1108, 116)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(1108, 116)), Verdict::Confirmed);
    }

    #[test]
    fn statistics_that_were_off_for_a_while_hide_nothing_afterwards() {
        let mut check = CrossCheck::default();
        check.handle_reading(reading(0, 0));
        assert_eq!(check.handle_reading(reading(0, 0)), Verdict::Confirmed);
        // 800 sectors are counted and not kept; then nothing moves.
        assert_eq!(check.handle_reading(reading(0, 800)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(0, 800)), Verdict::Confirmed);
        // Of the next 100, the programs see 92.
        assert_eq!(check.handle_reading(reading(100, 892)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(100, 892)), Verdict::Missing { sectors: 8 });
    }

    #[test]
    fn a_lost_write_is_found_under_load_and_reported_once() {
        let mut check = CrossCheck::default();
        check.handle_reading(reading(0, 0));
        check.handle_reading(reading(0, 0));
        assert_eq!(check.handle_reading(reading(100, 92)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(150, 142)), Verdict::Missing { sectors: 8 });
        assert_eq!(check.handle_reading(reading(200, 192)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(200, 192)), Verdict::Confirmed);
    }

    #[test]
    fn a_loss_hidden_by_writes_under_way_is_found_when_they_end() {
        let mut check = CrossCheck::default();
        check.handle_reading(reading(0, 0));
        check.handle_reading(reading(0, 0));
        // 8 sectors lost, 16 more counted but not yet in the statistics.
        assert_eq!(check.handle_reading(reading(84, 92)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(100, 92)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(100, 92)), Verdict::Missing { sectors: 8 });
    }

    #[test]
    fn a_completion_between_the_counters_is_no_loss() {
        let mut check = CrossCheck::default();
        check.handle_reading(reading(0, 0));
        check.handle_reading(reading(0, 0));
        assert_eq!(check.handle_reading(reading(100, 92)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(100, 100)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(108, 100)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(108, 108)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(108, 108)), Verdict::Confirmed);
    }

    #[test]
    fn a_write_lost_while_nobody_looked_is_found() {
        let mut check = CrossCheck::default();
        check.handle_reading(reading(1000, 40));
        check.handle_reading(reading(1000, 40));
        let mut successor = CrossCheck::resume(check.settled_offset().unwrap());
        successor.handle_reading(reading(1100, 132));
        let verdict = successor.handle_reading(reading(1100, 132));
        assert_eq!(verdict, Verdict::Missing { sectors: 8 });
    }

    #[test]
    fn moments_of_rest_settle_the_offset_of_a_disk_that_is_never_quiet() {
        let mut check = CrossCheck::default();
        check.handle_rest(reading(1000, 40));
        assert_eq!(check.settled_offset(), None);
        check.handle_rest(reading(1010, 60));
        check.handle_rest(reading(1020, 60));
        assert_eq!(check.settled_offset(), None, "no two in a row agree");
        check.handle_rest(reading(1100, 140));
        assert_eq!(check.settled_offset(), Some(-960));
        // Smaller ones change nothing, or they would hide what is lost.
        check.handle_rest(reading(1200, 232));
        check.handle_rest(reading(1200, 232));
        assert_eq!(check.handle_reading(reading(1300, 332)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(1400, 432)), Verdict::Missing { sectors: 8 });
    }

    #[test]
    fn an_offset_that_was_learnt_amid_a_completion_is_mended_at_rest() {
        let mut check = CrossCheck::default();
        check.handle_rest(reading(1008, 40));
        check.handle_rest(reading(1008, 40));
        assert_eq!(check.settled_offset(), Some(-968));
        check.handle_rest(reading(1008, 48));
        check.handle_rest(reading(1008, 48));
        assert_eq!(check.settled_offset(), Some(-960));
    }

    #[test]
    fn attaching_under_load_raises_no_false_alarm() {
        let mut check = CrossCheck::default();
        assert_eq!(check.handle_reading(reading(1000, 40)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(1100, 132)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(1100, 132)), Verdict::Confirmed);
    }
}
