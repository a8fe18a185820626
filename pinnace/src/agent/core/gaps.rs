//! What the kernel recorded, and what it could not: marks, gaps, logs.

use std::collections::BTreeMap;

use anyhow::Result;
use blocks::{DiskId, GapReason, Mark, RetractReason, Slot};
use tracker::hrl::{Log, LogHeader, LogState};

use super::Core;
use crate::agent::clock::now;
use crate::agent::disk::Pass;
use crate::causes::with_causes;

impl Core {
    /// Makes a gap that has opened survive the agent, and one that has closed forgotten.
    pub(in crate::agent) fn note_gap(&mut self, id: DiskId, before: Option<GapReason>) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let after = disk.gap();
        if after == before {
            return;
        }
        let name = disk.name.clone();
        disk.pass = after.map(|_| Pass::begin(&disk.tracker));
        disk.proves |= after.is_some() && disk.check.settled_offset().is_some();
        match after {
            Some(reason) => {
                if before.is_none() {
                    disk.sent.note_gap(reason);
                }
                tracing::warn!(DISK = name, REASON = %reason, "tracking has a gap: the disk is compared");
                disk.keep_outstanding();
            }
            None => tracing::info!(DISK = name, "the replica follows"),
        }
        if let Err(error) = self.write_log(id, LogState::Open) {
            tracing::error!(DISK = name, "{error:#}");
        }
    }

    /// A gap was found: every chunk is suspect.
    pub(super) fn open_gap(&mut self, id: DiskId, reason: GapReason) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let before = disk.gap();
        // Before the tracker knows, so that no crash in between forgets the gap.
        disk.tracked.fill_pending();
        disk.tracker.handle_gap(reason, now());
        if before.is_some() {
            self.note_gap_in_pass(id, reason);
        }
        self.note_gap(id, before);
    }

    /// A pass goes on although there is another gap: a comparison follows it, whatever becomes of
    /// this agent.
    fn note_gap_in_pass(&mut self, id: DiskId, reason: GapReason) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        disk.sent.note_gap(reason);
        disk.pass = Some(Pass::begin(&disk.tracker));
        disk.proves |= disk.check.settled_offset().is_some();
        tracing::warn!(DISK = disk.name, REASON = %reason, "another gap: a comparison follows");
        if let Err(error) = self.write_log(id, LogState::Open) {
            tracing::error!(DISK = %id, "{error:#}");
        }
    }

    pub(super) fn drain_rings(&mut self) {
        let Some(tracking) = self.tracking.as_mut() else { return };
        let mut marks: BTreeMap<Slot, Vec<Mark>> = BTreeMap::new();
        tracking.poll_ring(&mut |mark| marks.entry(mark.slot).or_default().push(mark));
        for disk in self.disks.values_mut() {
            if let Some(marks) = marks.get(&disk.tracked.slot()) {
                disk.tracker.handle_events(marks);
            }
        }
    }

    /// Looks for what tracking could not follow, and for writes it did not see.
    pub(super) fn check_tracking(&mut self) {
        let mut gaps = Vec::new();
        let restored = self.tracking.as_mut().map(ebpf::Tracking::restore_programs);
        let lost = match restored {
            None | Some(Ok(false)) => false,
            Some(Ok(true)) => {
                tracing::error!(
                    "somebody has detached the tracking programs; they are attached again"
                );
                true
            }
            Some(Err(error)) => {
                tracing::error!("the tracking programs are not attached: {}", with_causes(&error));
                true
            }
        };
        if lost {
            // One that is compared already is compared by programs that see nothing: no news.
            let follows = self.disks.values().filter(|disk| disk.gap().is_none());
            gaps.extend(follows.map(|disk| (disk.id, GapReason::TrackerLost)));
        }
        self.tracking.iter().for_each(ebpf::Tracking::follow_paths);
        for disk in self.disks.values_mut() {
            match disk.look() {
                Ok(Some(reason)) => gaps.push((disk.id, reason)),
                Ok(None) => {}
                Err(error) => tracing::warn!(DISK = disk.name, "the cross-check: {error:#}"),
            }
        }
        for (id, reason) in gaps {
            // Before the comparison begins, whose epochs are no points.
            let retracted = match reason {
                GapReason::CrossCheck { .. } => RetractReason::CrossCheck,
                _ => RetractReason::Gap,
            };
            self.retract_points(id, retracted, &reason.to_string());
            self.open_gap(id, reason);
            // After the gap is on record: a crash in between finds taints and losses again.
            let Some(disk) = self.disks.get(&id) else { continue };
            if let GapReason::Tainted(taints) = reason {
                disk.tracked.clear_taints(taints);
            }
            disk.keep_baseline();
        }
    }

    pub(in crate::agent) fn write_log(&self, id: DiskId, state: LogState) -> Result<()> {
        let Some(disk) = self.disks.get(&id) else { return Ok(()) };
        let header = LogHeader {
            disk: disk.id,
            generation: disk.generation,
            geometry: disk.geometry,
            boot_id: self.boot_id,
            disk_sequence: disk.record.disk_sequence,
            acked: disk.tracker.acked(),
            coverage: disk.tracker.coverage_to_log(),
            state,
        };
        self.state.write_log(&Log { header, dirty: disk.tracker.outstanding() })
    }
}
