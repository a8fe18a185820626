//! Points are provisional until the counters prove that nothing was missed; then the target is told
//! that they may be relied on. If something was missed, it is told that they may not.

use blocks::{DiskId, Epoch, RetractReason};
use tracker::Proof;
use wire::message::RetractPoints;

use super::Core;
use crate::agent::clock::now;
use crate::agent::disk::{ProtectedDisk, Session};
use crate::agent::link::LinkCommand;

/// Looks at the counters of one disk in a row: a moment of rest is easily missed.
const LOOKS: usize = 6;
/// Disks that are looked at in one round of the core, in turn: some hundreds of microseconds.
const DISKS_A_ROUND: usize = 2;

impl Core {
    /// Looks for proof of the points that are durable and provisional.
    pub(super) fn confirm_points(&mut self) {
        let needs = |disk: &&ProtectedDisk| {
            // The value at rest must be known before there is a point to confirm.
            disk.points.confirmation.rest().is_none() || disk.points.awaits_proof()
        };
        let last = self.points.looked_at;
        let (before, after): (Vec<DiskId>, Vec<DiskId>) =
            self.disks.values().filter(needs).map(|disk| disk.id).partition(|id| Some(*id) <= last);
        for id in after.into_iter().chain(before).take(DISKS_A_ROUND) {
            self.points.looked_at = Some(id);
            if let Err(error) = self.confirm(id) {
                tracing::debug!(DISK = %id, "counters: {error:#}");
            }
        }
    }

    fn confirm(&mut self, id: DiskId) -> anyhow::Result<()> {
        let Some(disk) = self.disks.get_mut(&id) else { return Ok(()) };
        for _ in 0..LOOKS {
            let begun = now();
            let sample = disk.sample()?;
            if let Some(reading) = sample.at_rest() {
                disk.check.handle_rest(reading);
            }
            let offset = disk.check.settled_offset();
            match disk.points.confirmation.handle_sample(sample, offset) {
                Proof::None => {}
                Proof::Complete => {
                    if disk.proves
                        && let Some(through) = disk.points.note_proof(begun)
                        && matches!(disk.session, Session::Open { .. })
                    {
                        self.link.send(LinkCommand::ConfirmPoints { disk: id, through });
                    }
                    return Ok(());
                }
                Proof::IssuesMissed { sectors } => {
                    let words = format!("{sectors} sectors were written without being noted");
                    self.retract_points(id, RetractReason::MissedIssue, &words);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Points since the last one that was confirmed may lack writes, or hold some too many.
    pub(super) fn retract_points(&mut self, id: DiskId, reason: RetractReason, words: &str) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let through = disk.tracker.newest();
        let Some((after, points)) = disk.points.retract() else { return };
        tracing::error!(DISK = disk.name, REASON = words, "recovery points are retracted");
        let why = format!("{}: {words}", disk.name);
        self.points.stats.note_retracted(points, words);
        if after < through {
            let retract = RetractPoints { disk: id, after, through, reason };
            self.link.send(LinkCommand::RetractPoints(retract));
        }
        self.note_lost_points(id, &why);
    }

    /// A session has opened, and the target says which points of the disk it holds as confirmed.
    pub(super) fn note_opened_points(&mut self, id: DiskId, durable: Epoch, confirmed: Epoch) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        disk.points.note_opened(durable, confirmed, now());
        // Since the last that was confirmed, tracking has lost its way: they can't be any more.
        if let Some(reason) = disk.gap()
            && confirmed < durable
        {
            self.retract_points(id, RetractReason::Gap, &reason.to_string());
        }
    }
}
