//! What is remembered of recovery points: those of one disk that are provisional, and what the
//! points of the machine amounted to.

use std::collections::VecDeque;
use std::time::Duration;

use blocks::{CutTime, Epoch, MonotonicNs, PointRecord};
use hdrhistogram::Histogram;
use tracker::Confirmation;

use crate::admin::agent::{Latency, PointMade, PointsStatus, Refusal};

/// Points of one disk.
pub(super) struct DiskPoints {
    pub(super) confirmation: Confirmation,
    /// Cut and neither confirmed nor retracted, oldest first.
    provisional: VecDeque<Provisional>,
    /// Points up to that of this epoch are confirmed.
    confirmed: Epoch,
    newest: Option<PointMade>,
}

struct Provisional {
    epoch: Epoch,
    /// What it needs proof for ended then.
    window_end: MonotonicNs,
    durable: bool,
    record: Option<PointRecord>,
}

impl DiskPoints {
    pub(super) fn new(confirmation: Confirmation) -> Self {
        let provisional = VecDeque::new();
        Self { confirmation, provisional, confirmed: Epoch::NONE, newest: None }
    }

    /// The newest point that is durable.
    pub(super) fn newest(&self) -> Option<PointMade> {
        self.newest.clone()
    }

    /// Whether a durable point waits for proof.
    pub(super) fn awaits_proof(&self) -> bool {
        self.provisional.iter().any(|point| point.durable)
    }

    /// A cut was sealed as an epoch.
    pub(super) fn note_cut(&mut self, epoch: Epoch, record: PointRecord) {
        let window = u64::try_from(record.window.as_nanos()).unwrap_or(u64::MAX);
        let window_end = MonotonicNs(record.cut.monotonic.0.saturating_add(window));
        let record = Some(record);
        self.provisional.push_back(Provisional { epoch, window_end, durable: false, record });
    }

    /// Epochs up to this one are durable.
    pub(super) fn note_durable(&mut self, epoch: Epoch) {
        for point in self.provisional.iter_mut().filter(|point| point.epoch <= epoch) {
            if !point.durable
                && let Some(record) = &point.record
            {
                self.newest = Some(PointMade::new(record, Vec::new()));
            }
            point.durable = true;
        }
    }

    /// Epochs in flight were lost.
    pub(super) fn note_aborted(&mut self) {
        self.provisional.retain(|point| point.durable);
    }

    /// The target says what it holds.
    pub(super) fn note_opened(&mut self, durable: Epoch, confirmed: Epoch, now: MonotonicNs) {
        self.note_durable(durable);
        self.provisional.retain(|point| point.durable && point.epoch <= durable);
        self.confirmed = confirmed;
        if confirmed < durable && self.provisional.is_empty() {
            // Of an agent before this one, or confirmed while the connection was down.
            let (window_end, record) = (now, None);
            let point = Provisional { epoch: durable, window_end, durable: true, record };
            self.provisional.push_back(point);
        }
    }

    /// Nothing was missed up to an instant: the newest epoch whose point that confirms, if any.
    pub(super) fn note_proof(&mut self, at: MonotonicNs) -> Option<Epoch> {
        let proven = |point: &mut Provisional| point.durable && point.window_end <= at;
        let mut through = None;
        while let Some(point) = self.provisional.pop_front_if(proven) {
            through = Some(point.epoch);
            let id = point.record.map(|record| record.id.to_string());
            if let Some(newest) =
                self.newest.as_mut().filter(|newest| Some(&newest.id) == id.as_ref())
            {
                newest.confirmed = true;
            }
        }
        self.confirmed = through.unwrap_or(self.confirmed);
        through
    }

    /// Gives up what is provisional: the epoch up to which points stay, and how many do not.
    pub(super) fn retract(&mut self) -> Option<(Epoch, u64)> {
        if self.provisional.is_empty() {
            return None;
        }
        if self.newest.as_ref().is_some_and(|newest| !newest.confirmed) {
            self.newest = None;
        }
        let count = self.provisional.len() as u64;
        self.provisional.clear();
        Some((self.confirmed, count))
    }
}

/// What the points of a machine amounted to, since the agent started.
pub(super) struct PointStats {
    made: u64,
    refused: u64,
    retracted: u64,
    newest: Option<CutTime>,
    /// From T to the last look, in microseconds.
    pub(super) window: Histogram<u64>,
    /// How long the application stood still, in microseconds.
    pub(super) freeze: Histogram<u64>,
    pub(super) attempts: Histogram<u64>,
    last_refusal: Option<Refusal>,
    last_retraction: Option<Refusal>,
    /// What the hooks of the last point with hooks printed.
    hooks: Vec<String>,
}

impl PointStats {
    pub(super) fn new() -> Self {
        // One microsecond to ten minutes, two digits: some tens of KiB.
        let micros = || Histogram::new_with_bounds(1, 600_000_000, 2).expect("valid bounds");
        Self {
            made: 0,
            refused: 0,
            retracted: 0,
            newest: None,
            window: micros(),
            freeze: micros(),
            attempts: Histogram::new_with_bounds(1, 1_000_000, 2).expect("valid bounds"),
            last_refusal: None,
            last_retraction: None,
            hooks: Vec::new(),
        }
    }

    /// A cut has ended after so many attempts.
    pub(super) fn note_attempts(&mut self, attempts: u32) {
        self.attempts.saturating_record(attempts.into());
    }

    /// Hooks have run, and this is what they printed.
    pub(super) fn note_hooks(&mut self, notes: &[String]) {
        if !notes.is_empty() {
            self.hooks = notes.to_vec();
        }
    }

    /// A cut was verified.
    pub(super) fn note_cut(&mut self, record: &PointRecord) {
        self.window.saturating_record(micros(record.window));
        if !record.freeze.is_zero() {
            self.freeze.saturating_record(micros(record.freeze));
        }
    }

    /// A point is durable on all its disks.
    pub(super) fn note_made(&mut self, record: &PointRecord) {
        self.made += 1;
        self.newest = Some(record.cut);
        self.last_refusal = None;
    }

    /// A point was not made; whether for another reason than the one before.
    pub(super) fn note_refused(&mut self, reason: &str) -> bool {
        self.refused += 1;
        let news = self.last_refusal.as_ref().is_none_or(|last| last.reason != reason);
        self.last_refusal = Some(Refusal::new(reason));
        news
    }

    pub(super) fn note_retracted(&mut self, points: u64, reason: &str) {
        self.retracted += points;
        self.last_retraction = Some(Refusal::new(reason));
    }

    pub(super) fn status(&self) -> PointsStatus {
        PointsStatus {
            made: self.made,
            refused: self.refused,
            retracted: self.retracted,
            newest: self.newest.and_then(PointMade::time),
            window: latency(&self.window),
            freeze: latency(&self.freeze),
            attempts_p50: self.attempts.value_at_quantile(0.5),
            attempts_max: self.attempts.max(),
            last_refusal: self.last_refusal.clone(),
            last_retraction: self.last_retraction.clone(),
            hooks: self.hooks.clone(),
        }
    }
}

/// As histograms of microseconds record it.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// A histogram of microseconds, in seconds.
pub(super) fn latency(histogram: &Histogram<u64>) -> Option<Latency> {
    #[expect(clippy::cast_precision_loss, reason = "microseconds below 2^53")]
    let seconds = |micros: u64| micros as f64 / 1e6;
    (!histogram.is_empty()).then(|| Latency {
        p50: seconds(histogram.value_at_quantile(0.5)),
        p99: seconds(histogram.value_at_quantile(0.99)),
        max: seconds(histogram.max()),
    })
}
