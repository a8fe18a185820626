//! Connections at the target: bytes in, and what the sessions ask for.

use std::collections::{BTreeMap, BTreeSet};

use blocks::{ByteLen, MachineId};
use wire::{
    FrameDecoder, TargetSession,
    message::{Features, VersionRange},
    session::{StreamEnd, StreamId, TargetAction, TargetConfig},
};

use crate::{
    clock::{MS, S, US},
    network::{Arrival, ConnectionId, Lane},
    target::{Command, Peer, Stage, Writer, WriterId},
    world::{Event, World, agent::SOURCE, note},
};

const WINDOW: ByteLen = ByteLen(4 << 20);
/// How long the last connection of the same agent may take to let go of a disk.
const LET_GO: u64 = 5 * S;
const TARGET: MachineId = MachineId([9; 16]);

impl World {
    pub(super) fn target_receives(
        &mut self,
        connection: ConnectionId,
        lane: Lane,
        arrival: Arrival,
    ) {
        let Some(process) = &mut self.target.process else { return };
        let peer = process.peers.entry(connection).or_insert_with(Peer::new);
        match (lane, arrival) {
            (Lane::Data(stream), Arrival::Bytes(bytes)) => peer.receive(stream, &bytes),
            (Lane::Data(stream), Arrival::End) => peer.end(stream, StreamEnd::Finished),
            (Lane::Data(stream), Arrival::Reset) => peer.end(stream, StreamEnd::Reset),
            (_, Arrival::Bytes(bytes)) => peer.session.handle_control(&bytes),
            (_, Arrival::End | Arrival::Reset) => peer.session.handle_lost(),
        }
        self.pump_target();
    }

    pub(super) fn target_hears(&mut self, connection: ConnectionId) {
        let Some(process) = &mut self.target.process else { return };
        let Some(peer) = process.peers.get_mut(&connection) else { return };
        note!(self, "connection {}: the target has lost it", connection.0);
        peer.session.handle_lost();
        self.pump_target();
        if let Some(process) = &mut self.target.process {
            process.peers.remove(&connection);
        }
        self.orphan(|writer| writer.peer == Some(connection));
    }

    /// Does what the sessions ask for, and sends what they say.
    pub(super) fn pump_target(&mut self) {
        let Some(process) = &self.target.process else { return };
        for connection in process.peers.keys().copied().collect::<Vec<_>>() {
            self.pump_peer(connection);
        }
    }

    fn pump_peer(&mut self, connection: ConnectionId) {
        loop {
            let Some(process) = &mut self.target.process else { return };
            let Some(peer) = process.peers.get_mut(&connection) else { return };
            let said: Vec<_> = std::iter::from_fn(|| peer.session.poll_transmit()).collect();
            let action = peer.session.poll_action();
            self.send(connection, Lane::ToAgent, said.into_iter().map(Arrival::Bytes));
            let Some(action) = action else { return };
            self.act(connection, action);
        }
    }

