//! What goes when space is short.
//!
//! The oldest first: what a person asked to keep (a pin) is kept, and so is the newest complete
//! point, without which there is nothing to fail over to. When that is not enough, it is said.

use blocks::ByteLen;

use crate::Point;

/// A point, and the space that its going would free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The point.
    pub point: Point,
    /// What dropping it frees, as far as it is known before.
    pub frees: ByteLen,
}

/// What is to be done for space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// Nothing.
    Enough,
    /// These go, by their index, rising.
    Drop {
        /// Which.
        points: Vec<usize>,
        /// What that frees.
        freed: ByteLen,
    },
    /// All that may go is not enough.
    TooLittle {
        /// What may go, by its index, rising.
        points: Vec<usize>,
        /// What that frees.
        freed: ByteLen,
        /// What is still missing then.
        missing: ByteLen,
        /// What may not go.
        held: Held,
    },
}

/// What may not go for space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// By pinned points.
    pub pinned: ByteLen,
    /// By the newest complete point, and what arrives behind it.
    pub newest: ByteLen,
}

/// Chooses what goes so that `wanted` more bytes are free; the points in the order in which they were made.
pub fn make_room(candidates: &[Candidate], wanted: ByteLen) -> Room {
    if wanted.0 == 0 {
        return Room::Enough;
    }
    let newest = candidates.iter().rposition(|candidate| candidate.point.complete);
    let (mut points, mut freed, mut held) = (Vec::new(), ByteLen(0), Held::default());
    for (index, candidate) in candidates.iter().enumerate() {
        let account = if newest.is_none_or(|newest| index >= newest) {
            &mut held.newest
        } else if candidate.point.pinned {
            &mut held.pinned
        } else {
            if freed < wanted && candidate.frees.0 > 0 {
                points.push(index);
                freed.0 = freed.0.saturating_add(candidate.frees.0);
            }
            continue;
        };
        account.0 = account.0.saturating_add(candidate.frees.0);
    }
    if freed >= wanted {
        return Room::Drop { points, freed };
    }
    let missing = ByteLen(wanted.0 - freed.0);
    Room::TooLittle { points, freed, missing, held }
}

#[cfg(test)]
mod tests {
    use blocks::Consistency;
    use proptest::prelude::*;

    use super::*;
    use crate::UnixNs;

    fn candidates(of: &[(bool, bool, u64)]) -> Vec<Candidate> {
        let candidate = |(cut, (complete, pinned, frees)): (u64, &(bool, bool, u64))| {
            let (cut, consistency) = (UnixNs(cut), Consistency::Crash);
            let point = Point { cut, consistency, complete: *complete, pinned: *pinned };
            Candidate { point, frees: ByteLen(*frees) }
        };
        (0..).zip(of).map(candidate).collect()
    }

    #[test]
    fn the_oldest_goes_first_and_no_more_than_needed() {
        let points =
            candidates(&[(true, false, 5), (true, true, 9), (true, false, 5), (true, false, 5)]);
        let drop =
            |points: &[usize], freed| Room::Drop { points: points.to_vec(), freed: ByteLen(freed) };
        assert_eq!(make_room(&points, ByteLen(0)), Room::Enough);
        assert_eq!(make_room(&points, ByteLen(5)), drop(&[0], 5));
        assert_eq!(make_room(&points, ByteLen(6)), drop(&[0, 2], 10));
        let held = Held { pinned: ByteLen(9), newest: ByteLen(5) };
        let (freed, missing) = (ByteLen(10), ByteLen(1));
        let expected = Room::TooLittle { points: vec![0, 2], freed, missing, held };
        assert_eq!(make_room(&points, ByteLen(11)), expected);
    }

    proptest! {
        #[test]
        fn what_must_stay_stays(
            of in prop::collection::vec((any::<bool>(), any::<bool>(), 0u64..9), 0..20),
            wanted in 0u64..80,
        ) {
            let candidates = candidates(&of);
            let (points, freed, enough) = match make_room(&candidates, ByteLen(wanted)) {
                Room::Enough => (Vec::new(), ByteLen(0), true),
                Room::Drop { points, freed } => (points, freed, true),
                Room::TooLittle { points, freed, missing, .. } => {
                    prop_assert_eq!(missing.0 + freed.0, wanted);
                    (points, freed, false)
                }
            };
            let newest = candidates.iter().rposition(|candidate| candidate.point.complete);
            let may_go = |index: usize| {
                newest.is_some_and(|newest| index < newest) && !candidates[index].point.pinned
            };
            prop_assert!(points.iter().all(|index| may_go(*index)));
            let sum: u64 = points.iter().map(|index| candidates[*index].frees.0).sum();
            prop_assert_eq!(sum, freed.0);
            prop_assert_eq!(enough, freed.0 >= wanted);
            // Nothing older that may go and frees something was passed over.
            let last = points.last().copied().unwrap_or(0);
            let older = (0..last).filter(|index| may_go(*index) && candidates[*index].frees.0 > 0);
            prop_assert!(older.into_iter().all(|index| points.contains(&index)));
            // The last one was needed.
            let last_frees = points.last().map_or(0, |index| candidates[*index].frees.0);
            prop_assert!(points.is_empty() || freed.0 - last_frees < wanted);
        }
    }
}
