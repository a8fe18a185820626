//! Brute force: the definition of a valid point, word for word, and nothing clever.
//!
//! Two of them. [`by_permutation`] tries every order of every subset of the writes of a unit, which
//! only small histories allow. [`by_placing`] places one write after the other and remembers which
//! sets it has seen; it decides larger histories, and is itself compared with the first.

use std::collections::HashSet;

use crate::{Content, Layout, Outcome, Record, Unit, WriteKind};
use blocks::MonotonicNs;

/// A write as one unit sees it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    issued: u64,
    completed: u64,
    /// What the unit shows when this is the last; `None`: anything.
    shows: Option<Content>,
}

/// The writes of a run, and what was there before.
pub(crate) struct Run<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) records: &'a [Record],
    pub(crate) initial: &'a dyn Fn(Unit) -> Content,
}

/// What must be there, and what may.
#[derive(Clone, Copy)]
struct Bounds {
    /// All that completed before this.
    must: u64,
    /// Any of what was issued up to this.
    may: u64,
}

type LastOf = fn(&[Seen], Bounds, &mut dyn FnMut(Option<&Seen>));

impl Run<'_> {
    /// Whether all of `contents` can be there at `instant`, by trying every permutation.
    pub(crate) fn by_permutation(&self, contents: &[(Unit, Content)], instant: u64) -> bool {
        self.allows(contents, Bounds { must: instant, may: instant }, every_permutation)
    }

    /// The same, by placing writes.
    pub(crate) fn by_placing(&self, contents: &[(Unit, Content)], instant: u64) -> bool {
        self.allows(contents, Bounds { must: instant, may: instant }, every_placing)
    }

    /// Whether a disk with a volatile cache may hold this after a power cut at `cut`, if what
    /// completed before `flushed` is durable.
    pub(crate) fn after_power_cut(
        &self,
        contents: &[(Unit, Content)],
        flushed: u64,
        cut: u64,
    ) -> bool {
        self.allows(contents, Bounds { must: flushed, may: cut }, every_permutation)
    }

    fn allows(&self, contents: &[(Unit, Content)], bounds: Bounds, last_of: LastOf) -> bool {
        contents.iter().all(|(unit, content)| {
            let writes = self.writes_on(*unit);
            let mut possible = false;
            last_of(&writes, bounds, &mut |last| {
                possible |= match last {
                    None => (self.initial)(*unit) == *content,
                    Some(last) => last.shows.is_none_or(|shows| shows == *content),
                };
            });
            possible
        })
    }

    fn writes_on(&self, unit: Unit) -> Vec<Seen> {
        let at = self.layout.extent_of(unit);
        let covers = |record: &&Record| {
            let extent = record.issue.extent;
            record.issue.disk == unit.disk && extent.start <= at.start && at.end() <= extent.end()
        };
        let stamps = |record: &Record, number: u64| {
            let of = |other: &&Record| {
                (other.issue.stream, other.issue.write) == (record.issue.stream, number)
            };
            let source = self.records.iter().find(of).unwrap();
            let index = u32::try_from(at.start.0 - source.issue.extent.start.0).unwrap();
            Some(Content::Write { stream: record.issue.stream, write: number, index })
        };
        let seen = |record: &Record| Seen {
            issued: record.issued.0,
            completed: match record.outcome {
                Outcome::Completed(MonotonicNs(at)) => at,
                _ => u64::MAX,
            },
            shows: match record.issue.kind {
                WriteKind::Data => stamps(record, record.issue.write),
                WriteKind::Repeat { of } => stamps(record, of),
                WriteKind::Zeroes => Some(Content::Zeroes),
                WriteKind::Discard => None,
            },
        };
        self.records.iter().filter(covers).map(seen).collect()
    }
}

/// Calls `found` with the last write of every order of every set that may be there within the bounds.
fn every_permutation(writes: &[Seen], bounds: Bounds, found: &mut dyn FnMut(Option<&Seen>)) {
    for set in 0..1_u32 << writes.len() {
        let chosen: Vec<&Seen> =
            (0..).zip(writes).filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, w)| w).collect();
        let all_completed = writes.iter().filter(|write| write.completed < bounds.must).count()
            == chosen.iter().filter(|write| write.completed < bounds.must).count();
        if all_completed && chosen.iter().all(|write| write.issued <= bounds.may) {
            permute(&mut chosen.clone(), 0, found);
        }
    }
}

fn permute<'a>(order: &mut [&'a Seen], at: usize, found: &mut dyn FnMut(Option<&'a Seen>)) {
    if at == order.len() {
        let respects = |early: usize, late: usize| order[late].completed >= order[early].issued;
        if (0..at).all(|late| (0..late).all(|early| respects(early, late))) {
            found(order.last().copied());
        }
        return;
    }
    for next in at..order.len() {
        order.swap(at, next);
        permute(order, at + 1, found);
        order.swap(at, next);
    }
}

/// The same by placing one write after the other, visiting each set of placed writes once.
fn every_placing(writes: &[Seen], bounds: Bounds, found: &mut dyn FnMut(Option<&Seen>)) {
    assert!(writes.len() <= 64, "one bit a write");
    let bits = |of: &dyn Fn(&Seen) -> bool| {
        (0..).zip(writes).filter(|(_, write)| of(write)).fold(0_u64, |set, (bit, _)| set | 1 << bit)
    };
    let completed = bits(&|write| write.completed < bounds.must);
    let started = bits(&|write| write.issued <= bounds.may);
    let before = |write: &Seen| bits(&|other| other.completed < write.issued) & completed;
    if completed == 0 {
        found(None);
    }
    let (mut seen, mut open) = (HashSet::from([0_u64]), vec![0_u64]);
    while let Some(placed) = open.pop() {
        for (bit, write) in (0..).zip(writes) {
            let one = 1_u64 << bit;
            if placed & one != 0 || started & one == 0 || before(write) & !placed != 0 {
                continue;
            }
            let next = placed | one;
            if next & completed == completed {
                found(Some(write));
            }
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
}
