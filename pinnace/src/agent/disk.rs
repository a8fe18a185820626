//! One protected disk, as the core holds it.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blocks::{
    Bitmap, ByteLen, Claim, Coverage, DiskId, Epoch, GapReason, Generation, Geometry, Ticket,
};
use control::EpochRetry;
use crossbeam_channel::Sender;
use ebpf::TrackedDisk;
use ebpf::device::Device;
use hdrhistogram::Histogram;
use shipper::{DiskHandle, ShipReport};
use tracker::cut::Heat;
use tracker::{CrossCheck, DiskTracker, Harvest};
use wire::message::{OpenDisk, Origin};
use wire::{DataKey, Sealer, Text};

use super::clock::now;
use super::core::resync::UnderWay;
use super::core::verify::Looking;
use super::points::{self, DiskPoints};
use super::state::{DiskRecord, Standing};
use super::trouble::Held;
use crate::admin::agent::{Latency, Response, SentBytes, VerifyStatus};

mod check;

pub(super) use check::{
    begin_at_zero, follow_upgrade, kept_offset, resumed_check, resumed_confirmation, resumed_debt,
};

/// Answers a `protect` once the target has taken the disk, or refused it.
pub(super) type Waiting = Sender<anyhow::Result<Response>>;

/// A protected disk and everything the agent knows of it.
pub(super) struct ProtectedDisk {
    pub(super) id: DiskId,
    pub(super) generation: Generation,
    pub(super) geometry: Geometry,
    /// The kernel's name, as `loop0`.
    pub(super) name: String,
    pub(super) record: DiskRecord,
    pub(super) key: DataKey,
    pub(super) device: Device,
    pub(super) tracked: TrackedDisk,
    pub(super) handle: DiskHandle,
    pub(super) tracker: DiskTracker,
    pub(super) check: CrossCheck,
    /// Whether what the counters say proves anything: the offset of the cross-check was settled
    /// before the last pass began. What was missed before that is in no counter.
    pub(super) proves: bool,
    /// The statistics were not kept for a while, so nobody knows what was missed, and what separates
    /// them from the counters is to be learnt anew: once it is, the disk is compared.
    pub(super) owes_comparison: bool,
    pub(super) session: Session,
    pub(super) next_cycle: Instant,
    pub(super) next_log: Instant,
    pub(super) waiting: Option<(Waiting, Instant)>,
    pub(super) held: Option<Held>,
    /// How often the target has failed it.
    pub(super) retry: EpochRetry,
    /// What the target handed out last.
    pub(super) ticket: Ticket,
    /// Whether this agent has had it open: from then on it knows every epoch that was sealed.
    pub(super) has_been_open: bool,
    /// A line of the replica's that a person wants to be written over.
    pub(super) discard: Option<Generation>,
    /// A comparison that is under way.
    pub(super) comparing: Option<UnderWay>,
    /// How the last verification went, or how it goes.
    pub(super) verifying: Option<VerifyStatus>,
    /// When blocks are sampled next, whether they are being, and how many were since a comparison
    /// or a difference, none of which differed.
    pub(super) next_sample: Instant,
    pub(super) is_sampling: bool,
    pub(super) sampled_blocks: u64,
    /// What a verification is looking at.
    pub(super) looking: Option<Looking>,
    /// The pass that is under way.
    pub(super) pass: Option<Pass>,
    /// Ring records known to be lost.
    pub(super) ring_lost: u64,
    pub(super) sent: Sent,
    /// What cuts have learnt of its chunks.
    pub(super) heat: Heat,
    pub(super) points: DiskPoints,
}

/// An initial replication or a comparison under way: what it began with, for an estimate.
pub(super) struct Pass {
    began: Instant,
    outstanding: ByteLen,
}

impl Pass {
    pub(super) fn begin(tracker: &DiskTracker) -> Self {
        Self { began: Instant::now(), outstanding: outstanding(tracker) }
    }

