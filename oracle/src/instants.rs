//! Sets of instants, as closed intervals.

use std::fmt;

use blocks::MonotonicNs;

/// The instants from `earliest` to `latest`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first of them.
    pub earliest: MonotonicNs,
    /// The last of them.
    pub latest: MonotonicNs,
}

impl Window {
    /// All of time: nothing is claimed.
    pub const ANY: Self = Self { earliest: MonotonicNs(0), latest: MonotonicNs(u64::MAX) };

    /// One instant.
    pub const fn at(instant: MonotonicNs) -> Self {
        Self { earliest: instant, latest: instant }
    }

    /// Whether it holds no instant.
    pub fn is_empty(&self) -> bool {
        self.latest < self.earliest
    }

    /// Whether `instant` is one of them.
    pub fn holds(&self, instant: MonotonicNs) -> bool {
        self.earliest <= instant && instant <= self.latest
    }

    /// The instants that both hold, possibly none.
    #[must_use]
    pub fn meet(self, other: Self) -> Self {
        let (earliest, latest) = (self.earliest.max(other.earliest), self.latest.min(other.latest));
        Self { earliest, latest }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.earliest.0, self.latest.0) {
            (0, u64::MAX) => f.write_str("any time"),
            (0, _) => write!(f, "up to {}", Seconds(self.latest)),
            (_, u64::MAX) => write!(f, "from {} on", Seconds(self.earliest)),
            _ => write!(f, "{} to {}", Seconds(self.earliest), Seconds(self.latest)),
        }
    }
}

/// A set of instants.
///
/// Invariant: the windows are not empty, rise, and leave at least one instant between each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instants(Vec<Window>);

impl Instants {
    /// The instants of any of these windows, which may overlap and be empty.
    pub fn of(windows: impl IntoIterator<Item = Window>) -> Self {
        let mut windows: Vec<Window> =
            windows.into_iter().filter(|window| !window.is_empty()).collect();
        windows.sort_unstable_by_key(|window| window.earliest);
        windows.dedup_by(|next, kept| {
            let touch = next.earliest.0 <= kept.latest.0.saturating_add(1);
            if touch {
                kept.latest = kept.latest.max(next.latest);
            }
            touch
        });
        Self(windows)
    }

    /// Its maximal windows, rising.
    pub fn windows(&self) -> &[Window] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `instant` is one of them.
    pub fn hold(&self, instant: MonotonicNs) -> bool {
        self.0.iter().any(|window| window.holds(instant))
    }

    /// The first of them that is not before `instant`.
    pub fn first_from(&self, instant: MonotonicNs) -> Option<MonotonicNs> {
        let window = self.0.iter().find(|window| instant <= window.latest)?;
        Some(window.earliest.max(instant))
    }

    /// From the first to the last of them; `None` if there is none.
    pub fn hull(&self) -> Option<Window> {
        let (first, last) = (self.0.first()?, self.0.last()?);
        Some(Window { earliest: first.earliest, latest: last.latest })
    }

    /// Drops the instants that `other` does not hold.
    pub fn keep(&mut self, other: &Self) {
        // Nearly always both are one window.
        if let ([mine], [theirs]) = (self.0.as_mut_slice(), other.0.as_slice()) {
            *mine = mine.meet(*theirs);
            if mine.is_empty() {
                self.0.clear();
            }
            return;
        }
        let mut met = Vec::new();
        let (mut mine, mut theirs) = (self.0.as_slice(), other.0.as_slice());
        while let (Some(left), Some(right)) = (mine.first(), theirs.first()) {
            let both = left.meet(*right);
            if !both.is_empty() {
                met.push(both);
            }
            if left.latest < right.latest {
                mine = &mine[1..];
            } else {
                theirs = &theirs[1..];
            }
        }
        self.0 = met;
    }
}

impl fmt::Display for Instants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, rest)) = self.0.split_first() else { return f.write_str("never") };
        first.fmt(f)?;
        rest.iter().try_for_each(|window| write!(f, ", or {window}"))
    }
}

/// An instant, printed in seconds.
pub(crate) struct Seconds(pub(crate) MonotonicNs);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0.0 / 1_000_000_000, self.0.0 % 1_000_000_000);
        write!(f, "{whole}.{rest:09} s")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(windows: &[(u64, u64)]) -> Instants {
        let window = |(earliest, latest): &(u64, u64)| Window {
            earliest: MonotonicNs(*earliest),
            latest: MonotonicNs(*latest),
        };
        Instants::of(windows.iter().map(window))
    }

    fn members(set: &Instants) -> Vec<u64> {
        (0..40).filter(|instant| set.hold(MonotonicNs(*instant))).collect()
    }

    proptest! {
        #[test]
        fn sets_are_sets(
            left in prop::collection::vec((0u64..30, 0u64..30), 0..6),
            right in prop::collection::vec((0u64..30, 0u64..30), 0..6),
            from in 0u64..35,
        ) {
            let inside = |windows: &[(u64, u64)], at| windows.iter().any(|w| w.0 <= at && at <= w.1);
            let (mut both, other) = (set(&left), set(&right));
            let expected: Vec<u64> = (0..40).filter(|at| inside(&left, *at)).collect();
            prop_assert_eq!(members(&both), expected);
            both.keep(&other);
            let expected: Vec<u64> =
                (0..40).filter(|at| inside(&left, *at) && inside(&right, *at)).collect();
            prop_assert_eq!(members(&both), expected.clone());
            prop_assert_eq!(both.is_empty(), expected.is_empty());
            let first = expected.iter().copied().find(|at| *at >= from).map(MonotonicNs);
            prop_assert_eq!(both.first_from(MonotonicNs(from)), first);
            let apart = both.windows().windows(2).all(|w| w[0].latest.0 + 1 < w[1].earliest.0);
            prop_assert!(apart, "{both:?}");
        }
    }
}
