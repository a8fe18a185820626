//! Virtual time, and what happens when.
//!
//! Invariants: time never goes back; of two events at one time, the one that was planned first
//! comes first. Every event also gets a *step*, a number that no other has, by which the history of
//! writes is ordered: two things never happen at one step.

use std::collections::BTreeMap;

/// Nanoseconds in a microsecond, a millisecond, a second.
pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000_000;
pub(crate) const S: u64 = 1_000_000_000;

/// A place in the order of everything that happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Step(pub(crate) u64);

/// The clock and the events to come.
#[derive(Debug)]
pub(crate) struct Clock<E> {
    now: u64,
    step: u64,
    planned: u64,
    queue: BTreeMap<(u64, u64), E>,
}

impl<E> Clock<E> {
    pub(crate) fn new() -> Self {
        // No part of the product takes zero for a time at which something happened.
        Self { now: S, step: 0, planned: 0, queue: BTreeMap::new() }
    }

    /// Nanoseconds since some beginning.
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// A step of its own for something that happens now.
    pub(crate) fn step(&mut self) -> Step {
        self.step += 1;
        Step(self.step)
    }

    /// Plans `event` for so many nanoseconds from now.
    pub(crate) fn after(&mut self, delay: u64, event: E) {
        self.at(self.now + delay, event);
    }

    /// Plans `event` for a time, or for now if that has passed.
    pub(crate) fn at(&mut self, time: u64, event: E) {
        self.planned += 1;
        self.queue.insert((time.max(self.now), self.planned), event);
    }

    /// Moves on to the next event.
    pub(crate) fn next(&mut self) -> Option<E> {
        let ((time, _), event) = self.queue.pop_first()?;
        self.now = time;
        Some(event)
    }

    /// Takes the first planned event that `wanted` picks out of its turn: it happens now.
    pub(crate) fn take_first(&mut self, wanted: impl Fn(&E) -> bool) -> Option<E> {
        let at = self.queue.iter().find(|(_, event)| wanted(event)).map(|(at, _)| *at)?;
        self.queue.remove(&at)
    }

    /// Time leaps, as when a machine was suspended: everything that was planned before is late.
    pub(crate) fn leap(&mut self, nanoseconds: u64) {
        self.now += nanoseconds;
        let late = self.queue.split_off(&(self.now, 0));
        let overdue = std::mem::replace(&mut self.queue, late);
        self.queue.extend(overdue.into_iter().map(|((_, n), event)| ((self.now, n), event)));
    }
}
