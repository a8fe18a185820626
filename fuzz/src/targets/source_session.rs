//! A source's session against a target that may say anything in any order, while its own side goes
//! about its business. What is reported as durable must have been sent, whole and in order.

use std::collections::BTreeMap;

use blocks::{ByteLen, DiskId, Epoch, EpochKind, MachineId, Ticket};
use wire::close::Detail;
use wire::message::{
    DiskOpened, DiskRefused, EpochFailed, Features, Forget, Hashes, OpenDisk, Origin, ReplicaState,
    RequestId, VersionRange, Welcome,
};
use wire::session::{EPOCHS_IN_FLIGHT_MAX, SourceConfig, SourceEvent, WINDOW_MIN};
use wire::{Reason, SourceSession, TargetMessage, Text};

use super::sealed::{self, GENERATION};
use crate::input::Input;

const DISKS: [DiskId; 2] = [DiskId([1; 16]), DiskId([2; 16])];

/// What the session was told by its own side, and must not contradict.
struct World {
    session: SourceSession,
    disks: BTreeMap<DiskId, Disk>,
    /// Disks that were asked for, and not answered.
    asked: Vec<DiskId>,
    closed: bool,
}

#[derive(Default)]
struct Disk {
    durable: Epoch,
    in_flight: BTreeMap<Epoch, Begun>,
    requests: BTreeMap<RequestId, u32>,
}

struct Begun {
    follows: Epoch,
    ended: bool,
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new();
    if !input.once_in(16) {
        world.hear(&welcome(1, WINDOW_MIN));
        for disk in DISKS {
            world.ask_for(disk);
            world.hear(&opened(disk, Epoch(input.below(3))));
        }
    }
    while !input.is_over() {
        if input.once_in(2) {
            world.own_side(&mut input);
        } else {
            world.hostile(&mut input);
        }
        world.take_events();
    }
}

fn welcome(version: u16, window: ByteLen) -> TargetMessage {
    let (features, target) = (Features(0), MachineId([5; 16]));
    TargetMessage::Welcome(Welcome { version, features, target, window })
}

fn opened(disk: DiskId, last_durable: Epoch) -> TargetMessage {
    let state =
        if last_durable == Epoch::NONE { ReplicaState::Empty } else { ReplicaState::Follows };
    let (generation, confirmed) = (GENERATION, Epoch::NONE);
    let ticket = Ticket { number: last_durable.0, secret: [7; 16] };
    let opened = DiskOpened { disk, generation, last_durable, confirmed, state, ticket };
    TargetMessage::DiskOpened(opened)
}

impl World {
    fn new() -> Self {
        let session = SourceSession::new(SourceConfig {
            machine: MachineId([4; 16]),
            build: Text::lossy("a source"),
            versions: VersionRange::SUPPORTED,
            features: Features(0),
        });
        Self { session, disks: BTreeMap::new(), asked: Vec::new(), closed: false }
    }

    fn hear(&mut self, message: &TargetMessage) {
        self.session.handle_control(&message.encode());
        self.take_events();
    }

    fn ask_for(&mut self, disk: DiskId) {
        let (geometry, key) = (sealed::geometry(), sealed::key());
        let (name, origin) = (Text::lossy("x"), Origin::default());
        let open = OpenDisk { disk, generation: GENERATION, geometry, name, key, origin };
        if self.session.open_disk(open).is_ok() {
            self.asked.push(disk);
        }
    }

    fn hostile(&mut self, input: &mut Input) {
        let disk = input.pick(&DISKS);
        let epoch = Epoch(input.number(10));
        let message = match input.below(10) {
            0 => welcome(u16::try_from(input.below(3)).expect("small"), ByteLen(input.number(9))),
            1 => opened(disk, epoch),
            2 => {
                let (code, detail) = (Reason::StoreFull.into(), Detail::default());
                let replica = input.is_over().then_some(GENERATION);
                TargetMessage::DiskRefused(DiskRefused { disk, code, detail, replica })
            }
            3 | 4 => TargetMessage::EpochDurable { disk, epoch },
            5 => {
                let (code, detail) = (Reason::StoreFull.into(), Detail::default());
                TargetMessage::EpochFailed(EpochFailed { disk, epoch, code, detail })
            }
            6 => TargetMessage::Hashes(Hashes {
                disk,
                request: RequestId(input.below(6)),
                first_block: input.below(2),
                hashes: vec![[0; 32]; input.index(3)],
            }),
            7 => {
                let consumed = ByteLen(input.number(4096));
                TargetMessage::Credit { disk, epoch, consumed }
            }
            8 => TargetMessage::DiskClosed { disk },
            _ => return self.session.handle_control(input.bytes(40)),
        };
        self.session.handle_control(&message.encode());
    }

