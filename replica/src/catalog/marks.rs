//! What was said of the points of a disk after they had come: confirmed, retracted, pinned.
//!
//! Bounded, so that it fits the slot of the catalogue and every change is one flip. Retractions are
//! ranges of epochs; when there would be too many, the two with the least between them become one:
//! a point too many is retracted, never one too few.
//!
//! Invariants: ranges and pins ascend and don't overlap; `first <= last` in every range.

use std::ops::RangeInclusive;

use blocks::{Epoch, RetractReason};

/// Points of one disk that can be pinned.
pub const PINS_MAX: usize = 64;

/// Ranges of retracted epochs that are kept apart.
pub(super) const RETRACTIONS_MAX: usize = 64;

/// What a point is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PointStatus {
    /// Its source has not yet compared what it saw with what the kernel counted.
    Provisional,
    /// It has, and they agree.
    Confirmed,
    /// It is no point.
    Retracted(RetractReason),
}

/// Epochs of which the points are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retraction {
    pub(crate) first: Epoch,
    pub(crate) last: Epoch,
    pub(crate) reason: RetractReason,
}

/// The marks of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Points up to this epoch are confirmed, unless they are retracted.
    pub(crate) confirmed: Epoch,
    pub(super) retractions: Vec<Retraction>,
    pub(super) pins: Vec<Epoch>,
}

impl Marks {
    pub(crate) fn status(&self, epoch: Epoch) -> PointStatus {
        let holds = |range: &&Retraction| range.first <= epoch && epoch <= range.last;
        match self.retractions.iter().find(holds) {
            Some(range) => PointStatus::Retracted(range.reason),
            None if epoch <= self.confirmed => PointStatus::Confirmed,
            None => PointStatus::Provisional,
        }
    }

    pub(crate) fn pins(&self) -> &[Epoch] {
        &self.pins
    }

    pub(crate) fn is_pinned(&self, epoch: Epoch) -> bool {
        self.pins.binary_search(&epoch).is_ok()
    }

    pub(crate) fn confirm(&mut self, through: Epoch) {
        self.confirmed = self.confirmed.max(through);
    }

    /// Whether there was room for the pin.
    pub(crate) fn pin(&mut self, epoch: Epoch) -> bool {
        match self.pins.binary_search(&epoch) {
            Ok(_) => true,
            Err(_) if self.pins.len() == PINS_MAX => false,
            Err(at) => {
                self.pins.insert(at, epoch);
                true
            }
        }
    }

    pub(crate) fn unpin(&mut self, epoch: Epoch) {
        self.pins.retain(|pin| *pin != epoch);
    }

    /// Retracts a range. What was retracted before keeps its reason.
    pub(crate) fn retract(&mut self, epochs: &RangeInclusive<Epoch>, reason: RetractReason) {
        let (mut next, last) = (*epochs.start(), *epochs.end());
        let mut added = Vec::new();
        for range in &self.retractions {
            if next < range.first && next <= last {
                let before = Epoch(range.first.0 - 1);
                added.push(Retraction { first: next, last: last.min(before), reason });
            }
            next = next.max(Epoch(range.last.0.saturating_add(1)));
        }
        if next <= last {
            added.push(Retraction { first: next, last, reason });
        }
        self.retractions.append(&mut added);
        self.retractions.sort_unstable_by_key(|range| range.first);
        self.join();
    }

    /// Forgets what concerns epochs before `base` only: they can't be looked at any more.
    pub(crate) fn forget_before(&mut self, base: Epoch) {
        self.retractions.retain(|range| range.last >= base);
        self.pins.retain(|pin| *pin >= base);
    }

