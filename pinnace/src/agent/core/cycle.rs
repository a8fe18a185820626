//! One disk's cycle: when an epoch is due, it is sealed and sent on its way.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use blocks::{DiskId, Epoch, EpochKind, PointRecord, SealedEpoch};
use crossbeam_channel::bounded;
use shipper::{Content, Job};
use tracker::SealPolicy;
use tracker::hrl::LogState;
use wire::EpochLink;

use super::Core;
use crate::admin::agent::Response;
use crate::agent::content;
use crate::agent::disk::{Retry, Session};
use crate::agent::link::LinkCommand;

/// Epochs of a pass that may be under way at once: one is made durable while the next is sent.
const PASS_IN_FLIGHT: usize = 3;
/// Frames between the pipeline and the connection: each is at most a little over 1 MiB.
const FRAMES_QUEUED: usize = 8;

/// A sealed epoch to send.
pub(super) struct Shipment {
    pub(super) sealed: SealedEpoch,
    /// The epoch it is built on.
    pub(super) follows: Epoch,
    pub(super) content: Content,
}

impl Core {
    /// Seals and ships what is due of one disk, and writes its log when that is due.
    pub(super) fn cycle(&mut self, id: DiskId, now: Instant) -> Result<()> {
        let Some(disk) = self.disks.get_mut(&id) else { return Ok(()) };
        if disk.waiting.as_ref().is_some_and(|(_, deadline)| now >= *deadline)
            && let Some((waiting, _)) = disk.waiting.take()
        {
            let words = format!("{} is tracked; it is sent once the target answers", disk.name);
            drop(waiting.send(Ok(Response::Done(words))));
        }
        if let Session::Failed { until, next, .. } = disk.session
            && now >= until
        {
            match next {
                Retry::AskAgain => self.open_session(id),
                Retry::Reconnect => {
                    disk.session = Session::Closed;
                    self.link.send(LinkCommand::Reconnect);
                }
            }
            return Ok(());
        }
        if now >= disk.next_log {
            disk.next_log = now + self.config.log_interval;
            self.note_content(id)?;
            self.write_log(id, LogState::Open)?;
        }
        self.keep_resync(id)?;
        self.sample(id, now)?;
        if self.is_due(id, now) {
            self.seal_and_ship(id)?;
        } else if !self.points.cuts(id)
            && let Some(disk) = self.disks.get_mut(&id)
            && disk.tracker.sweep_due()
        {
            let harvest = disk.harvest();
            disk.tracker.handle_harvest(&harvest);
        }
        Ok(())
    }

    /// Notes by what a disk whose hardware says nothing can be found again: somebody may have made a
    /// file system on it.
    fn note_content(&mut self, id: DiskId) -> Result<()> {
        let Some(disk) = self.disks.get_mut(&id) else { return Ok(()) };
        if disk.record.serial.is_some() || disk.record.wwn.is_some() {
            return Ok(());
        }
        let content = content::identifier(&disk.device.path);
        if content != disk.record.content {
            disk.record.content = content;
            self.state.write_disk(&disk.record)?;
        }
        Ok(())
    }

    pub(super) fn is_due(&self, id: DiskId, now: Instant) -> bool {
        let Some(disk) = self.disks.get(&id) else { return false };
        let open = matches!(disk.session, Session::Open { .. });
        let in_flight = disk.tracker.in_flight();
        // Segments of a pass share no chunk. So hashes by which one of a comparison leaves chunks
        // out are true of them, whether or not the segments before it are applied yet.
        let due = if disk.tracker.in_pass() {
            in_flight == 0 || (in_flight < PASS_IN_FLIGHT && disk.tracker.may_overlap())
        } else {
            in_flight == 0 && now >= disk.next_cycle && !self.points.holds_deltas()
        };
        let may = open && !self.points.cuts(id) && !disk.is_held(now) && !disk.record.paused;
        may && due && self.may_pass(disk)
    }

    pub(super) fn seal_and_ship(&mut self, id: DiskId) -> Result<()> {
        if self.turn_to_comparison(id) {
            // It begins in its time.
            return Ok(());
        }
        let policy = self.seal_policy();
        let Some(disk) = self.disks.get_mut(&id) else { return Ok(()) };
        let before = disk.gap();
        let follows = disk.tracker.newest();
        let harvest = disk.harvest();
        let Some(sealed) = disk.tracker.seal_epoch(&harvest, policy) else {
            disk.next_cycle = Instant::now() + self.config.interval;
            return Ok(());
        };
        if sealed.kind() == EpochKind::Compare {
            self.note_comparing(id)?;
        }
        self.ship(id, Shipment { sealed, follows, content: Content::Disk }, None)?;
        self.note_gap(id, before);
        Ok(())
    }

    pub(super) fn seal_policy(&self) -> SealPolicy {
        SealPolicy {
            segment: self.config.segment,
            dirty_threshold_permille: self.config.dirty_threshold_percent * 10,
        }
    }

    /// Sends a sealed epoch on its way.
    pub(super) fn ship(
        &mut self,
        id: DiskId,
        shipment: Shipment,
        point: Option<PointRecord>,
    ) -> Result<()> {
        let Shipment { sealed, follows, content } = shipment;
        let Some(disk) = self.disks.get_mut(&id) else { return Ok(()) };
        let Session::Open { sealer } = &disk.session else { return Ok(()) };
        let sealer = Arc::clone(sealer);
        disk.sent.note_sealed(sealed.epoch(), Instant::now());
        let (sink, frames) = bounded(FRAMES_QUEUED);
        let (epoch, kind) = (sealed.epoch(), sealed.kind());
        let replica_hashes =
            (kind == EpochKind::Compare).then(|| self.link.replica_hashes(id, self.features));
        let link = EpochLink { kind, epoch, follows };
        let disk = disk.handle;
        self.link.send(LinkCommand::Ship { disk: id, epoch: link, frames });
        let job = Job { disk, sealed, content, point, follows, sealer, replica_hashes, sink };
        self.engine.ship(job).context("starting a shipment")?;
        Ok(())
    }
}