    fn own_side(&mut self, input: &mut Input) {
        let id = input.pick(&DISKS);
        let epoch = Epoch(input.below(10));
        match input.below(8) {
            0 => self.ask_for(id),
            1 | 2 => {
                if let Ok(link) = self.session.begin_epoch(id, epoch, EpochKind::Delta) {
                    let disk = self.disks.get_mut(&id).expect("epochs begin on open disks");
                    let begun = Begun { follows: link.follows, ended: false };
                    assert!(disk.in_flight.insert(epoch, begun).is_none(), "{epoch} begins twice");
                    assert!(disk.in_flight.len() <= EPOCHS_IN_FLIGHT_MAX);
                }
            }
            3 => {
                let len = ByteLen(input.below(1 << 20));
                if len <= self.session.room(id) {
                    self.session.handle_sending(id, epoch, len);
                }
            }
            4 => {
                self.session.handle_ending(id, epoch);
                let disk = self.disks.get_mut(&id);
                if let Some(begun) = disk.and_then(|disk| disk.in_flight.get_mut(&epoch)) {
                    begun.ended = true;
                }
            }
            5 => drop(self.session.abort_epoch(id, epoch)),
            6 => {
                if let Ok(request) = self.session.request_hashes(id, 0, 1) {
                    let disk = self.disks.get_mut(&id).expect("hashes are of open disks");
                    disk.requests.insert(request, 1);
                }
            }
            _ if input.once_in(8) => {
                if self.session.close_disk(id, Forget::Keep).is_ok() {
                    self.disks.remove(&id);
                }
            }
            _ => drop(self.session.confirm_points(id, epoch)),
        }
    }

    /// What the session reports must be possible, whatever the target has said.
    fn take_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            assert!(!self.closed, "nothing follows the close: {event:?}");
            match event {
                SourceEvent::Opened(opened) => {
                    let at = self.asked.iter().position(|disk| *disk == opened.disk);
                    self.asked.swap_remove(at.expect("it was asked for"));
                    let durable = opened.last_durable;
                    self.disks.insert(opened.disk, Disk { durable, ..Disk::default() });
                }
                SourceEvent::Refused(refused) => {
                    self.asked.retain(|disk| *disk != refused.disk);
                    self.disks.remove(&refused.disk);
                }
                SourceEvent::Durable { disk, epoch } => {
                    let disk = self.disks.get_mut(&disk).expect("of an open disk");
                    let begun = disk.in_flight.remove(&epoch).expect("it was in flight");
                    assert!(begun.ended, "{epoch} was not sent whole");
                    assert_eq!(begun.follows, disk.durable, "{epoch} is out of order");
                    disk.durable = epoch;
                }
                SourceEvent::Failed(failed) => {
                    let disk = self.disks.get_mut(&failed.disk).expect("of an open disk");
                    assert!(disk.in_flight.remove(&failed.epoch).is_some(), "it was in flight");
                }
                SourceEvent::Hashes(hashes) => {
                    let disk = self.disks.get_mut(&hashes.disk).expect("of an open disk");
                    let count = disk.requests.remove(&hashes.request).expect("they were asked for");
                    assert_eq!(hashes.hashes.len(), count as usize);
                }
                SourceEvent::Leaves(leaves) => panic!("nobody asked for {leaves:?}"),
                SourceEvent::Closed { .. } => self.closed = true,
                SourceEvent::Welcomed(_)
                | SourceEvent::Credited { .. }
                | SourceEvent::DiskClosed { .. }
                | SourceEvent::Pong(_) => {}
            }
        }
        while self.session.poll_transmit().is_some() {
            assert!(!self.closed, "nothing is said after the close");
        }
    }
}
