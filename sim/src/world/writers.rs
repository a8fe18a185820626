//! Epochs being written at the target: a step of a writer is a turn of its thread.

use std::collections::VecDeque;

use blocks::{ByteLen, DiskId, Epoch, EpochKind};
use replica::{ContentError, Disk, FailureClass, IncomingError};
use wire::{CloseCode, EpochLink, Reason};

use crate::{
    checks::ReplicaAs,
    clock::{MS, US},
    machine::Machine,
    network::ConnectionId,
    target::{Command, Stage, Writer, WriterId},
    world::{Event, World, Written, note},
};

impl World {
    /// One step of a writer: begin, take a frame, commit, or fold.
    pub(super) fn write(&mut self, id: WriterId) {
        let Some(process) = &mut self.target.process else { return };
        let Some(writer) = process.writers.get_mut(&id) else { return };
        match std::mem::replace(&mut writer.stage, Stage::Waiting) {
            Stage::Waiting => {}
            Stage::Started => match writer.disk.begin(writer.link) {
                Ok(incoming) => {
                    writer.stage = Stage::Receiving(Box::new(incoming));
                    self.step_again(id);
                }
                Err(error) => self.failed(id, code(error.class()), error.to_string()),
            },
            Stage::Receiving(mut incoming) => match writer.commands.pop_front() {
                Some(Command::Append(frame)) => {
                    let len = ByteLen(frame.bytes().len() as u64);
                    match incoming.append(*frame) {
                        Ok(()) => {
                            writer.stage = Stage::Receiving(incoming);
                            self.consumed(id, len);
                            self.step_again(id);
                        }
                        Err(error) => {
                            drop(incoming);
                            self.failed(id, incoming_code(&error), error.to_string());
                        }
                    }
                }
                Some(Command::Commit) => match incoming.commit() {
                    Ok(durable) => {
                        writer.stage = Stage::Folding;
                        let disk = Machine::index_of(writer.disk.id());
                        let (open, state) = (writer.disk.clone(), durable.state);
                        self.check_replica(disk, ReplicaAs::Committed(state));
                        self.look_at_point(disk, &open, state.last_durable);
                        self.report(id, Ok(()));
                        self.step_within(id, self.scenario.fold_max);
                    }
                    Err(error) => self.failed(id, incoming_code(&error), error.to_string()),
                },
                None => writer.stage = Stage::Receiving(incoming),
            },
            Stage::Folding => match writer.disk.fold_one() {
                Ok(Some(_)) => {
                    writer.stage = Stage::Folding;
                    self.step_again(id);
                }
                Ok(None) => {
                    let disk = Machine::index_of(writer.disk.id());
                    let state = writer.disk.state();
                    // A point that is kept may keep deltas from being folded.
                    let whole = writer.disk.pending_folds() == 0;
                    process.writers.remove(&id);
                    if whole {
                        self.check_replica(disk, ReplicaAs::Folded(state));
                    }
                }
                Err(error) => {
                    note!(self, "folding waits: {error}");
                    if let Some(process) = &mut self.target.process {
                        process.writers.remove(&id);
                    }
                }
            },
        }
        self.forget_orphans();
    }

    /// Reads a point that has just become durable, whole.
    fn look_at_point(&mut self, disk: usize, open: &Disk, epoch: Epoch) {
        if !self.is_point(disk, epoch) {
            return;
        }
        let len = usize::try_from(open.geometry().len().0).expect("a small disk");
        let mut bytes = vec![0; len];
        let read = open.history().view(epoch).map_err(|error| error.to_string());
        match read.and_then(|view| view.read_at(0, &mut bytes).map_err(|error| error.to_string())) {
            Ok(()) => self.check_view(disk, &bytes),
            Err(error) => note!(self, "disk {disk}: no view of epoch {epoch}: {error}"),
        }
    }

    /// Folds what is pending of a disk that was opened.
    pub(super) fn fold(&mut self, disk: Disk) {
        let epoch = disk.state().last_durable;
        let link = EpochLink { kind: EpochKind::Delta, epoch, follows: epoch };
        let (peer, commands, stage) = (None, VecDeque::new(), Stage::Folding);
        let id = self.target.new_writer();
        let Some(process) = &mut self.target.process else { return };
        process.writers.insert(id, Writer { peer, disk, link, commands, stage });
        self.step_within(id, self.scenario.fold_max);
    }

    fn step_again(&mut self, id: WriterId) {
        self.step_within(id, 4 * MS);
    }

    fn step_within(&mut self, id: WriterId, longest: u64) {
        let delay = self.rng.spread(US, longest);
        let life = self.target.life;
        self.clock.after(delay, Event::Write { life, writer: id });
    }

