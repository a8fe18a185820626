//! Each operation of the scenario fails once, in each way.

use storage::{
    FaultyStorage,
    faulty::{Fate, Fault},
};

use super::scenario::Scenario;

fn operations_of_a_clean_run() -> u64 {
    let storage = FaultyStorage::new();
    assert!(Scenario::new().run(&storage).finished);
    storage.operations()
}

/// Fails operation `n`; then checks the store as the process left it and as a crash would have,
/// and that the scenario can be finished from both.
fn survive(scenario: &Scenario, n: u64, fault: Fault) {
    let storage = FaultyStorage::new();
    storage.fail_at(n, fault);
    let reached = scenario.run(&storage);
    for fate in [Fate::Dropped, Fate::Kept] {
        let after = storage.after_crash(|_| fate);
        scenario.check(&after, reached);
        assert!(scenario.run(&after).finished, "{fault:?} at {n}, then a crash");
    }
    let durable = scenario.check(&storage, reached);
    // The check has folded, and so on: what it was shown must be durable by now.
    let seen = super::scenario::Reached { acknowledged: durable, ..reached };
    scenario.check(&storage.after_crash(|_| Fate::Dropped), seen);
    assert!(scenario.run(&storage).finished, "{fault:?} at {n}");
}

fn sweep(fault: Fault) {
    let scenario = Scenario::new();
    for n in 0..operations_of_a_clean_run() {
        survive(&scenario, n, fault);
    }
}

#[test]
fn any_operation_may_fail_with_eio() {
    sweep(Fault::Io);
}

#[test]
fn any_write_may_find_no_room() {
    sweep(Fault::Full);
}

#[test]
fn any_write_may_be_cut_short() {
    sweep(Fault::ShortWrite);
}

#[test]
fn any_sync_may_fail_and_is_not_believed_later() {
    sweep(Fault::Sync);
}
