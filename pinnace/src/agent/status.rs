//! The agent's state in the words of its administrators.

use std::time::Duration;

use blocks::{Epoch, GapReason, MonotonicNs};
use control::ResyncWindow;
use ebpf::Counters;

use super::core::verify::divergence_max;
use super::disk::{ProtectedDisk, Session};
use super::resync::Difference;
use crate::admin::agent::{DiskState, DiskStatus, ResyncStatus, TrackingStatus};

/// A disk lags when its replica is older than this many intervals of deltas.
const LAGGING_INTERVALS: u32 = 6;

/// What is needed beside the disk itself.
pub(super) struct View {
    pub(super) now: MonotonicNs,
    pub(super) interval: Duration,
    pub(super) counters: Counters,
    /// When comparisons may begin, and how long it is until then.
    pub(super) window: ResyncWindow,
    pub(super) window_opens_in: Option<Duration>,
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
        reason: reason(disk, state, view),
        resync: resync(disk, view),
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
    if matches!(disk.session, Session::Refused { .. }) || disk.is_known_to_differ() {
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
        Some(_) if has_begun(disk) && matches!(disk.session, Session::Open { .. }) => {
            DiskState::Resynchronising { percent: percent() }
        }
        Some(_) => DiskState::ResyncRequired,
        None if lag > view.interval * LAGGING_INTERVALS => DiskState::Lagging,
        None => DiskState::Protected,
    }
}

/// Why the state is not green, and what is done or to be done about it.
fn reason(disk: &ProtectedDisk, state: DiskState, view: &View) -> Option<String> {
    let session = match &disk.session {
        Session::Refused { reason } => Some(format!("the target refuses it: {reason}")),
        Session::Failed { reason, .. } => Some(format!("the target failed: {reason}; retrying")),
        Session::Closed => Some("waiting for the target".to_owned()),
        Session::Opening | Session::Open { .. } => None,
    };
    let held =
        disk.held.as_ref().map(|(reason, _)| format!("the target failed: {reason}; retrying"));
    let gap = disk.gap().filter(|reason| *reason != GapReason::NeverReplicated);
    let gap = gap.map(|reason| {
        let since = disk.record.resync.as_ref().map(|kept| kept.since);
        let since = since.map_or_else(String::new, |at| format!(" at {}", local_time(at)));
        let advice = super::state::advice(reason).map_or_else(String::new, |a| format!("; {a}"));
        format!("tracking gap{since}: {reason}{advice}; {}", comparison(disk, view))
    });
    let paused = (state == DiskState::Paused)
        .then(|| format!("paused by an operator; `pinnace resume {}` ships again", disk.name));
    let lagging = (state == DiskState::Lagging && session.is_none() && held.is_none())
        .then(|| "writes arrive faster than they can be sent".to_owned());
    let differs = disk.record.difference.as_ref().filter(|_| disk.is_known_to_differ());
    let differs = differs.map(|difference| {
        let Difference { bytes, found, cause, .. } = difference;
        let at = local_time(*found);
        let name = &disk.name;
        format!(
            "the verification at {at} found {bytes} bytes that differ from the replica (likely \
             cause: {cause}); `pinnace resync {name} --now` sends them"
        )
    });
    let all: Vec<String> =
        [differs, paused, session, held, gap, lagging].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn has_begun(disk: &ProtectedDisk) -> bool {
    disk.record.resync.as_ref().is_some_and(|kept| kept.begun.is_some())
}

/// How it stands with the comparison of a disk, in words.
fn comparison(disk: &ProtectedDisk, view: &View) -> String {
    let asked = disk.record.resync.as_ref().is_some_and(|kept| kept.asked);
    let name = &disk.name;
    let now = format!("`pinnace resync {name} --now` begins at once");
    match view.window_opens_in {
        _ if has_begun(disk) => "comparing the disk with its replica".to_owned(),
        Some(Duration::ZERO) => "the comparison begins".to_owned(),
        _ if asked => "the comparison begins".to_owned(),
        Some(_) => format!("the comparison waits for its window, {}; {now}", view.window),
        None => format!("the comparison waits for somebody to ask: {now}"),
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

fn local_time(at: jiff::Timestamp) -> String {
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string()
}

/// The newest epoch, for messages.
pub(super) fn epoch(epoch: Epoch) -> String {
    if epoch == Epoch::NONE { "none".into() } else { epoch.to_string() }
}
