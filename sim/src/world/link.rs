//! The agent's end of the connection, as `pinnace/src/agent/link` and `core/sessions.rs` drive it.

use std::sync::Arc;

use blocks::{Epoch, MonotonicNs};
use tracker::Replica;
use wire::{
    Class, CloseCode, DataKey, Reason, Sealer, SourceSession, Text,
    message::{Features, OpenDisk, ReplicaState, VersionRange},
    session::{SourceConfig, SourceEvent},
};

use crate::{
    agent::{FIRST_PAUSE, LONGEST_PAUSE, Link, Standing},
    clock::{MS, S},
    machine::Machine,
    network::{Arrival, ConnectionId, Lane},
    world::{
        Event, World,
        agent::{GENERATION, SOURCE},
        note,
    },
};

/// A connection that lasted this long is worth an attempt at once when it breaks.
const LASTED: u64 = 20 * S;
/// How long an end waits for a peer that says nothing more.
pub(super) const IDLE: u64 = 10 * S;

impl World {
    pub(super) fn dial(&mut self) {
        let now = self.clock.now();
        let Some(agent) = &mut self.agent else { return };
        if agent.link.is_some() {
            return;
        }
        let id = self.network.connect();
        let session = SourceSession::new(SourceConfig {
            machine: SOURCE,
            build: Text::lossy("simulated"),
            versions: VersionRange::SUPPORTED,
            features: Features::default(),
        });
        let life = agent.life;
        agent.link = Some(Link { id, session, began: now, is_welcome: false, next_stream: 0 });
        note!(self, "connection {}: the agent says hello", id.0);
        if !self.target.is_up() {
            // Nobody answers.
            self.network.cut(id);
            self.clock.after(300 * MS, Event::AgentHears { life, connection: id });
        }
    }

    /// The connection is given up, by the agent.
    pub(super) fn drop_link(&mut self, why: &str) {
        let Some(id) = self.connection() else { return };
        note!(self, "connection {}: given up: {why}", id.0);
        self.network.cut(id);
        let delay = self.rng.spread(MS, 100 * MS);
        self.clock.after(delay, Event::TargetHears { connection: id });
        self.agent_hears(id);
    }

    /// The agent knows that its connection is gone.
    pub(super) fn agent_hears(&mut self, connection: ConnectionId) {
        let now = self.clock.now();
        let Some(agent) = &mut self.agent else { return };
        let Some(link) = agent.link.take_if(|link| link.id == connection) else { return };
        note!(self, "connection {}: the agent has lost it", connection.0);
        self.network.cut(connection);
        for disk in &mut agent.disks {
            disk.standing = Standing::Closed;
            disk.shipments.clear();
            disk.requests.clear();
        }
        if now - link.began >= LASTED || self.healed_at.is_some_and(|at| link.began < at) {
            agent.pause = FIRST_PAUSE;
        }
        let life = agent.life;
        self.clock.after(agent.pause, Event::Dial { life });
        agent.pause = (agent.pause * 2).min(LONGEST_PAUSE);
    }

    pub(super) fn agent_receives(&mut self, connection: ConnectionId, arrival: Arrival) {
        let Some(agent) = &mut self.agent else { return };
        let Some(link) = agent.link.as_mut().filter(|link| link.id == connection) else { return };
        match arrival {
            Arrival::Bytes(bytes) => link.session.handle_control(&bytes),
            Arrival::End | Arrival::Reset => return self.drop_link("the target ended the session"),
        }
        self.restore();
    }

    /// Sends what the session has to say, does what it was told, lets frames go.
    pub(super) fn pump_agent(&mut self) {
        loop {
            let Some(link) = self.agent.as_mut().and_then(|agent| agent.link.as_mut()) else {
                return;
            };
            let id = link.id;
            let said: Vec<_> = std::iter::from_fn(|| link.session.poll_transmit()).collect();
            let event = link.session.poll_event();
            self.send(id, Lane::ToTarget, said.into_iter().map(Arrival::Bytes));
            let Some(event) = event else { break };
            self.heed(event);
        }
        self.grant();
    }

