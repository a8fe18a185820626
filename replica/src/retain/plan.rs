//! What retention does next. Pure: from what is held to one step.
//!
//! The base moves up to the oldest kept point. The deltas from one kept point to the next become
//! one, a window at a time. What comes after the newest kept point waits for the next one, and is
//! only kept from becoming too many files.

use std::ops::Range;

/// Deltas that are merged in one step, at most: bounds its descriptors and its memory.
pub(super) const MERGED_MAX: usize = 16;

/// Deltas that may follow the newest kept point before some of them are merged.
const TAIL_MAX: usize = 4 * MERGED_MAX;

/// A delta, as far as retention looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Whether it makes a point that is kept.
    pub(super) is_kept: bool,
    pub(super) bytes: u64,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// The oldest delta goes into the base.
    Fold,
    /// These deltas become one.
    Merge(Range<usize>),
    Nothing,
}

/// The next step for a base, which holds a kept point or not, and the deltas on it, oldest first.
pub(super) fn plan(base_is_kept: bool, deltas: &[Held]) -> Work {
    if deltas.is_empty() {
        return Work::Nothing;
    }
    if !base_is_kept {
        return Work::Fold;
    }
    let mut windows = Vec::new();
    let mut begin = 0;
    for (at, _) in deltas.iter().enumerate().filter(|(_, delta)| delta.is_kept) {
        windows.extend(windows_of(begin..at + 1));
        begin = at + 1;
    }
    if deltas.len() - begin > TAIL_MAX {
        windows.extend(windows_of(begin..deltas.len()));
    }
    let cost = |window: &Range<usize>| deltas[window.clone()].iter().map(|d| d.bytes).sum::<u64>();
    windows.into_iter().min_by_key(cost).map_or(Work::Nothing, Work::Merge)
}

/// The windows of neighbours within `run` that can be merged in one step.
fn windows_of(run: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let width = run.len().min(MERGED_MAX);
    let last = if width < 2 { run.start } else { run.end - width + 1 };
    (run.start..last).map(move |begin| begin..begin + width)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held(is_kept: bool, bytes: u64) -> Held {
        Held { is_kept, bytes }
    }

    #[test]
    fn the_base_moves_up_to_the_oldest_kept_point() {
        let deltas = [held(false, 1), held(true, 1), held(false, 1)];
        assert_eq!(plan(false, &deltas), Work::Fold);
        assert_eq!(plan(false, &[held(false, 1)]), Work::Fold);
        assert_eq!(plan(true, &deltas), Work::Merge(0..2));
        assert_eq!(plan(true, &deltas[1..]), Work::Nothing);
        assert_eq!(plan(true, &[]), Work::Nothing);
        assert_eq!(plan(false, &[]), Work::Nothing);
    }

    #[test]
    fn the_cheapest_window_goes_first() {
        let mut deltas = vec![held(true, 9), held(false, 9), held(true, 9)];
        deltas.extend(vec![held(false, 1); 20]);
        deltas.push(held(true, 1));
        assert_eq!(plan(true, &deltas), Work::Merge(3..19));
        assert_eq!(plan(true, &deltas[..4]), Work::Merge(1..3));
    }

    #[test]
    fn a_tail_without_a_point_is_left_alone_until_it_is_long() {
        let tail = vec![held(false, 1); TAIL_MAX];
        assert_eq!(plan(true, &tail), Work::Nothing);
        let longer = vec![held(false, 1); TAIL_MAX + 1];
        assert!(matches!(plan(true, &longer), Work::Merge(window) if window.len() == MERGED_MAX));
    }

    proptest! {
        #[test]
        fn it_comes_to_an_end_and_every_kept_point_is_left(
            mut base: bool, kept in prop::collection::vec(any::<bool>(), 0..120),
        ) {
            let mut deltas: Vec<Held> = kept.iter().map(|kept| held(*kept, 1)).collect();
            let points = |base: bool, deltas: &[Held]| {
                usize::from(base) + deltas.iter().filter(|delta| delta.is_kept).count()
            };
            let before = points(base, &deltas);
            for _ in 0..=kept.len() {
                match plan(base, &deltas) {
                    Work::Fold => {
                        prop_assert!(!base);
                        base = deltas.remove(0).is_kept;
                    }
                    Work::Merge(window) => {
                        prop_assert!((2..=MERGED_MAX).contains(&window.len()));
                        let merged: Vec<_> = deltas.drain(window.clone()).collect();
                        let newest = merged.last().unwrap();
                        prop_assert!(merged[..merged.len() - 1].iter().all(|d| !d.is_kept));
                        let bytes = merged.iter().map(|d| d.bytes).sum();
                        deltas.insert(window.start, held(newest.is_kept, bytes));
                    }
                    Work::Nothing => break,
                }
                prop_assert_eq!(points(base, &deltas), before);
            }
            prop_assert_eq!(plan(base, &deltas), Work::Nothing);
            prop_assert!(deltas.len() <= before + TAIL_MAX);
        }
    }
}
