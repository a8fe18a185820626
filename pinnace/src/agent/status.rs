//! The agent's state in the words of its administrators.

use std::time::Duration;

use blocks::{Epoch, MonotonicNs};
use control::{ProtectionState, ResyncWindow};
use ebpf::Counters;

use super::core::verify::divergence_max;
use super::disk::ProtectedDisk;
use crate::admin::agent::{DiskState, DiskStatus, ResyncStatus, TrackingStatus};

/// What is needed beside the disk itself.
pub(super) struct View {
    pub(super) now: MonotonicNs,
    pub(super) objective: Duration,
    pub(super) counters: Counters,
    /// Why the disk is not green.
    pub(super) reason: Option<String>,
    /// When comparisons may begin, and how long it is until then.
    pub(super) window: ResyncWindow,
    pub(super) window_opens_in: Option<Duration>,
}

/// The status of one disk.
pub(super) fn of_disk(disk: &ProtectedDisk, view: View) -> DiskStatus {
    let tracked = disk.tracker.status(view.now);
    DiskStatus {
        name: disk.name.clone(),
        path: disk.path(),
        id: disk.id.to_string(),
        generation: disk.generation.to_string(),
        class: disk.device.class.to_string(),
        size_bytes: disk.geometry.len().0,
        chunk_bytes: disk.geometry.chunk().bytes(),
        state: state(disk),
        since: disk.standing().since,
        resync: resync(disk, &view),
        reason: view.reason,
        verify: disk.verifying.clone(),
        sampled_blocks: disk.sampled_blocks,
        divergence_max: divergence_max(disk.sampled_blocks),
        difference: disk.record.difference.clone(),
        remaining_seconds: disk
            .pass
            .as_ref()
            .and_then(|pass| pass.remaining(&disk.tracker))
            .map(|remaining| remaining.as_secs_f64()),
        rpo_seconds: tracked.lag.as_secs_f64(),
        objective_seconds: view.objective.as_secs_f64(),
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

fn state(disk: &ProtectedDisk) -> DiskState {
    let percent = || {
        let outstanding = disk.tracker.outstanding().count();
        let done = disk.geometry.chunks() - outstanding;
        u8::try_from(done * 100 / disk.geometry.chunks()).unwrap_or(100).min(99)
    };
    match disk.standing().state {
        ProtectionState::InitialReplication => DiskState::InitialReplication { percent: percent() },
        ProtectionState::Protected => DiskState::Protected,
        ProtectionState::Lagging => DiskState::Lagging,
        ProtectionState::ResyncRequired => DiskState::ResyncRequired,
        ProtectionState::Resynchronising => DiskState::Resynchronising { percent: percent() },
        ProtectionState::Paused => DiskState::Paused,
        ProtectionState::Critical => DiskState::Critical,
    }
}

fn resync(disk: &ProtectedDisk, view: &View) -> Option<ResyncStatus> {
    let kept = disk.record.resync.as_ref()?;
    let waits = kept.begun.is_none() && !kept.asked;
    let begins = view.window_opens_in.filter(|_| waits);
    Some(ResyncStatus {
        reason: kept.reason.clone(),
        detail: disk.gap().map_or_else(String::new, |reason| reason.to_string()),
        since: kept.since,
        begun: kept.begun,
        window: view.window.to_string(),
        begins: begins.and_then(|wait| jiff::Timestamp::now().checked_add(wait).ok()),
    })
}

/// The newest epoch, for messages.
pub(super) fn epoch(epoch: Epoch) -> String {
    if epoch == Epoch::NONE { "none".into() } else { epoch.to_string() }
}