    fn heed(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Welcomed(_) => {
                if let Some(link) = self.agent.as_mut().and_then(|agent| agent.link.as_mut()) {
                    link.is_welcome = true;
                }
                (0..self.machine.disks.len()).for_each(|disk| self.open_session(disk));
            }
            SourceEvent::Opened(opened) => {
                let replica = match opened.state {
                    ReplicaState::Empty => Replica::Empty,
                    ReplicaState::Partial => Replica::Partial,
                    ReplicaState::Follows => Replica::Follows,
                };
                self.opened(Machine::index_of(opened.disk), opened.last_durable, replica);
            }
            SourceEvent::Refused(refused) => {
                let disk = Machine::index_of(refused.disk);
                self.refused(disk, refused.code, refused.detail.as_str());
            }
            SourceEvent::Durable { disk, epoch } => self.durable(Machine::index_of(disk), epoch),
            SourceEvent::Failed(failed) => {
                let disk = Machine::index_of(failed.disk);
                self.epoch_failed(disk, failed.epoch, failed.code, failed.detail.as_str());
            }
            SourceEvent::Hashes(hashes) => self.hashes_arrived(hashes),
            SourceEvent::Leaves(_)
            | SourceEvent::Credited { .. }
            | SourceEvent::DiskClosed { .. }
            | SourceEvent::Pong(_) => {}
            SourceEvent::Closed { code, detail } => {
                if code.class() == Class::Permanent {
                    self.fail(format!("the session ended for good: {code} {}", detail.as_str()));
                }
                self.drop_link("the session is over");
            }
        }
    }

    /// Asks the target to take a disk's epochs.
    pub(super) fn open_session(&mut self, disk: usize) {
        let geometry = self.machine.disks[disk].geometry();
        let Some(agent) = &mut self.agent else { return };
        let Some(link) = agent.link.as_mut().filter(|link| link.is_welcome) else { return };
        agent.disks[disk].standing = Standing::Opening;
        let open = OpenDisk {
            disk: Machine::id_of(disk),
            generation: GENERATION,
            geometry,
            name: Text::lossy("simulated"),
            key: key_of(disk),
            origin: wire::message::Origin::default(),
        };
        if let Err(error) = link.session.open_disk(open) {
            note!(self, "disk {disk}: not opened: {error}");
        }
    }

    fn opened(&mut self, disk: usize, durable: Epoch, replica: Replica) {
        note!(self, "disk {disk}: open, {durable} is durable, {replica:?}");
        let now = self.clock.now();
        let before = self.gap(disk);
        let released = self.tracker(disk).handle_resume(durable, replica, MonotonicNs(now));
        self.release(disk, &released);
        let sealer = Sealer::new(&key_of(disk), Machine::id_of(disk), GENERATION);
        let of_agent = self.agent_disk(disk);
        of_agent.standing = Standing::Open(Arc::new(sealer.expect("there are random bytes")));
        of_agent.next_cycle = now;
        self.note_gap(disk, before);
    }

    fn refused(&mut self, disk: usize, code: CloseCode, detail: &str) {
        note!(self, "disk {disk}: refused: {code} {detail}");
        if code.class() == Class::Permanent {
            // No person did anything, so no person should have to.
            self.fail(format!("disk {disk} is refused for good: {code} {detail}"));
        }
        let now = self.clock.now();
        let of_agent = self.agent_disk(disk);
        let reconnects = matches!(of_agent.standing, Standing::Open(_));
        let until = now + of_agent.retry_delay();
        of_agent.standing = Standing::Failed { until, reconnects };
        of_agent.failures += 1;
        of_agent.shipments.clear();
    }

    fn durable(&mut self, disk: usize, epoch: Epoch) {
        note!(self, "disk {disk}: epoch {epoch} is acknowledged");
        let before = self.gap(disk);
        let released = self.tracker(disk).handle_ack(epoch);
        self.release(disk, &released);
        let next = self.clock.now() + self.scenario.interval;
        let of_agent = self.agent_disk(disk);
        of_agent.held_until = 0;
        of_agent.failures = 0;
        if of_agent.gap().is_none() && before.is_none() {
            of_agent.next_cycle = next;
        }
        self.note_gap(disk, before);
    }

    /// An epoch was lost: what it held is dirty again, with all that was built on it.
    pub(super) fn epoch_failed(
        &mut self,
        disk: usize,
        epoch: Epoch,
        code: CloseCode,
        detail: &str,
    ) {
        note!(self, "disk {disk}: epoch {epoch} failed: {code} {detail}");
        if code.class() == Class::Permanent {
            self.fail(format!("disk {disk}: epoch {epoch} failed for good: {code} {detail}"));
        }
        let now = self.clock.now();
        let before = self.gap(disk);
        let of_agent = self.agent_disk(disk);
        of_agent.tracker.handle_abort();
        of_agent.held_until = now + of_agent.retry_delay();
        of_agent.failures += 1;
        self.note_gap(disk, before);
    }

    /// The target does not want a stream any more: its epoch is given up.
    pub(super) fn stream_stopped(&mut self, connection: ConnectionId, stream: u64) {
        let Some(agent) = &mut self.agent else { return };
        if agent.link.as_ref().is_none_or(|link| link.id != connection) {
            return;
        }
        for disk in 0..agent.disks.len() {
            let of_stream = |(_, it): &(&Epoch, &crate::agent::Shipment)| it.stream == stream;
            let found = agent.disks[disk].shipments.iter().find(of_stream).map(|(epoch, _)| *epoch);
            if let Some(epoch) = found {
                return self.break_off(disk, epoch, Reason::EpochAborted);
            }
        }
    }

    pub(super) fn connection(&self) -> Option<ConnectionId> {
        Some(self.agent.as_ref()?.link.as_ref()?.id)
    }
}

/// The data key of a disk.
pub(super) fn key_of(disk: usize) -> DataKey {
    DataKey::from_bytes([u8::try_from(disk).expect("few disks") ^ 0x55; 32])
}