    /// How long the rest will take at the pace so far; nothing before there is a pace.
    pub(super) fn remaining(&self, tracker: &DiskTracker) -> Option<Duration> {
        let left = outstanding(tracker).0;
        let done = self.outstanding.0.checked_sub(left).filter(|done| *done > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let ratio = left as f64 / done as f64;
        Some(self.began.elapsed().mul_f64(ratio.min(1e6)))
    }
}

fn outstanding(tracker: &DiskTracker) -> ByteLen {
    ByteLen(tracker.outstanding().count() * tracker.geometry().chunk().bytes())
}

/// Where the disk stands with the target.
pub(super) enum Session {
    /// The connection is down, or the disk was not opened on it yet.
    Closed,
    /// Asked for, not answered.
    Opening,
    /// The target takes epochs.
    Open { sealer: Arc<Sealer> },
    /// The target could not serve the disk, for a reason that may pass.
    Failed { reason: String, until: Instant, next: Retry },
    /// The target will not have it: a person must act, and then it is tried again.
    ///
    /// `replica` is the line that the replica is in, if it is not the source's.
    Refused { reason: String, next: Retry, replica: Option<Generation> },
}

/// What to do once a failure may have passed.
#[derive(Clone, Copy)]
pub(super) enum Retry {
    /// Ask for the disk in the same session.
    AskAgain,
    /// Begin a new session.
    Reconnect,
}

/// What was sent and acknowledged since the agent started.
pub(super) struct Sent {
    pub(super) totals: SentBytes,
    pub(super) rate: ByteLen,
    pub(super) last_durable: Option<jiff::Timestamp>,
    pub(super) gaps: u64,
    /// Those in which writes may have been missed, by the reason's name.
    pub(super) lost: BTreeMap<&'static str, u64>,
    /// The newest epoch of this process whose end was let go.
    pub(super) ended: Epoch,
    sealed: VecDeque<(Epoch, Instant)>,
    /// From seal until all was sent, in microseconds.
    pub(super) cycle: Histogram<u64>,
    /// From seal to durable acknowledgement, in microseconds.
    pub(super) latency: Histogram<u64>,
}

impl Sent {
    pub(super) fn new() -> Self {
        // One microsecond to one hour, three digits: 100 KiB at most.
        let histogram = || {
            let histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3);
            histogram.expect("bounds of 1 and more, three digits")
        };
        Self {
            totals: SentBytes::default(),
            rate: ByteLen(0),
            last_durable: None,
            gaps: 0,
            lost: BTreeMap::new(),
            ended: Epoch::NONE,
            sealed: VecDeque::new(),
            cycle: histogram(),
            latency: histogram(),
        }
    }

    pub(super) fn note_gap(&mut self, reason: GapReason) {
        self.gaps += 1;
        if reason.is_loss() {
            *self.lost.entry(reason.code()).or_default() += 1;
        }
    }

    pub(super) fn note_sealed(&mut self, epoch: Epoch, now: Instant) {
        self.sealed.push_back((epoch, now));
    }

    pub(super) fn note_shipped(&mut self, report: &ShipReport) {
        self.totals.raw += report.covered_bytes;
        self.totals.zero += report.zero_bytes;
        self.totals.equal += report.unchanged_bytes;
        self.totals.wire += report.wire_bytes;
        self.cycle.saturating_record(points::micros(report.elapsed));
        let seconds = report.elapsed.as_secs_f64().max(1e-3);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = (report.covered_bytes as f64 / seconds) as u64;
        self.rate = ByteLen(rate);
    }

    pub(super) fn note_durable(&mut self, epoch: Epoch, now: Instant) {
        while let Some((sealed, at)) = self.sealed.pop_front_if(|(sealed, _)| *sealed <= epoch) {
            if sealed == epoch {
                self.latency.saturating_record(points::micros(now - at));
            }
            self.totals.epochs += 1;
        }
        self.last_durable = Some(jiff::Timestamp::now());
    }

