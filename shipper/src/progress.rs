//! How far a shipment has come, readable at any time from any thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of one shipment.
///
/// All but `wire` count bytes of the epoch's chunks: `sent <= read <= planned`, and all three are
/// equal at the end. What was found to be zero or unchanged counts as sent.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    planned: AtomicU64,
    read: AtomicU64,
    sent: AtomicU64,
    wire: AtomicU64,
}

impl Progress {
    pub(crate) fn new(planned: u64) -> Self {
        Self { planned: planned.into(), ..Self::default() }
    }

    pub(crate) fn add_read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_wire(&self, bytes: u64) {
        self.wire.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> ProgressSnapshot {
        // In this order, so that the inequality holds in what is returned.
        let wire = self.wire.load(Ordering::Acquire);
        let sent = self.sent.load(Ordering::Acquire);
        let read = self.read.load(Ordering::Acquire);
        ProgressSnapshot { planned: self.planned.load(Ordering::Relaxed), read, sent, wire }
    }
}

/// A shipment's counters at an instant, in bytes: `sent <= read <= planned`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgressSnapshot {
    /// What the epoch covers.
    pub planned: u64,
    /// What was read of it.
    pub read: u64,
    /// What was handed to the receiver of it, or need not be.
    pub sent: u64,
    /// The length of all frames handed over.
    pub wire: u64,
}
