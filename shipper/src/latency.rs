//! How long each stage takes, as histograms.

use std::{
    array,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;

/// A stage of the pipeline. Each is measured once a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// From the first read's submission to the last one's completion.
    Read,
    /// From there until a worker is free.
    Queue,
    /// Hashing and comparing; comparisons only.
    Compare,
    /// Finding zeroes and moving the data together.
    Sort,
    /// Compressing, or finding out that it is of no use.
    Compress,
    /// Encrypting and framing.
    Seal,
    /// From sealed until the receiver took it, the wait for its turn included.
    Deliver,
}

impl Stage {
    /// All stages, in the order a batch goes through them.
    pub const ALL: [Self; 7] = [
        Self::Read,
        Self::Queue,
        Self::Compare,
        Self::Sort,
        Self::Compress,
        Self::Seal,
        Self::Deliver,
    ];
}

/// The latencies of all stages, shared by the threads that measure them.
#[derive(Debug)]
pub(crate) struct StageLatencies {
    stages: [Mutex<Histogram<u64>>; Stage::ALL.len()],
}

impl StageLatencies {
    pub(crate) fn new() -> Self {
        Self { stages: array::from_fn(|_| Mutex::new(empty())) }
    }

    /// Notes that a batch took `time` in `stage`.
    pub(crate) fn record(&self, stage: Stage, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.of(stage).saturating_record(nanos.max(1));
    }

    /// What was noted so far, in nanoseconds.
    pub(crate) fn snapshot(&self, stage: Stage) -> Histogram<u64> {
        self.of(stage).clone()
    }

    fn of(&self, stage: Stage) -> std::sync::MutexGuard<'_, Histogram<u64>> {
        // A histogram is whole after any panic of a thread that records into it.
        self.stages[stage as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From 1 ns to an hour, to two digits.
fn empty() -> Histogram<u64> {
    const HOUR_NANOS: u64 = 3_600_000_000_000;
    Histogram::new_with_bounds(1, HOUR_NANOS, 2).expect("bounds that hdrhistogram accepts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_its_own_histogram() {
        let latencies = StageLatencies::new();
        for (i, stage) in (1..).zip(Stage::ALL) {
            latencies.record(stage, Duration::from_millis(i));
        }
        latencies.record(Stage::Read, Duration::from_secs(100_000));
        for stage in Stage::ALL {
            assert_eq!(latencies.snapshot(stage).len(), 1 + u64::from(stage == Stage::Read));
        }
    }
}
