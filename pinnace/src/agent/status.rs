//! The agent's state in the words of its administrators.

use std::time::{Duration, Instant};

use blocks::{Epoch, GapReason, MonotonicNs};
use ebpf::Counters;

use super::disk::{ProtectedDisk, Session};
use crate::admin::agent::{DiskState, DiskStatus, TrackingStatus};

/// A disk lags when its replica is older than this many intervals of deltas.
const LAGGING_INTERVALS: u32 = 6;

/// A wait of which nobody needs to know how long it is.
const SHORTLY: Duration = Duration::from_secs(5);

/// What is needed beside the disk itself.
pub(super) struct View {
    pub(super) now: MonotonicNs,
    pub(super) interval: Duration,
    pub(super) counters: Counters,
}

/// The status of one disk.
pub(super) fn of_disk(disk: &ProtectedDisk, view: &View) -> DiskStatus {
    let tracked = disk.tracker.status(view.now);
    let state = state(disk, view, tracked.lag);
    DiskStatus {
        name: disk.name.clone(),
        path: disk.path(),
        id: disk.id.to_string(),
        generation: disk.generation.to_string(),
        class: disk.device.class.to_string(),
        size_bytes: disk.geometry.len().0,
        chunk_bytes: disk.geometry.chunk().bytes(),
        state,
        reason: reason(disk, state),
        remaining_seconds: disk
            .pass
            .as_ref()
            .and_then(|pass| pass.remaining(&disk.tracker))
            .map(|remaining| remaining.as_secs_f64()),
        rpo_seconds: tracked.lag.as_secs_f64(),
        dirty_bytes: tracked.active.0,
        in_flight_bytes: tracked.in_flight.0,
        rate_bytes: disk.sent.rate.0,
        epoch: tracked.acked.0,
        last_durable: disk.sent.last_durable,
        sent: disk.sent.totals,
        tracking: TrackingStatus {
            writes: view.counters.events,
            bytes: (view.counters.written + view.counters.discarded + view.counters.other)
                * blocks::SECTOR_SIZE,
            ring_lost: view.counters.ring_lost,
            gaps: disk.sent.gaps,
        },
        ack_latency: disk.sent.latency(),
        last_point: disk.points.newest(),
    }
}

fn state(disk: &ProtectedDisk, view: &View, lag: Duration) -> DiskState {
    if matches!(disk.session, Session::Refused { .. }) {
        return DiskState::Critical;
    }
    if disk.record.paused {
        return DiskState::Paused;
    }
    let percent = || {
        let outstanding = disk.tracker.outstanding().count();
        let done = disk.geometry.chunks() - outstanding;
        u8::try_from(done * 100 / disk.geometry.chunks()).unwrap_or(100).min(99)
    };
    match disk.gap() {
        Some(GapReason::NeverReplicated) => DiskState::InitialReplication { percent: percent() },
        Some(_) if matches!(disk.session, Session::Open { .. }) => {
            DiskState::Resynchronising { percent: percent() }
        }
        Some(_) => DiskState::ResyncRequired,
        None if lag > view.interval * LAGGING_INTERVALS => DiskState::Lagging,
        None => DiskState::Protected,
    }
}

/// Why the state is not green, and what is done or to be done about it.
fn reason(disk: &ProtectedDisk, state: DiskState) -> Option<String> {
    let session = match &disk.session {
        Session::Refused { reason, .. } => {
            let name = &disk.name;
            Some(format!(
                "the target refuses it: {reason} Once that is mended, `pinnace resume {name}` \
                 tries again"
            ))
        }
        Session::Failed { reason, until, .. } => Some(retrying(disk, reason, *until)),
        Session::Closed => Some("waiting for the target".to_owned()),
        Session::Opening | Session::Open { .. } => None,
    };
    let held = disk.held.as_ref().map(|held| retrying(disk, &held.reason, held.until));
    let gap = disk.gap().filter(|reason| *reason != GapReason::NeverReplicated);
    let gap = gap.map(|reason| match super::state::advice(reason) {
        Some(advice) => format!("tracking gap: {reason}; {advice}"),
        None => format!("tracking gap: {reason}; comparing the disk with its replica"),
    });
    let paused = (state == DiskState::Paused)
        .then(|| format!("paused by an operator; `pinnace resume {}` ships again", disk.name));
    let lagging = (state == DiskState::Lagging && session.is_none() && held.is_none())
        .then(|| "writes arrive faster than they can be sent".to_owned());
    let all: Vec<String> = [paused, session, held, gap, lagging].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// What failed, and when it is tried again.
fn retrying(disk: &ProtectedDisk, reason: &str, until: Instant) -> String {
    let left = until.saturating_duration_since(Instant::now());
    if left < SHORTLY {
        return format!("the target failed: {reason}; retrying");
    }
    let (seconds, name) = (left.as_secs(), &disk.name);
    format!(
        "the target failed: {reason}; trying again in {seconds} s, or at once with `pinnace \
         resume {name}`"
    )
}

/// The newest epoch, for messages.
pub(super) fn epoch(epoch: Epoch) -> String {
    if epoch == Epoch::NONE { "none".into() } else { epoch.to_string() }
}
