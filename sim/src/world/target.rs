//! The target's process: starting, serving, and what its threads do.

use replica::{Completeness, DiskSpec, OpenDiskError};
use wire::{
    Reason,
    message::{HashRequest, OpenDisk, ReplicaState},
    session::ReplicaPosition,
};

use crate::{
    checks::ReplicaAs,
    clock::{MS, S},
    machine::Machine,
    network::ConnectionId,
    target::EndKind,
    world::{Event, World, agent::SOURCE, note, writers::code},
};

impl World {
    pub(super) fn happen_at_target(&mut self, event: Event) {
        let life = self.target.life;
        let of_life = |of: &u64| *of == life;
        match event {
            Event::StartTarget { life } if of_life(&life) => self.start_target(),
            Event::TargetHears { connection } => self.target_hears(connection),
            Event::Open { life, connection, open, until } if of_life(&life) => {
                self.open_replica(connection, open, until);
            }
            Event::Hash { life, connection, request } if of_life(&life) => {
                self.hash(connection, request);
            }
            Event::Write { life, writer } if of_life(&life) => self.write(writer),
            Event::Written { life, connection, disk, epoch, result } if of_life(&life) => {
                self.written(connection, (disk, epoch), result);
            }
            _ => return,
        }
        self.pump_target();
    }

    fn start_target(&mut self) {
        if self.target.is_up() {
            return;
        }
        note!(self, "the target starts");
        if let Err(error) = self.target.start() {
            note!(self, "the store does not open: {error}");
            let life = self.target.life;
            return self.clock.after(S, Event::StartTarget { life });
        }
        let process = self.target.process.as_ref().expect("it was just started");
        for (disk, error) in process.store.damaged() {
            let disk = Machine::index_of(*disk);
            let words = format!("disk {disk} is damaged after a crash: {error}");
            if error.class() == replica::FailureClass::Corrupt {
                return self.fail(words);
            }
            note!(self, "{words}");
        }
    }

    /// The process ends if its time has come, at whatever it was doing.
    pub(super) fn lose_power_if_due(&mut self) {
        let Some(end) = self.target.due_end() else { return };
        note!(self, "the target ends: {:?}", end.kind);
        let connections: Vec<ConnectionId> = match &self.target.process {
            Some(process) => process.peers.keys().copied().collect(),
            None => Vec::new(),
        };
        self.target.stop();
        if end.kind == EndKind::PowerCut {
            let rng = &mut self.rng;
            let kept = *rng.pick(&[0, 100, 500, 900, 1000]);
            self.target.storage = self.target.storage.after_crash(|_| match rng.chance(kept) {
                true => storage::faulty::Fate::Kept,
                false if rng.chance(300) => storage::faulty::Fate::Torn { bytes: rng.index(5000) },
                false => storage::faulty::Fate::Dropped,
            });
        }
        for connection in connections.into_iter().chain(self.connection()) {
            self.network.cut(connection);
            let hears = self.rng.spread(MS, 10 * S);
            let life = self.agent_life;
            self.clock.after(hears, Event::AgentHears { life, connection });
        }
        let life = self.target.life;
        self.clock.after(end.down, Event::StartTarget { life });
    }

    /// Opens or creates a replica; waits while an older connection lets go of it.
    fn open_replica(&mut self, connection: ConnectionId, open: Box<OpenDisk>, until: u64) {
        let Some(process) = &mut self.target.process else { return };
        let Some(peer) = process.peers.get_mut(&connection) else { return };
        let spec = DiskSpec {
            id: open.disk,
            generation: open.generation,
            geometry: open.geometry,
            name: open.name.as_str().to_owned(),
            machine: SOURCE,
            key: open.key.clone(),
        };
        let index = Machine::index_of(open.disk);
        match process.store.open_disk(&spec) {
            Ok(disk) => {
                let state = disk.state();
                let held = match state.completeness {
                    Completeness::Empty => ReplicaState::Empty,
                    Completeness::Partial => ReplicaState::Partial,
                    Completeness::Follows => ReplicaState::Follows,
                };
                let (last_durable, confirmed) = (state.last_durable, blocks::Epoch::NONE);
                let position = ReplicaPosition {
                    last_durable,
                    confirmed,
                    state: held,
                    ticket: blocks::Ticket::default(),
                };
                peer.session.handle_disk_opened(open.disk, position);
                peer.disks.insert(open.disk, disk);
                note!(self, "disk {index}: the replica is open: {state:?}");
                let pending =
                    process.peers.get(&connection).and_then(|peer| peer.disks.get(&open.disk));
                let pending = pending.cloned().filter(|disk| disk.pending_folds() > 0);
                self.check_replica(index, ReplicaAs::Opened(state, pending.is_none()));
                pending.into_iter().for_each(|disk| self.fold(disk));
            }
            Err(OpenDiskError::Busy(_)) if self.clock.now() < until => {
                let life = self.target.life;
                self.clock.after(50 * MS, Event::Open { life, connection, open, until });
            }
            Err(error) => {
                let reason = match &error {
                    OpenDiskError::Busy(_) => Reason::DiskBusy.into(),
                    OpenDiskError::GenerationMismatch { .. } => Reason::GenerationMismatch.into(),
                    OpenDiskError::GeometryChanged { .. } => Reason::GeometryChanged.into(),
                    other => code(other.class()),
                };
                note!(self, "disk {index}: the replica does not open: {error}");
                peer.session.handle_disk_refused(open.disk, reason, &error.to_string());
            }
        }
    }

    fn hash(&mut self, connection: ConnectionId, request: HashRequest) {
        let Some(process) = &mut self.target.process else { return };
        let Some(peer) = process.peers.get_mut(&connection) else { return };
        let Some(disk) = peer.disks.get(&request.disk).cloned() else { return };
        match disk.hashes(request.first_block, request.count) {
            Ok(hashes) => {
                peer.session.handle_hashes(request.disk, request.request, hashes.hashes);
            }
            Err(error) => {
                note!(self, "disk {}: no hashes: {error}", Machine::index_of(request.disk));
                peer.disks.remove(&request.disk);
                let code = code(error.class());
                peer.session.handle_disk_refused(request.disk, code, &error.to_string());
            }
        }
    }
}
