//! A target's session against a source that may say anything in any order, while its own side does
//! what real ones do: opens, appends, commits, fails.

use std::collections::BTreeMap;

use blocks::{ByteLen, DiskId, Epoch, Generation, MachineId, RetractReason, Ticket};
use wire::frame::FrameError;
use wire::message::{
    Features, Forget, HashRequest, Hello, LEAF_BLOCKS_MAX, OpenDisk, Origin, ReplicaState,
    RequestId, RetractPoints, VersionRange,
};
use wire::session::{
    EPOCHS_IN_FLIGHT_MAX, ReplicaPosition, StreamEnd, StreamId, TargetAction, TargetConfig,
    WINDOW_MIN,
};
use wire::{AgentMessage, CheckedFrame, Reason, Sealer, TargetSession, Text};

use super::sealed::{self, GENERATION};
use crate::input::Input;

const MACHINE: MachineId = MachineId([4; 16]);
const DISKS: [DiskId; 3] = [DiskId([1; 16]), DiskId([2; 16]), DiskId([3; 16])];

/// What the session has asked for, and must not contradict.
struct World {
    session: TargetSession,
    disks: BTreeMap<DiskId, Disk>,
    opening: Vec<DiskId>,
    closing: Vec<DiskId>,
    hashing: Vec<HashRequest>,
    closed: bool,
    sealers: Vec<Sealer>,
}

#[derive(Default)]
struct Disk {
    durable: Epoch,
    in_flight: BTreeMap<Epoch, Epoching>,
}

/// An epoch in flight.
struct Epoching {
    follows: Epoch,
    unconsumed: u64,
    ended: bool,
    committing: bool,
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new();
    if !input.once_in(16) {
        world.say(&hello(MACHINE, VersionRange::SUPPORTED));
        for disk in DISKS {
            if !input.once_in(8) {
                world.say(&open(disk, GENERATION));
                world.answer_opening(&mut input);
            }
        }
    }
    while !input.is_over() {
        world.step(&mut input);
    }
}

fn hello(machine: MachineId, versions: VersionRange) -> AgentMessage {
    let (features, build) = (Features(0), Text::lossy("hostile"));
    AgentMessage::Hello(Hello { versions, features, machine, build })
}

fn open(disk: DiskId, generation: Generation) -> AgentMessage {
    let (geometry, key) = (sealed::geometry(), sealed::key());
    let (name, origin) = (Text::lossy("x"), Origin::default());
    AgentMessage::OpenDisk(OpenDisk { disk, generation, geometry, name, key, origin })
}

impl World {
    fn new() -> Self {
        let session = TargetSession::new(TargetConfig {
            target: MachineId([5; 16]),
            peer: MACHINE,
            versions: VersionRange::SUPPORTED,
            features: Features(0),
            window: WINDOW_MIN,
        });
        Self {
            session,
            disks: BTreeMap::new(),
            opening: Vec::new(),
            closing: Vec::new(),
            hashing: Vec::new(),
            closed: false,
            sealers: DISKS.map(sealed::sealer).into(),
        }
    }

    fn say(&mut self, message: &AgentMessage) {
        self.session.handle_control(&message.encode());
        self.take_actions();
    }

    fn step(&mut self, input: &mut Input) {
        match input.below(4) {
            0 => self.hostile_message(input),
            1 => self.hostile_frame(input),
            _ => self.own_side(input),
        }
        self.take_actions();
    }

    fn hostile_message(&mut self, input: &mut Input) {
        let disk = input.pick(&DISKS);
        let epoch = Epoch(input.number(8));
        let message = match input.below(9) {
            0 => hello(MACHINE, VersionRange { min: 0, max: 9 }),
            1 => open(disk, GENERATION),
            2 => AgentMessage::HashRequest(HashRequest {
                disk,
                request: RequestId(input.below(4)),
                first_block: input.number(2),
                count: 1,
            }),
            3 => AgentMessage::AbortEpoch { disk, epoch },
            4 => AgentMessage::CloseDisk { disk, forget: Forget::Keep },
            5 => AgentMessage::Ping(input.below(9)),
            6 => AgentMessage::ConfirmPoints { disk, through: epoch },
            7 => AgentMessage::RetractPoints(RetractPoints {
                disk,
                after: epoch,
                through: Epoch(epoch.0.saturating_add(1)),
                reason: RetractReason::Gap,
            }),
            _ => return self.session.handle_control(input.bytes(40)),
        };
        self.session.handle_control(&message.encode());
    }

    fn hostile_frame(&mut self, input: &mut Input) {
        let at = input.index(DISKS.len());
        let durable = self.disks.get(&DISKS[at]).map_or(Epoch::NONE, |disk| disk.durable);
        let (stream, link) = (StreamId(input.below(6)), sealed::link(input, durable));
        match input.below(8) {
            0 => {
                let end = if input.once_in(2) { StreamEnd::Reset } else { StreamEnd::Finished };
                return self.session.handle_stream_end(stream, end);
            }
            1 => return self.session.handle_bad_frame(stream, FrameError::Magic),
            _ => {}
        }
        if input.once_in(16) {
            self.sealers[at] = sealed::sealer(DISKS[at]);
        }
        let sealer = &self.sealers[at];
        let frame = if input.once_in(2) {
            sealed::end(input, sealer, link, &[])
        } else {
            sealed::content(input, sealer, link)
        };
        if let Some(frame) = frame {
            self.session.handle_frame(stream, frame);
        }
    }

