//! Thousands of simulated runs. `docs/simulator.md` says what each of them checks.

use std::collections::BTreeSet;

use sim::{Keep, OnFailure};

/// What every run of the tests goes through.
const SEEDS: u64 = 5_000;

/// What was found once: the seed, at the commit that mended it, and what it was. A seed stands for
/// the same run only as long as the simulator is the same; what a defect was is held by the test of
/// the core that is named.
const FOUND: &[(u64, &str)] = &[
    (
        212,
        "a read error during the seed: the tracker sealed on an epoch that the replica had passed; tracker/src/disk/tests.rs",
    ),
    (893, "the same, after a refusal and a reconnection"),
    (
        302,
        "the session began epochs as built on another than they were sealed on, and called the answer out of order; wire/src/session/tests/flow.rs",
    ),
];

#[test]
fn every_seed_holds() {
    let summary = sim::run_many(0..SEEDS, None, OnFailure::GoOn);
    assert_eq!(summary.runs, SEEDS);
    assert!(summary.failed.is_empty(), "{:#?}", summary.failed);
    assert!(summary.replicas_checked > SEEDS, "{} replicas", summary.replicas_checked);
    assert!(summary.points_checked > SEEDS, "{} points", summary.points_checked);
    assert!(summary.views_checked > SEEDS, "{} views", summary.views_checked);
    let happened: u64 = summary.faults.values().sum();
    assert!(happened >= 4 * SEEDS, "{:?}", summary.faults);
}

#[test]
fn what_was_found_once_stays_mended() {
    for (seed, what) in FOUND {
        let outcome = sim::run(*seed, Keep::Hash);
        assert_eq!(outcome.failure, None, "seed {seed}: {what}");
    }
}

#[test]
fn a_seed_is_one_run_and_no_other() {
    let hashes: Vec<u64> = (0..40).map(|seed| sim::run(seed, Keep::Hash).hash).collect();
    let again: Vec<u64> = (0..40).map(|seed| sim::run(seed, Keep::Lines).hash).collect();
    assert_eq!(hashes, again);
    assert_eq!(hashes.iter().collect::<BTreeSet<_>>().len(), hashes.len());
}

#[test]
fn every_run_crashes_something_and_meets_other_faults() {
    for seed in 0..100 {
        let faults = sim::run(seed, Keep::Hash).faults;
        let kinds: BTreeSet<_> = faults.iter().collect();
        let crashes = ["agent kill", "machine crash", "target kill", "target power cut"];
        assert!(kinds.iter().any(|kind| crashes.contains(kind)), "seed {seed}: {kinds:?}");
        let others = kinds.iter().filter(|kind| !crashes.contains(kind)).count();
        assert!(others + kinds.len() >= 4, "seed {seed}: {kinds:?}");
    }
}
