//! The retention ladder: fewer points the older they are.
//!
//! `all 2h, 1h 24h, 1d 15d` keeps every point up to an age of two hours, then one an hour up to 24
//! hours, then one a day up to 15 days.
//!
//! **Slots.** An interval divides time, counted from the Unix epoch, into slots (UTC hours, UTC
//! days). One of the complete points of a slot is its *representative*: the first; but if an
//! application-consistent one follows within the reach of the rung before, the first such. The
//! reach bounds the preference because the first point grows out of that rung exactly then: what
//! comes later would find the choice made. So a representative stays what it is as time passes.
//! Each rung chooses among the representatives of the rung before.
//!
//! The newest complete point and pinned ones are kept for what they are, and represent nothing:
//! a pin that is taken off, or a newer point, then takes nothing else with it.
//!
//! **Invariants.** Intervals and reaches rise from rung to rung, and each rung after the first
//! reaches at least one interval beyond the one before. So when a point is dropped, no other of
//! its slot is left that could take its place: thinning a thinned list drops nothing more, and
//! thinning often or rarely ends with the same points.

use std::{fmt, str::FromStr};

use blocks::Consistency;

use crate::{ParseSpanError, Point, Span, UnixNs};

/// How densely a rung keeps points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// Every one.
    All,
    /// One in every span.
    OneIn(Span),
}

/// One rung: how densely, up to which age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// How densely.
    pub interval: Interval,
    /// Up to which age.
    pub reach: Span,
}

/// The rungs of a retention ladder, youngest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    rungs: Vec<Rung>,
}

/// Rungs at most: text comes from configuration files, and from peers.
const RUNGS_MAX: usize = 16;

/// Rungs that make no ladder.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LadderError {
    /// None, or too many.
    #[error("a ladder has 1 to {RUNGS_MAX} rungs, not {0}")]
    Count(usize),
    /// A rung that is no coarser than the one before.
    #[error("`{1}` after `{0}`: each rung must keep fewer points than the one before")]
    Interval(Rung, Rung),
    /// A rung that ends before one interval of it is over.
    #[error(
        "`{1}` after `{0}`: a rung must reach one of its intervals further than the one before"
    )]
    Reach(Rung, Rung),
}

/// Text that is no ladder.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseLadderError {
    /// A rung is not two words.
    #[error("`{0}` is no rung: `all 2h` or `1h 24h` are")]
    Rung(String),
    /// A length of time can't be read.
    #[error(transparent)]
    Span(#[from] ParseSpanError),
    /// The rungs make no ladder.
    #[error(transparent)]
    Ladder(#[from] LadderError),
}

/// Why a point is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepReason {
    /// It is the newest complete one.
    Newest,
    /// Somebody asked for it.
    Pinned,
    /// It may still become complete: it is newer than the newest complete one.
    Arriving,
    /// The rung with this index, counted from the youngest, keeps it.
    Rung(usize),
}

/// What becomes of each point of a list, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept(Vec<Option<KeepReason>>);

impl Kept {
    /// Why the point at `index` is kept; `None`: it is not.
    pub fn reason(&self, index: usize) -> Option<KeepReason> {
        self.0[index]
    }

    /// The indices of those that are kept, rising.
    pub fn kept(&self) -> impl Iterator<Item = usize> {
        self.indices(true)
    }

    /// The indices of those that go, rising.
    pub fn dropped(&self) -> impl Iterator<Item = usize> {
        self.indices(false)
    }

    fn indices(&self, kept: bool) -> impl Iterator<Item = usize> {
        let reasons = self.0.iter().enumerate();
        reasons.filter(move |(_, reason)| reason.is_some() == kept).map(|(index, _)| index)
    }
}

impl Ladder {
    /// A ladder of these rungs, youngest first.
    pub fn new(rungs: Vec<Rung>) -> Result<Self, LadderError> {
        if rungs.is_empty() || rungs.len() > RUNGS_MAX {
            return Err(LadderError::Count(rungs.len()));
        }
        for pair in rungs.windows(2) {
            let (before, rung) = (pair[0], pair[1]);
            let Interval::OneIn(interval) = rung.interval else {
                return Err(LadderError::Interval(before, rung));
            };
            if before.interval >= rung.interval {
                return Err(LadderError::Interval(before, rung));
            }
            if rung.reach.seconds() < before.reach.seconds() + interval.seconds() {
                return Err(LadderError::Reach(before, rung));
            }
        }
        Ok(Self { rungs })
    }

    /// Its rungs, youngest first.
    pub fn rungs(&self) -> &[Rung] {
        &self.rungs
    }

    /// The age up to which anything is kept.
    pub fn reach(&self) -> Span {
        self.rungs[self.rungs.len() - 1].reach
    }

