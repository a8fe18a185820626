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
//! quiet readings, where two readings in a row are the same. A moment of rest may stand between a
//! completion's two counters, and its difference is too small then; it is never too large. So the
//! largest of several is the offset. Before that the smallest difference seen stands in for it, and a
//! loss of that time is taken for a part of it: what was missed before the offset was settled is never
//! found. So a pass over the disk has to begin after that, or what it made proves nothing.
//!
//! A difference that is larger than the offset at rest says that writes were counted and not kept:
//! somebody had switched the statistics off for a while. What the programs missed meanwhile is in
//! neither count, so that is as bad as a loss ([`Verdict::Unkept`]).

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
    /// The programs saw sectors that the statistics do not hold: for a while these were not kept, and
    /// what the programs missed in that time is not to be found.
    Unkept {
        /// How many more.
        sectors: u64,
    },
}

/// So many moments of rest settle an offset: as many completions would have to be met between their
/// two counters to make it too small.
const RESTS: u32 = 8;

/// The comparison of one disk over time.
#[derive(Clone, Copy, Debug, Default)]
pub struct CrossCheck {
    last: Option<Reading>,
    /// `counted - statistics` when both were last known to agree, or the least seen so far.
    offset: Option<i128>,
    /// Whether the offset stems from moments of rest or from a quiet reading.
    settled: bool,
    /// Moments of rest before that, and the largest difference of them.
    rests: u32,
    largest: Option<i128>,
    /// The last reading showed a loss.
    suspicious: bool,
    /// The last moment of rest showed this difference, which is larger than the offset.
    above: Option<i128>,
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

    /// Takes a reading of a moment of rest. Some of them settle the offset; after that, two in a row
    /// tell of statistics that were not kept. Losses are for [`Self::handle_reading`] to find.
    pub fn handle_rest(&mut self, reading: Reading) -> Verdict {
        let difference = reading.difference();
        if self.settled {
            let above = Some(difference).filter(|it| Some(*it) > self.offset);
            let lasts = std::mem::replace(&mut self.above, above) == above;
            return if above.is_some() && lasts {
                self.raise(difference)
            } else {
                Verdict::Plausible
            };
        }
        self.rests += 1;
        self.largest = self.largest.max(Some(difference));
        if self.rests == RESTS {
            self.settled = true;
            self.offset = self.largest;
        }
        Verdict::Plausible
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
            return Verdict::Missing { sectors: distance(offset, difference) };
        }
        if difference < offset {
            self.offset = Some(difference);
        }
        if !quiet {
            return Verdict::Plausible;
        }
        if !self.settled {
            // The first quiet moment fixes the offset; if less was seen before, a completion stood
            // between the counters then.
            self.settled = true;
            self.offset = Some(difference);
        }
        if Some(difference) > self.offset { self.raise(difference) } else { Verdict::Confirmed }
    }

    /// More was counted than was kept: reported once, and what comes after is compared with the new
    /// state. Left as it was, so much could be lost and not be found.
    fn raise(&mut self, difference: i128) -> Verdict {
        let offset = self.offset.replace(difference).unwrap_or(difference);
        self.above = None;
        Verdict::Unkept { sectors: distance(offset, difference) }
    }
}

/// So many sectors apart.
fn distance(one: i128, other: i128) -> u64 {
    u64::try_from(one.abs_diff(other)).unwrap_or(u64::MAX)
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

    /// One that was settled while nothing was counted or kept.
    fn settled() -> CrossCheck {
        let mut check = CrossCheck::default();
        check.handle_reading(reading(0, 0));
        assert_eq!(check.handle_reading(reading(0, 0)), Verdict::Confirmed);
        check
    }

    #[test]
    fn statistics_that_were_off_for_a_while_are_a_gap_and_hide_nothing_afterwards() {
        let mut check = settled();
        // 800 sectors are counted and not kept, and nobody knows how many were neither.
        assert_eq!(check.handle_reading(reading(0, 800)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(0, 800)), Verdict::Unkept { sectors: 800 });
        assert_eq!(check.handle_reading(reading(0, 800)), Verdict::Confirmed);
        // Of the next 100, the programs see 92.
        assert_eq!(check.handle_reading(reading(100, 892)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(100, 892)), Verdict::Missing { sectors: 8 });
    }

    #[test]
    fn that_they_were_off_while_nobody_looked_shows_too() {
        let mut check = CrossCheck::resume(-960);
        // 800 not kept, and 8 lost since.
        assert_eq!(check.handle_reading(reading(1008, 840)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(1008, 840)), Verdict::Unkept { sectors: 792 });
    }

    #[test]
    fn on_a_disk_that_is_never_quiet_it_shows_at_rest() {
        let mut check = settled();
        let mut rests = |statistics, counted| check.handle_rest(reading(statistics, counted));
        assert_eq!(rests(100, 100), Verdict::Plausible);
        assert_eq!(rests(200, 1000), Verdict::Plausible);
        assert_eq!(rests(300, 1100), Verdict::Unkept { sectors: 800 });
        assert_eq!(rests(400, 1200), Verdict::Plausible);
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
        for rest in 1..u64::from(RESTS) {
            // Some of them stand between the two counters of a completion.
            let late = if rest % 3 == 0 { 0 } else { 8 };
            check.handle_rest(reading(1000 + rest, 40 + rest - late));
            assert_eq!(check.settled_offset(), None);
        }
        check.handle_rest(reading(1100, 132));
        assert_eq!(check.settled_offset(), Some(-960));
        // Smaller ones change nothing, or they would hide what is lost.
        check.handle_rest(reading(1200, 232));
        check.handle_rest(reading(1200, 232));
        assert_eq!(check.handle_reading(reading(1300, 332)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(1400, 432)), Verdict::Missing { sectors: 8 });
    }

    #[test]
    fn attaching_under_load_raises_no_false_alarm() {
        let mut check = CrossCheck::default();
        assert_eq!(check.handle_reading(reading(1000, 40)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(1100, 132)), Verdict::Plausible);
        assert_eq!(check.handle_reading(reading(1100, 132)), Verdict::Confirmed);
    }
}
