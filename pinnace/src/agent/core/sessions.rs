//! What the connection to the target reports, and where it leaves each disk.

use std::sync::Arc;
use std::time::Instant;

use blocks::{DiskId, Epoch};
use shipper::ShipReport;
use tracker::Replica;
use wire::{Class, CloseCode, Sealer};

use super::Core;
use crate::admin::agent::{LinkStatus, Response};
use crate::agent::clock::now;
use crate::agent::disk::{Retry, Session};
use crate::agent::link::{LinkCommand, LinkEvent};
use crate::agent::{protect, status};
use crate::exit::{Exit, Failure};

impl Core {
    pub(super) fn apply_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { features } => {
                self.features = features;
                self.link_status = LinkStatus::Connected { since: jiff::Timestamp::now() };
                let ids: Vec<DiskId> = self.disks.keys().copied().collect();
                ids.into_iter().for_each(|id| self.open_session(id));
            }
            LinkEvent::Down { reason } => {
                tracing::warn!(reason, "the target is out of reach");
                self.link_status = LinkStatus::Connecting { last_error: Some(reason) };
                self.close_sessions();
            }
            LinkEvent::Denied { reason } => {
                tracing::error!(reason, "the target refuses this machine");
                self.link_status = LinkStatus::Refused { reason };
                self.close_sessions();
            }
            LinkEvent::Opened { disk, durable, confirmed, replica } => {
                self.opened(disk, durable, replica);
                self.note_opened_points(disk, durable, confirmed);
            }
            LinkEvent::Refused { disk, code, detail } => self.refused(disk, code, &detail),
            LinkEvent::Shipped { disk, report } => self.shipped(disk, &report),
            LinkEvent::Durable { disk, epoch } => self.durable(disk, epoch),
            LinkEvent::Failed { disk, epoch, code, detail } => {
                self.failed(disk, epoch, code, &detail);
            }
        }
    }

    /// Asks the target to take a disk's epochs.
    pub(in crate::agent) fn open_session(&mut self, id: DiskId) {
        let connected = matches!(self.link_status, LinkStatus::Connected { .. });
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let refused = matches!(disk.session, Session::Refused { .. });
        if connected && !refused {
            disk.session = Session::Opening;
            self.link.send(LinkCommand::Open(Box::new(disk.open_request())));
        }
    }

    pub(super) fn close_sessions(&mut self) {
        for disk in self.disks.values_mut() {
            if !matches!(disk.session, Session::Refused { .. }) {
                disk.session = Session::Closed;
            }
        }
        let ids: Vec<DiskId> = self.disks.keys().copied().collect();
        ids.into_iter().for_each(|id| self.note_lost_points(id));
    }

    pub(super) fn opened(&mut self, id: DiskId, durable: Epoch, replica: Replica) {
        let now = now();
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let before = disk.gap();
        let released = disk.tracker.handle_resume(durable, replica, now);
        // Before the epoch is noted, by which the next agent would see that the replica fell back.
        disk.keep_outstanding();
        disk.release(&released);
        disk.sent.note_aborted();
        // A key of its own for each session: no nonce is used twice, whatever was lost.
        match Sealer::new(&disk.key, disk.id, disk.generation) {
            Ok(sealer) => disk.session = Session::Open { sealer: Arc::new(sealer) },
            Err(error) => tracing::error!(DISK = disk.name, %error, "no session key"),
        }
        disk.next_cycle = Instant::now();
        let epoch = status::epoch(durable);
        tracing::info!(DISK = disk.name, durable = epoch, ?replica, "the target takes epochs");
        if let Some((waiting, _)) = disk.waiting.take() {
            let words = format!("{} is protected; initial replication has begun", disk.name);
            drop(waiting.send(Ok(Response::Done(words))));
        }
        self.note_gap(id, before);
    }

    pub(super) fn refused(&mut self, id: DiskId, code: CloseCode, detail: &str) {
        let reason = format!("{code} {detail}").trim_end().to_owned();
        let Some(disk) = self.disks.get_mut(&id) else { return };
        tracing::error!(DISK = disk.name, reason, "the target refuses the disk");
        if let Some((waiting, _)) = disk.waiting.take() {
            // It was never taken, so it is not protected.
            let words = format!("{}: {reason}", disk.name);
            if let Err(error) = protect::withdraw(self, id) {
                tracing::error!(DISK = %id, "{error:#}");
            }
            drop(waiting.send(Err(Failure::new(Exit::Refused, words).into())));
            return;
        }
        // A disk that was open can be opened again in a new session only.
        let next = match disk.session {
            Session::Open { .. } => Retry::Reconnect,
            _ => Retry::AskAgain,
        };
        disk.session = match code.class() {
            Class::Permanent => Session::Refused { reason },
            Class::Recoverable => {
                let until = Instant::now() + disk.retry_delay();
                disk.sent.failures += 1;
                Session::Failed { reason, until, next }
            }
        };
    }

    pub(super) fn shipped(&mut self, id: DiskId, report: &ShipReport) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        disk.sent.note_shipped(report);
        tracing::debug!(
            DISK = disk.name, EPOCH = report.epoch.0, kind = ?report.kind,
            read = report.read_bytes, wire = report.wire_bytes, "shipped"
        );
    }

    pub(super) fn durable(&mut self, id: DiskId, epoch: Epoch) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let before = disk.gap();
        let released = disk.tracker.handle_ack(epoch);
        disk.release(&released);
        disk.sent.note_durable(epoch, Instant::now());
        // What the last failure said is over.
        disk.held = None;
        if disk.gap().is_none() && before.is_none() {
            disk.next_cycle = Instant::now() + self.config.interval;
        }
        disk.points.note_durable(epoch);
        self.note_durable_point(id, epoch);
        self.note_gap(id, before);
    }

    /// An epoch was lost: what it held is dirty again, with all that was built on it.
    pub(super) fn failed(&mut self, id: DiskId, epoch: Epoch, code: CloseCode, detail: &str) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let reason = format!("{code} {detail}").trim_end().to_owned();
        tracing::warn!(DISK = disk.name, EPOCH = epoch.0, reason, "an epoch failed");
        let before = disk.gap();
        disk.tracker.handle_abort();
        disk.sent.note_aborted();
        disk.points.note_aborted();
        if code.class() == Class::Permanent {
            disk.session = Session::Refused { reason };
        } else {
            let until = Instant::now() + disk.retry_delay();
            disk.sent.failures += 1;
            disk.held = Some((reason, until));
        }
        self.note_lost_points(id);
        self.note_gap(id, before);
    }
}