    /// How many points it keeps at most, pinned ones aside, if one is made every `every`.
    ///
    /// A rung's slots are cut at both ends, hence one more than fits; and the newest.
    pub fn points_max(&self, every: Span) -> u64 {
        let mut from = 0;
        let mut points = 1;
        for rung in &self.rungs {
            let interval = match rung.interval {
                Interval::All => every,
                Interval::OneIn(span) => span.max(every),
            };
            points += (rung.reach.seconds() - from).div_ceil(interval.seconds()) + 1;
            from = rung.reach.seconds();
        }
        points
    }

    /// What becomes of `points`, in the order in which they were made, at `now`.
    ///
    /// A clock that is ahead of what follows was set back: such a point is as old as its successor.
    ///
    /// Never dropped: the newest complete point, pinned ones, and those that may still be arriving.
    /// Memory: a few words a point.
    pub fn keep(&self, points: &[Point], now: UnixNs) -> Kept {
        let points = &without_steps_back(points, now);
        let newest = points.iter().rposition(|point| point.complete);
        let stands = |index: &usize| {
            let point = &points[*index];
            point.complete && !point.pinned && Some(*index) != newest
        };
        let ranks = self.ranks(points, (0..points.len()).filter(stands).collect());
        let keep = |(index, point): (usize, &Point)| {
            if Some(index) == newest {
                return Some(KeepReason::Newest);
            }
            if point.pinned {
                return Some(KeepReason::Pinned);
            }
            if newest.is_none_or(|newest| index > newest) {
                return Some(KeepReason::Arriving);
            }
            let age = now.since(point.cut);
            let rung = self.rungs.iter().position(|rung| age <= rung.reach.duration())?;
            (rung < ranks[index]).then_some(KeepReason::Rung(rung))
        };
        Kept(points.iter().enumerate().map(keep).collect())
    }

    /// How many rungs, from the youngest on, would keep each point for its place in its slot.
    fn ranks(&self, points: &[Point], candidates: Vec<usize>) -> Vec<usize> {
        let mut ranks = vec![0; points.len()];
        let mut chosen = candidates;
        let mut reach_before = 0;
        for rung in &self.rungs {
            if let Interval::OneIn(span) = rung.interval {
                chosen = representatives(points, &chosen, span, reach_before);
            }
            chosen.iter().for_each(|index| ranks[*index] += 1);
            reach_before = rung.reach.nanoseconds();
        }
        ranks
    }
}

/// The points with cuts that rise up to `now`.
fn without_steps_back(points: &[Point], now: UnixNs) -> Vec<Point> {
    let mut points = points.to_vec();
    let mut next = now;
    for point in points.iter_mut().rev() {
        point.cut = point.cut.min(next);
        next = point.cut;
    }
    points
}

/// The representative of every slot that holds any of `chosen`.
fn representatives(points: &[Point], chosen: &[usize], slot: Span, reach: u64) -> Vec<usize> {
    let slot_of = |index: &usize| points[*index].cut.0 / slot.nanoseconds();
    let of_slot = |members: &[usize]| {
        let first = members[0];
        let decided = points[first].cut.0.saturating_add(reach);
        let preferred = members.iter().find(|index| {
            let point = &points[**index];
            point.consistency == Consistency::Application && point.cut.0 <= decided
        });
        *preferred.unwrap_or(&first)
    };
    chosen.chunk_by(|left, right| slot_of(left) == slot_of(right)).map(of_slot).collect()
}

impl Default for Ladder {
    /// Every point for two hours, hourly for 24 hours, daily for 15 days.
    fn default() -> Self {
        "all 2h, 1h 24h, 1d 15d".parse().expect("a ladder")
    }
}

impl PartialOrd for Interval {
    /// From dense to sparse.
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        let seconds = |interval: &Self| match interval {
            Self::All => 0,
            Self::OneIn(span) => span.seconds(),
        };
        Some(seconds(self).cmp(&seconds(other)))
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.interval {
            Interval::All => write!(f, "all {}", self.reach),
            Interval::OneIn(span) => write!(f, "{span} {}", self.reach.beside(span)),
        }
    }
}

impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rung) in self.rungs.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{rung}")?;
        }
        Ok(())
    }
}

impl FromStr for Rung {
    type Err = ParseLadderError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split_whitespace();
        let (Some(interval), Some(reach), None) = (words.next(), words.next(), words.next()) else {
            return Err(ParseLadderError::Rung(text.trim().to_owned()));
        };
        let interval = match interval {
            "all" => Interval::All,
            span => Interval::OneIn(span.parse()?),
        };
        Ok(Self { interval, reach: reach.parse()? })
    }
}

impl FromStr for Ladder {
    type Err = ParseLadderError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rungs = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self::new(rungs)?)
    }
}

#[cfg(test)]
mod tests;