    fn act(&mut self, connection: ConnectionId, action: TargetAction) {
        let (life, now) = (self.target.life, self.clock.now());
        let Some(process) = &mut self.target.process else { return };
        let Some(peer) = process.peers.get_mut(&connection) else { return };
        match action {
            // No points are cut here yet.
            TargetAction::Welcomed { .. }
            | TargetAction::ConfirmPoints { .. }
            | TargetAction::RetractPoints(_) => {}
            TargetAction::OpenDisk(open) => {
                let (open, until) = (Box::new(open), now + LET_GO);
                let delay = self.rng.spread(US, 5 * MS);
                self.clock.after(delay, Event::Open { life, connection, open, until });
            }
            TargetAction::BeginEpoch { disk, epoch, kind, follows } => {
                if let Some(open) = peer.disks.get(&disk) {
                    let link = wire::EpochLink { kind, epoch, follows };
                    let in_turn =
                        kind != blocks::EpochKind::Seed || open.state().last_durable == follows;
                    let stage = if in_turn { Stage::Started } else { Stage::Waiting };
                    let (peer_id, disk_open) = (Some(connection), open.clone());
                    let commands = std::collections::VecDeque::new();
                    let writer = Writer { peer: peer_id, disk: disk_open, link, commands, stage };
                    let id = WriterId(self.target.next_writer);
                    self.target.next_writer += 1;
                    peer.epochs.insert((disk, epoch), id);
                    process.writers.insert(id, writer);
                    self.clock.after(0, Event::Write { life, writer: id });
                }
            }
            TargetAction::Append { disk, epoch, frame } => {
                if let Some(id) = peer.epochs.get(&(disk, epoch)).copied() {
                    self.command(id, Command::Append(frame));
                }
            }
            TargetAction::Commit { disk, epoch } => {
                if let Some(id) = peer.epochs.get(&(disk, epoch)).copied() {
                    self.command(id, Command::Commit);
                }
            }
            TargetAction::Abort { disk, epoch } => {
                if let Some(id) = peer.epochs.remove(&(disk, epoch)) {
                    self.orphan_one(id);
                }
            }
            // Not offered by this target.
            TargetAction::HashLeaves(_) => {}
            TargetAction::Hash(request) => {
                let delay = self.rng.spread(US, 5 * MS);
                self.clock.after(delay, Event::Hash { life, connection, request });
            }
            TargetAction::CloseDisk { disk, .. } => {
                peer.disks.remove(&disk);
                peer.session.handle_disk_closed(disk);
            }
            TargetAction::StopStream { stream, .. } => {
                peer.stopped.insert(stream.0);
                let delay = self.rng.spread(MS, 50 * MS);
                let life = self.agent_life;
                self.clock.after(delay, Event::Stopped { life, connection, stream: stream.0 });
            }
            TargetAction::Close { code, detail } => {
                note!(self, "connection {}: closed: {code} {}", connection.0, detail.as_str());
                if code.class() == wire::Class::Permanent {
                    self.fail(format!("the target closes for good: {code} {}", detail.as_str()));
                }
                self.network.cut(connection);
                let life = self.agent_life;
                self.clock.after(10 * MS, Event::AgentHears { life, connection });
                self.clock.after(0, Event::TargetHears { connection });
            }
        }
    }

    fn command(&mut self, id: WriterId, command: Command) {
        let Some(process) = &mut self.target.process else { return };
        let Some(writer) = process.writers.get_mut(&id) else { return };
        writer.commands.push_back(command);
        let delay = self.rng.spread(US, 8 * MS);
        let life = self.target.life;
        self.clock.after(delay, Event::Write { life, writer: id });
    }
}

impl Peer {
    fn new() -> Self {
        let session = TargetSession::new(TargetConfig {
            target: TARGET,
            peer: SOURCE,
            versions: VersionRange::SUPPORTED,
            features: Features::default(),
            window: WINDOW,
        });
        Self {
            session,
            disks: BTreeMap::new(),
            epochs: BTreeMap::new(),
            decoders: BTreeMap::new(),
            stopped: BTreeSet::new(),
        }
    }

    fn receive(&mut self, stream: u64, bytes: &[u8]) {
        if self.stopped.contains(&stream) {
            return;
        }
        let decoder = self.decoders.entry(stream).or_default();
        decoder.push(bytes);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => self.session.handle_frame(StreamId(stream), frame),
                Ok(None) => return,
                Err(error) => return self.session.handle_bad_frame(StreamId(stream), error),
            }
        }
    }

    fn end(&mut self, stream: u64, end: StreamEnd) {
        let decoder: Option<FrameDecoder> = self.decoders.remove(&stream);
        let end = if self.stopped.remove(&stream) { StreamEnd::Reset } else { end };
        if let (Some(decoder), StreamEnd::Finished) = (decoder, end)
            && let Err(error) = decoder.finish()
        {
            self.session.handle_bad_frame(StreamId(stream), error);
        }
        self.session.handle_stream_end(StreamId(stream), end);
    }
}
