//! Running seeds: one with its trace, or many on all processors.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use blocks::Mutant;

use crate::{scenario::Scenario, world::World};

/// Events after which a run is taken for one that does not end.
const EVENTS_MAX: u64 = 3_000_000;

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// The hash of everything that happened.
    pub hash: u64,
    /// What was not as it must be, if anything.
    pub failure: Option<String>,
    /// How many events there were.
    pub events: u64,
    /// How often a replica was checked whole.
    pub replicas_checked: u64,
    /// How many points of disks were checked against their instant.
    pub points_checked: u64,
    /// How many views of points were read whole.
    pub views_checked: u64,
    /// The faults that happened.
    pub faults: Vec<&'static str>,
    /// What happened, a line each, if it was asked for.
    pub lines: Vec<String>,
}

/// Whether a run keeps what happened as lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The hash only.
    Hash,
    /// Lines, for people.
    Lines,
}

/// Runs one seed.
pub fn run(seed: u64, keep: Keep) -> Outcome {
    let mut world = World::new(seed, Scenario::of_seed(seed), keep == Keep::Lines);
    let mut events = 0;
    let ran = catch_unwind(AssertUnwindSafe(|| {
        while world.advance() {
            events += 1;
            if events > EVENTS_MAX {
                world.fail("does not end".into());
            }
        }
    }));
    if let Err(panic) = ran {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        world.fail(format!("panicked: {text}"));
    }
    Outcome {
        seed,
        hash: world.trace.hash(),
        failure: world.checks.failure.take(),
        events,
        replicas_checked: world.checks.replicas_checked,
        points_checked: world.checks.points_checked,
        views_checked: world.checks.views_checked,
        faults: std::mem::take(&mut world.checks.faults),
        lines: world.trace.into_lines(),
    }
}

/// What became of many runs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many were run.
    pub runs: u64,
    /// Those that failed, by seed.
    pub failed: BTreeMap<u64, String>,
    /// Events of all.
    pub events: u64,
    /// Replicas checked whole.
    pub replicas_checked: u64,
    /// How many points of disks were checked against their instant.
    pub points_checked: u64,
    /// How many views of points were read whole.
    pub views_checked: u64,
    /// How often each fault happened.
    pub faults: BTreeMap<&'static str, u64>,
}

/// Whether to go on after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// All seeds are run.
    GoOn,
    /// Seeds that were not begun are not run.
    Stop,
}

/// Runs the seeds of a range on all processors, each run with `mutant` switched on if there is one.
pub fn run_many(
    seeds: std::ops::Range<u64>,
    mutant: Option<Mutant>,
    on_failure: OnFailure,
) -> Summary {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let summary = Mutex::new(Summary::default());
    let work = || {
        switch(mutant);
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let outcome = run(seed, Keep::Hash);
            if outcome.failure.is_some() && on_failure == OnFailure::Stop {
                stop.store(true, Ordering::Relaxed);
            }
            summary.lock().unwrap_or_else(PoisonError::into_inner).add(outcome);
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(feature = "mutants")]
fn switch(mutant: Option<Mutant>) {
    Mutant::switch(mutant);
}

#[cfg(not(feature = "mutants"))]
fn switch(mutant: Option<Mutant>) {
    assert!(mutant.is_none(), "mutants need the feature of that name");
}

impl Summary {
    fn add(&mut self, outcome: Outcome) {
        self.runs += 1;
        self.events += outcome.events;
        self.replicas_checked += outcome.replicas_checked;
        self.points_checked += outcome.points_checked;
        self.views_checked += outcome.views_checked;
        outcome.faults.iter().for_each(|fault| *self.faults.entry(fault).or_default() += 1);
        self.failed.extend(outcome.failure.map(|failure| (outcome.seed, failure)));
    }
}
