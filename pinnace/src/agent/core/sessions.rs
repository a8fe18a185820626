//! What the connection to the target reports, and where it leaves each disk.

use std::sync::Arc;
use std::time::Instant;

use blocks::{DiskId, Epoch, Generation, Ticket};
use control::{FailureClass, LONGEST, Next};
use shipper::ShipReport;
use tracker::Replica;
use wire::{CloseCode, Sealer};

use super::Core;
use crate::admin::agent::{LinkStatus, Response};
use crate::agent::clock::now;
use crate::agent::disk::{Retry, Session};
use crate::agent::link::{LinkCommand, LinkEvent, Opened};
use crate::agent::trouble::{Held, class_of, spread};
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
            LinkEvent::Down { reason, again } => {
                tracing::warn!(reason, ?again, "the target is out of reach");
                let next_attempt = jiff::Timestamp::now().checked_add(again).ok();
                let last_error = Some(reason);
                self.link_status = LinkStatus::Connecting { last_error, next_attempt };
                self.close_sessions();
            }
            LinkEvent::Denied { reason } => {
                tracing::error!(reason, "the target refuses this machine");
                self.link_status = LinkStatus::Refused { reason };
                self.close_sessions();
            }
            LinkEvent::Opened(Opened { disk, durable, confirmed, replica, ticket }) => {
                if self.keep_ticket(disk, ticket) {
                    self.opened(disk, durable, replica);
                    self.note_opened_points(disk, durable, confirmed);
                }
            }
            LinkEvent::Refused { disk, code, detail, replica } => {
                self.refused(disk, (code, &detail), replica);
            }
            LinkEvent::Ending { disk, epoch } => self.ending(disk, epoch),
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
        let cut_under_way = self.points.cuts(id);
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let refused = matches!(disk.session, Session::Refused { .. });
        if connected && !refused {
            // The target is told whether anything was written since the last epoch.
            if !cut_under_way {
                let harvest = disk.harvest();
                disk.tracker.handle_harvest(&harvest);
            }
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
        ids.into_iter().for_each(|id| self.note_lost_points(id, "the connection was lost"));
    }

    /// Keeps the ticket of an opening. Before that is done nothing may be sent, or the next opening
    /// would take this source for another.
    fn keep_ticket(&mut self, id: DiskId, ticket: Ticket) -> bool {
        let Some(disk) = self.disks.get_mut(&id) else { return false };
        disk.record.set_ticket(ticket);
        if let Err(error) = self.state.write_disk(&disk.record) {
            let reason = format!("the ticket of this session can't be kept: {error:#}");
            tracing::error!(DISK = disk.name, "{reason}");
            let wait = match disk.retry.handle_refused(FailureClass::Recoverable, spread()) {
                Next::After(wait) => wait,
                Next::AskAPerson => LONGEST,
            };
            let (until, next) = (Instant::now() + wait, Retry::Reconnect);
            disk.session = Session::Failed { reason, until, next };
            return false;
        }
        disk.ticket = ticket;
        true
    }

    pub(super) fn opened(&mut self, id: DiskId, durable: Epoch, replica: Replica) {
        let now = now();
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let before = disk.gap();
        // What was not sent whole nobody has, whatever he says.
        disk.tracker.abort_after(disk.sent.ended);
        let released = disk.tracker.handle_resume(durable, replica, now);
        // Before the epoch is noted, by which the next agent would see that the replica fell back.
        disk.keep_outstanding();
        disk.release(&released);
        disk.sent.note_aborted();
        disk.has_been_open = true;
        disk.discard = None;
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

    pub(super) fn refused(
        &mut self,
        id: DiskId,
        (code, detail): (CloseCode, &str),
        replica: Option<Generation>,
    ) {
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
        disk.session = match disk.retry.handle_refused(class_of(code), spread()) {
            Next::AskAPerson => Session::Refused { reason, next, replica },
            Next::After(wait) => Session::Failed { reason, until: Instant::now() + wait, next },
        };
    }

    fn ending(&mut self, id: DiskId, epoch: Epoch) {
        if let Some(disk) = self.disks.get_mut(&id) {
            disk.sent.ended = disk.sent.ended.max(epoch);
        }
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
        if disk.retry.handle_durable(epoch) {
            disk.held = None;
        }
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
        let why = format!("{}: {reason}", disk.name);
        let (before, newest) = (disk.gap(), disk.tracker.newest());
        disk.tracker.handle_abort();
        disk.sent.note_aborted();
        disk.points.note_aborted();
        match disk.retry.handle_failed(epoch, newest, class_of(code), spread()) {
            // It was open, and can be opened again in a new session only.
            Some(Next::AskAPerson) => {
                let (next, replica) = (Retry::Reconnect, None);
                disk.session = Session::Refused { reason, next, replica };
            }
            Some(Next::After(wait)) => {
                disk.held = Some(Held { reason, until: Instant::now() + wait });
            }
            None => {}
        }
        self.note_lost_points(id, &why);
        self.note_gap(id, before);
    }
}