    fn own_side(&mut self, input: &mut Input) {
        let disk = input.pick(&DISKS);
        match input.below(7) {
            0 => self.answer_opening(input),
            1 => self.consume(input, disk),
            2 | 3 => self.finish_commit(input, disk),
            4 => {
                if let Some(disk) = self.closing.pop() {
                    self.session.handle_disk_closed(disk);
                }
            }
            5 => {
                if let Some(request) = self.hashing.pop() {
                    let hashes = vec![[0; 32]; request.count as usize];
                    self.session.handle_hashes(request.disk, request.request, hashes);
                }
            }
            _ if input.once_in(8) => {
                self.session.handle_disk_refused(disk, Reason::StoreFailed.into(), "broken");
                self.take_actions();
                // An opening is answered once: the source may ask again, and gets a new answer.
                self.opening.retain(|opening| *opening != disk);
                self.disks.remove(&disk);
            }
            _ => {
                // Epochs of a failed one are aborted by the session.
                let epoch = Epoch(input.below(8));
                let of_disk = self.disks.get_mut(&disk);
                if of_disk.is_some_and(|disk| disk.in_flight.remove(&epoch).is_some()) {
                    self.session.handle_failed(disk, epoch, Reason::StoreFull.into(), "full");
                }
            }
        }
    }

    fn answer_opening(&mut self, input: &mut Input) {
        let Some(disk) = self.opening.pop() else { return };
        if input.once_in(8) {
            self.session.handle_disk_refused(disk, Reason::DiskBusy.into(), "busy");
        } else {
            let last_durable = Epoch(input.below(4));
            let state = if last_durable == Epoch::NONE {
                ReplicaState::Empty
            } else {
                ReplicaState::Follows
            };
            self.disks.insert(disk, Disk { durable: last_durable, ..Disk::default() });
            let (confirmed, ticket) = (Epoch::NONE, Ticket::default());
            let position = ReplicaPosition { last_durable, confirmed, state, ticket };
            self.session.handle_disk_opened(disk, position);
        }
        self.take_actions();
    }

    fn consume(&mut self, input: &mut Input, id: DiskId) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        for (epoch, epoching) in &mut disk.in_flight {
            let len = input.below(epoching.unconsumed + 1);
            epoching.unconsumed -= len;
            self.session.handle_consumed(id, *epoch, ByteLen(len));
        }
    }

    fn finish_commit(&mut self, input: &mut Input, id: DiskId) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let committing = disk.in_flight.iter().find(|(_, epoching)| epoching.committing);
        let Some(epoch) = committing.map(|(epoch, _)| *epoch) else { return };
        disk.in_flight.remove(&epoch);
        if input.once_in(4) {
            self.session.handle_failed(id, epoch, Reason::StoreFull.into(), "full");
        } else {
            disk.durable = epoch;
            self.session.handle_durable(id, epoch);
        }
    }

    /// What the session asks for must make sense, whatever the source has said.
    fn take_actions(&mut self) {
        while self.session.poll_transmit().is_some() {}
        while let Some(action) = self.session.poll_action() {
            assert!(!self.closed, "nothing follows the close: {action:?}");
            match action {
                TargetAction::Welcomed { hello, .. } => assert_eq!(hello.machine, MACHINE),
                TargetAction::OpenDisk(open) => self.opening.push(open.disk),
                TargetAction::BeginEpoch { disk, epoch, follows, .. } => {
                    let disk = self.disks.get_mut(&disk).expect("of an open disk");
                    assert!(epoch > follows && follows >= disk.durable, "{epoch} on {follows}");
                    let epoching =
                        Epoching { follows, unconsumed: 0, ended: false, committing: false };
                    assert!(disk.in_flight.insert(epoch, epoching).is_none(), "begun twice");
                    assert!(disk.in_flight.len() <= EPOCHS_IN_FLIGHT_MAX);
                }
                TargetAction::Append { disk, epoch, frame } => self.append(disk, epoch, &frame),
                TargetAction::Commit { disk, epoch } => {
                    let disk = self.disks.get_mut(&disk).expect("of an open disk");
                    let durable = disk.durable;
                    assert!(disk.in_flight.values().all(|epoching| !epoching.committing));
                    let epoching = disk.in_flight.get_mut(&epoch).expect("of one in flight");
                    assert!(epoching.ended && epoching.follows == durable, "{epoch}");
                    epoching.committing = true;
                }
                TargetAction::Abort { disk, epoch } => {
                    let disk = self.disks.get_mut(&disk).expect("of an open disk");
                    let aborted = disk.in_flight.remove(&epoch).expect("of one in flight");
                    assert!(!aborted.committing, "a commit can't be taken back");
                }
                TargetAction::Hash(request) => self.hashing.push(request),
                TargetAction::HashLeaves(request) => {
                    assert!((1..=LEAF_BLOCKS_MAX as usize).contains(&request.blocks.len()));
                    assert!(request.blocks.is_sorted_by(|a, b| a < b));
                }
                TargetAction::ConfirmPoints { disk, through } => {
                    assert!(through <= self.disks[&disk].durable);
                }
                TargetAction::RetractPoints(retract) => assert!(retract.after < retract.through),
                TargetAction::CloseDisk { disk, .. } => {
                    self.disks.remove(&disk);
                    self.closing.push(disk);
                }
                TargetAction::StopStream { .. } => {}
                TargetAction::Close { .. } => self.closed = true,
            }
        }
    }

    fn append(&mut self, disk: DiskId, epoch: Epoch, frame: &CheckedFrame) {
        let disk = self.disks.get_mut(&disk).expect("of an open disk");
        let epoching = disk.in_flight.get_mut(&epoch).expect("of one in flight");
        assert!(!epoching.ended, "a frame after the end");
        assert_eq!((frame.header().epoch, frame.header().follows), (epoch, epoching.follows));
        assert!(frame.extents().iter().all(|it| sealed::geometry().holds(it.extent())));
        epoching.ended = frame.header().is_end();
        epoching.unconsumed += frame.bytes().len() as u64;
    }
}