    /// Joins ranges that touch, and the nearest ones while there are too many.
    fn join(&mut self) {
        self.retractions.dedup_by(|next, range| {
            let touch = range.last.0.saturating_add(1) >= next.first.0;
            let joins = touch && range.reason == next.reason;
            if joins {
                range.last = next.last;
            }
            joins
        });
        while self.retractions.len() > RETRACTIONS_MAX {
            let between =
                |at: &usize| self.retractions[at + 1].first.0 - self.retractions[*at].last.0;
            let nearest = (0..self.retractions.len() - 1).min_by_key(between);
            let nearest = nearest.expect("there are several");
            self.retractions[nearest].last = self.retractions.remove(nearest + 1).last;
        }
    }

    /// Whether the invariants of the module's head hold.
    pub(super) fn are_in_order(&self) -> bool {
        let ranges = &self.retractions;
        ranges.iter().all(|range| range.first <= range.last)
            && ranges.is_sorted_by(|range, next| range.last < next.first)
            && self.pins.is_sorted_by(|pin, next| pin < next)
            && ranges.len() <= RETRACTIONS_MAX
            && self.pins.len() <= PINS_MAX
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REASONS: [RetractReason; 2] = [RetractReason::CrossCheck, RetractReason::Operator];

    proptest! {
        #[test]
        fn retractions_agree_with_a_mark_on_every_epoch(
            ranges in prop::collection::vec((1u64..60, 0u64..9, 0usize..2), 0..12),
        ) {
            let mut marks = Marks::default();
            let mut model = [None; 80];
            for (first, more, reason) in ranges {
                marks.retract(&(Epoch(first)..=Epoch(first + more)), REASONS[reason]);
                for at in first..=first + more {
                    let mark = &mut model[usize::try_from(at).unwrap()];
                    *mark = mark.or(Some(REASONS[reason]));
                }
                prop_assert!(marks.are_in_order(), "{marks:?}");
            }
            for (epoch, mark) in (0..).map(Epoch).zip(model).skip(1) {
                let expected = mark.map_or(PointStatus::Provisional, PointStatus::Retracted);
                prop_assert_eq!(marks.status(epoch), expected, "{}", epoch);
            }
        }
    }

    #[test]
    fn too_many_retractions_retract_more_and_never_less() {
        let mut marks = Marks::default();
        for n in 0..200 {
            // Two near each other, the next two far away.
            let epoch = Epoch(1 + n / 2 * 100 + n % 2 * 10);
            marks.retract(&(epoch..=epoch), RetractReason::Gap);
        }
        assert!(marks.are_in_order());
        assert_eq!(marks.retractions.len(), RETRACTIONS_MAX);
        for n in 0..200 {
            let epoch = Epoch(1 + n / 2 * 100 + n % 2 * 10);
            assert_eq!(marks.status(epoch), PointStatus::Retracted(RetractReason::Gap));
        }
        let far =
            (0..100).filter(|n| marks.status(Epoch(n * 100 + 60)) == PointStatus::Provisional);
        assert!(far.count() > 60, "the near ones were joined first");
    }

    #[test]
    fn what_cannot_be_looked_at_is_forgotten() {
        let mut marks = Marks::default();
        marks.confirm(Epoch(5));
        marks.confirm(Epoch(3));
        marks.retract(&(Epoch(2)..=Epoch(4)), RetractReason::Gap);
        assert!(marks.pin(Epoch(3)) && marks.pin(Epoch(9)) && marks.pin(Epoch(9)));
        marks.forget_before(Epoch(4));
        assert_eq!(marks.status(Epoch(4)), PointStatus::Retracted(RetractReason::Gap));
        assert_eq!(marks.status(Epoch(5)), PointStatus::Confirmed);
        marks.forget_before(Epoch(5));
        assert_eq!((marks.retractions.len(), marks.pins()), (0, &[Epoch(9)][..]));
        marks.unpin(Epoch(9));
        for pin in 0..PINS_MAX as u64 {
            assert!(marks.pin(Epoch(100 - pin)));
        }
        assert!(!marks.pin(Epoch(1)) && marks.are_in_order());
    }
}