    pub(super) fn note_aborted(&mut self) {
        self.sealed.clear();
    }

    pub(super) fn latency(&self) -> Option<Latency> {
        points::latency(&self.latency)
    }
}

impl ProtectedDisk {
    /// What asks the target to replicate it.
    pub(super) fn open_request(&self) -> OpenDisk {
        OpenDisk {
            disk: self.id,
            generation: self.generation,
            geometry: self.geometry,
            name: Text::lossy(&self.name),
            key: self.key.clone(),
            origin: self.origin(),
        }
    }

    /// What it has been through. What the kernel has marked must be in the tracker.
    fn origin(&self) -> Origin {
        let sealed = self.has_been_open.then(|| self.tracker.sealed());
        Origin {
            // A source stays in the line it began; failing back will begin another.
            past: Vec::new(),
            acked: self.tracker.acked(),
            has_changed: self.gap().is_some() || !self.tracker.outstanding().is_empty(),
            claim: Claim { ticket: self.ticket, sealed },
            discard: self.discard,
        }
    }

    /// Sweeps the kernel's bitmap: what was set is pending from now on.
    pub(super) fn harvest(&self) -> Harvest {
        let mut chunks = Bitmap::new(self.geometry.chunks());
        let started = now();
        self.tracked.harvest(&mut |index, bits| chunks.insert_word(index, bits));
        Harvest { started, chunks }
    }

    /// Makes everything outstanding survive this agent. Chunks that were released are outstanding
    /// again when a gap makes them suspect.
    pub(super) fn keep_outstanding(&self) {
        let outstanding = self.tracker.outstanding();
        outstanding.words().for_each(|(index, bits)| self.tracked.add_pending(index, bits));
    }

    /// Drops the pending bits of what is durable, then notes the epoch beside them.
    pub(super) fn release(&mut self, released: &Bitmap) {
        self.looking.iter_mut().for_each(|looking| looking.note(released));
        released.words().for_each(|(index, bits)| self.tracked.drop_pending(index, bits));
        self.tracked.acknowledge(self.tracker.acked());
    }

    /// The gap that is open, if one is.
    pub(super) fn gap(&self) -> Option<GapReason> {
        match self.tracker.coverage() {
            Coverage::Complete => None,
            Coverage::Gap(reason) => Some(reason),
        }
    }

    /// Whether nothing of it is sent for a while.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.held.as_ref().is_some_and(|held| now < held.until)
    }

    /// A person wants it tried at once, whatever came of it before.
    pub(super) fn try_at_once(&mut self) {
        self.retry.handle_person();
        self.held = None;
        self.next_cycle = Instant::now();
        match &mut self.session {
            Session::Refused { next, reason, .. } => {
                let (reason, next) = (std::mem::take(reason), *next);
                self.session = Session::Failed { reason, until: Instant::now(), next };
            }
            Session::Failed { until, .. } => *until = Instant::now(),
            Session::Closed | Session::Opening | Session::Open { .. } => {}
        }
    }

    /// Where its protection stands.
    pub(super) fn standing(&self) -> &Standing {
        self.record.standing.as_ref().expect("set when the disk is taken up")
    }

    /// Whether a verification has found a difference that nothing is done about.
    pub(super) fn is_known_to_differ(&self) -> bool {
        self.record.difference.is_some() && self.gap().is_none()
    }

    /// How much is dirty, suspect or on its way.
    pub(super) fn outstanding_bytes(&self) -> ByteLen {
        ByteLen(outstanding(&self.tracker).0.min(self.geometry.len().0))
    }

    pub(super) fn path(&self) -> PathBuf {
        self.record.path.clone()
    }

    /// Whether `wanted` is this disk's name, path or identity.
    pub(super) fn is(&self, wanted: &str) -> bool {
        self.name == wanted
            || self.record.path.as_os_str() == wanted
            || self.id.to_string() == wanted
    }
}