    fn consumed(&mut self, id: WriterId, len: ByteLen) {
        let Some(process) = &mut self.target.process else { return };
        let Some(Writer { peer: Some(peer), disk, link, .. }) = process.writers.get(&id) else {
            return;
        };
        if let Some(peer) = process.peers.get_mut(peer) {
            peer.session.handle_consumed(disk.id(), link.epoch, len);
        }
    }

    /// What became of an epoch reaches the session a little later, if anybody waits for it.
    fn report(&mut self, id: WriterId, result: Written) {
        let Some(process) = &mut self.target.process else { return };
        let Some(writer) = process.writers.get(&id) else { return };
        let (disk, epoch) = (writer.disk.id(), writer.link.epoch);
        if let Some(connection) = writer.peer {
            let delay = self.rng.spread(US, 4 * MS);
            let life = self.target.life;
            self.clock.after(delay, Event::Written { life, connection, disk, epoch, result });
        }
    }

    /// A writer has failed: its thread ends.
    fn failed(&mut self, id: WriterId, code: CloseCode, detail: String) {
        self.report(id, Err((code, detail)));
        if let Some(process) = &mut self.target.process {
            process.writers.remove(&id);
        }
    }

    pub(super) fn written(
        &mut self,
        connection: ConnectionId,
        (disk, epoch): (DiskId, Epoch),
        result: Written,
    ) {
        let Some(process) = &mut self.target.process else { return };
        let Some(peer) = process.peers.get_mut(&connection) else { return };
        peer.epochs.remove(&(disk, epoch));
        match result {
            Ok(()) => {
                note!(self, "disk {}: epoch {epoch} is durable", Machine::index_of(disk));
                self.checks.acknowledged(Machine::index_of(disk), epoch);
                peer.session.handle_durable(disk, epoch);
                self.let_successors_start(connection, disk, epoch);
            }
            Err((code, detail)) => {
                note!(self, "disk {}: epoch {epoch}: {code} {detail}", Machine::index_of(disk));
                peer.session.handle_failed(disk, epoch, code, &detail);
                if code == Reason::StoreFailed {
                    // Nobody knows what is durable: it must be opened, and found out, anew.
                    peer.disks.remove(&disk);
                    peer.session.handle_disk_refused(disk, code, &detail);
                }
            }
        }
    }

    /// A seed that waited for this epoch begins.
    fn let_successors_start(&mut self, connection: ConnectionId, disk: DiskId, epoch: Epoch) {
        let Some(process) = &mut self.target.process else { return };
        let mut started = Vec::new();
        for (id, writer) in &mut process.writers {
            let follows = writer.peer == Some(connection)
                && writer.disk.id() == disk
                && writer.link.follows == epoch;
            if follows && matches!(writer.stage, Stage::Waiting) {
                writer.stage = Stage::Started;
                started.push(*id);
            }
        }
        started.into_iter().for_each(|id| self.step_again(id));
    }

    /// Nobody waits for these writers any more. One that has been told to commit goes on.
    pub(super) fn orphan(&mut self, which: impl Fn(&Writer) -> bool) {
        let Some(process) = &mut self.target.process else { return };
        let orphans = process.writers.iter().filter(|(_, writer)| which(writer));
        for id in orphans.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.orphan_one(id);
        }
    }

    pub(super) fn orphan_one(&mut self, id: WriterId) {
        let Some(process) = &mut self.target.process else { return };
        if let Some(writer) = process.writers.get_mut(&id) {
            writer.peer = None;
            self.step_again(id);
        }
    }

    /// A writer without an owner ends once it has nothing left to do.
    fn forget_orphans(&mut self) {
        let Some(process) = &mut self.target.process else { return };
        process.writers.retain(|_, writer| {
            let idle = writer.commands.is_empty() || matches!(writer.stage, Stage::Waiting);
            writer.peer.is_some() || !idle || matches!(writer.stage, Stage::Folding)
        });
    }
}

/// The reason that a class of the store's failures has on the wire.
pub(super) fn code(class: FailureClass) -> CloseCode {
    CloseCode::from(match class {
        FailureClass::StoreFull => Reason::StoreFull,
        FailureClass::StoreFailed => Reason::StoreFailed,
        FailureClass::Corrupt => Reason::ReplicaInvalid,
        FailureClass::Refused => Reason::EpochOutOfOrder,
    })
}

/// The reason that an epoch which was not taken in has on the wire.
fn incoming_code(error: &IncomingError) -> CloseCode {
    match error {
        IncomingError::End(_) | IncomingError::Content(ContentError::Open(_)) => {
            Reason::NotAuthentic.into()
        }
        IncomingError::Foreign { .. }
        | IncomingError::Chain(_)
        | IncomingError::TooManyFrames
        | IncomingError::Content(ContentError::Coding(_) | ContentError::PastEnd) => {
            Reason::ProtocolViolation.into()
        }
        other => code(other.class()),
    }
}
