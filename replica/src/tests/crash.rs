//! A crash after every operation of the scenario, with subsets of what was not flushed.

use storage::{FaultyStorage, faulty::Fate};

use super::scenario::{Reached, Scenario};

/// All subsets are tried up to this many unflushed changes.
const EXHAUSTIVE_MAX: usize = 6;

/// Ways in which a crash may treat the unflushed changes: every subset of few; of many, none, all,
/// all but one, one alone, and some at random with torn writes among them.
fn fates(unflushed: usize) -> Vec<Vec<Fate>> {
    let keep = |kept: bool| if kept { Fate::Kept } else { Fate::Dropped };
    if unflushed <= EXHAUSTIVE_MAX {
        let subset = |bits: u32| (0..unflushed).map(|i| keep(bits >> i & 1 == 1)).collect();
        let mut ways: Vec<Vec<Fate>> = (0..1 << unflushed).map(subset).collect();
        ways.extend([1, 513, 4000].map(|bytes| vec![Fate::Torn { bytes }; unflushed]));
        return ways;
    }
    let mut ways = vec![vec![Fate::Kept; unflushed], vec![Fate::Dropped; unflushed]];
    for i in 0..unflushed {
        ways.push((0..unflushed).map(|j| keep(i == j)).collect());
        ways.push((0..unflushed).map(|j| keep(i != j)).collect());
    }
    for seed in 0..8u8 {
        let random = |i: usize| {
            let hash = blake3::hash(&[seed, u8::try_from(i % 256).unwrap()]);
            match hash.as_bytes()[0] % 3 {
                0 => Fate::Kept,
                1 => Fate::Dropped,
                _ => Fate::Torn { bytes: usize::from(hash.as_bytes()[1]) * 40 },
            }
        };
        ways.push((0..unflushed).map(random).collect());
    }
    ways
}

#[test]
fn at_any_crash_nothing_acknowledged_is_lost_and_nothing_half_is_visible() {
    let scenario = Scenario::new();
    let mut crashes = 0;
    for stop in 0.. {
        let storage = FaultyStorage::new();
        storage.power_off_after(stop);
        let reached = scenario.run(&storage);
        for way in fates(storage.unflushed()) {
            let after = storage.after_crash(|i| way[i]);
            let durable = scenario.check(&after, reached);
            // And it goes on from there to the end.
            let resumed = scenario.run(&after);
            assert!(resumed.finished, "stop {stop}: {resumed:?} after {durable}");
            crashes += 1;
        }
        if reached.finished {
            break;
        }
    }
    assert!(crashes > 1000, "{crashes} crashes");
}

#[test]
fn a_crash_of_the_recovery_loses_nothing_either() {
    let scenario = Scenario::new();
    for stop in (0..).step_by(3) {
        let storage = FaultyStorage::new();
        storage.power_off_after(stop);
        let reached = scenario.run(&storage);
        for first in [Fate::Kept, Fate::Dropped] {
            let crashed = storage.after_crash(|_| first);
            let begun = Reached { begun: reached.begun, ..reached };
            for again in (0..).step_by(2) {
                let recovering = crashed.after_crash(|_| Fate::Kept);
                recovering.power_off_after(again);
                let resumed = scenario.run(&recovering);
                let reached = Reached {
                    acknowledged: resumed.acknowledged.max(begun.acknowledged),
                    begun: resumed.begun.max(begun.begun),
                    finished: resumed.finished,
                };
                for second in [Fate::Kept, Fate::Dropped, Fate::Torn { bytes: 600 }] {
                    scenario.check(&recovering.after_crash(|_| second), reached);
                }
                // What comes after the recovery is the other test's.
                if resumed.begun > begun.begun || resumed.finished {
                    break;
                }
            }
        }
        if reached.finished {
            break;
        }
    }
}

/// The checker itself can fail: a store that acknowledges before it syncs is found out.
#[test]
fn the_check_finds_a_lost_acknowledgement() {
    let scenario = Scenario::new();
    let storage = FaultyStorage::new();
    storage.power_off_after(120);
    let reached = scenario.run(&storage);
    let lied = Reached { acknowledged: reached.acknowledged.next(), ..reached };
    let after = storage.after_crash(|_| Fate::Dropped);
    let found = std::panic::catch_unwind(|| scenario.check(&after, lied));
    assert!(found.is_err());
}
