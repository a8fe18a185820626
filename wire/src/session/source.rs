//! The source's end of a connection.
//!
//! ```text
//! AwaitingWelcome -> Ready -> Closed          a disk: Opening -> Open -> Closing -> Closed
//!        \___________________/                            \________________________/
//! ```

mod disk;
mod event;

use std::collections::{BTreeMap, VecDeque};

use blocks::{ByteLen, DiskId, Epoch, EpochKind, Generation, Geometry};
use bytes::Bytes;

use self::disk::OpenDisk as Opened;
pub use self::event::{SourceConfig, SourceError, SourceEvent};
use super::{DISKS_MAX, Violation, WINDOW_MIN};
use crate::close::{CloseCode, Detail};
use crate::message::{
    AgentMessage, DiskOpened, DiskRefused, Features, Forget, HashRequest, HashedFrom, Hello,
    LeafRequest, MessageDecoder, OpenDisk, RequestId, RetractPoints, TargetMessage, VersionRange,
    Welcome,
};
use crate::seal::EpochLink;

/// The source's end of a connection; see [`session`](super).
#[derive(Debug)]
pub struct SourceSession {
    config: SourceConfig,
    phase: Phase,
    disks: BTreeMap<DiskId, Disk>,
    next_request: u64,
    decoder: MessageDecoder,
    transmit: VecDeque<Bytes>,
    events: VecDeque<SourceEvent>,
}

#[derive(Debug)]
enum Phase {
    AwaitingWelcome,
    Ready(Welcome),
    Closed,
}

#[derive(Debug)]
enum Disk {
    Opening { generation: Generation, geometry: Geometry },
    Open(Opened),
    Closing,
    Closed,
}

impl SourceSession {
    /// A session that will say hello.
    pub fn new(config: SourceConfig) -> Self {
        let hello = Hello {
            versions: config.versions,
            features: config.features,
            machine: config.machine,
            build: config.build.clone(),
        };
        let mut session = Self {
            config,
            phase: Phase::AwaitingWelcome,
            disks: BTreeMap::new(),
            next_request: 1,
            decoder: MessageDecoder::new(),
            transmit: VecDeque::new(),
            events: VecDeque::new(),
        };
        session.send(&AgentMessage::Hello(hello));
        session
    }

    /// The next bytes for the control stream.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.transmit.pop_front()
    }

    /// The next thing the target said.
    pub fn poll_event(&mut self) -> Option<SourceEvent> {
        self.events.pop_front()
    }

    /// Takes bytes of the control stream.
    pub fn handle_control(&mut self, bytes: &[u8]) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        self.decoder.push(bytes);
        while let Some(result) = self.next_message() {
            if let Err(violation) = result.and_then(|message| self.handle(message)) {
                self.end(violation.reason().into(), &violation.to_string());
            }
        }
    }

    /// The connection is gone: closed by the target with a code, or lost.
    pub fn handle_closed(&mut self, code: CloseCode, detail: &str) {
        if !matches!(self.phase, Phase::Closed) {
            self.end(code, detail);
        }
    }

    /// Asks to replicate a disk. The answer is [`SourceEvent::Opened`] or
    /// [`SourceEvent::Refused`]; a disk that was refused may be asked for again.
    pub fn open_disk(&mut self, open: OpenDisk) -> Result<(), SourceError> {
        self.ready()?;
        if self.disks.contains_key(&open.disk) {
            return Err(SourceError::OpenedBefore(open.disk));
        }
        if self.disks.len() >= DISKS_MAX {
            return Err(SourceError::TooManyDisks);
        }
        let (generation, geometry) = (open.generation, open.geometry);
        self.disks.insert(open.disk, Disk::Opening { generation, geometry });
        self.send(&AgentMessage::OpenDisk(open));
        Ok(())
    }

    /// Ends the replication of an open disk in this session. Its epochs in flight are lost.
    pub fn close_disk(&mut self, disk: DiskId, forget: Forget) -> Result<(), SourceError> {
        self.open(disk)?;
        self.disks.insert(disk, Disk::Closing);
        self.send(&AgentMessage::CloseDisk { disk, forget });
        Ok(())
    }

    /// Begins an epoch, and says what it is built on. Its frames go on a stream of their own.
    pub fn begin_epoch(
        &mut self,
        disk: DiskId,
        epoch: Epoch,
        kind: EpochKind,
    ) -> Result<EpochLink, SourceError> {
        let follows = self.open(disk)?.begin(epoch)?;
        Ok(EpochLink { kind, epoch, follows })
    }

    /// Begins an epoch that was sealed before the session was asked. One that was sealed on another
    /// epoch than the session's newest is not begun: whoever sealed it has not heard yet what
    /// became of the epochs before.
    pub fn begin_sealed(&mut self, disk: DiskId, link: EpochLink) -> Result<(), SourceError> {
        let open = self.open(disk)?;
        let newest = open.follows(link.epoch)?;
        if newest != link.follows {
            return Err(SourceError::SealedOnAnother { follows: link.follows, newest });
        }
        open.begin(link.epoch).map(drop)
    }

    /// Gives an epoch up. The answer is that it failed, or that it is durable after all; until it
    /// comes no other epoch of the disk begins. An epoch that was answered already is left alone.
    pub fn abort_epoch(&mut self, disk: DiskId, epoch: Epoch) -> Result<(), SourceError> {
        if self.open(disk)?.abort(epoch) {
            self.send(&AgentMessage::AbortEpoch { disk, epoch });
        }
        Ok(())
    }

    /// Bytes of frames of the disk that may be sent now: zero when it is not open.
    pub fn room(&self, disk: DiskId) -> ByteLen {
        match (&self.phase, self.disks.get(&disk)) {
            (Phase::Ready(welcome), Some(Disk::Open(disk))) => disk.room(welcome.window),
            _ => ByteLen(0),
        }
    }

    /// A frame is about to be sent. To be called before it is, since credit for it may come back
    /// at once. Frames of an epoch that was answered already don't count.
    pub fn handle_sending(&mut self, disk: DiskId, epoch: Epoch, len: ByteLen) {
        if let Ok(disk) = self.open(disk) {
            disk.charge(epoch, len);
        }
    }

    /// The end frame of an epoch is about to be sent. Until then nobody can have it whole, and a
    /// target that calls it durable lies.
    pub fn handle_ending(&mut self, disk: DiskId, epoch: Epoch) {
        if let Ok(disk) = self.open(disk) {
            disk.end(epoch);
        }
    }

    /// Asks for hashes of the replica's blocks of [`COMPARE_BLOCK`](crate::COMPARE_BLOCK) bytes.
    pub fn request_hashes(
        &mut self,
        disk: DiskId,
        first_block: u64,
        count: u32,
    ) -> Result<RequestId, SourceError> {
        let request = RequestId(self.next_request);
        self.open(disk)?.request(request, first_block, count)?;
        self.next_request += 1;
        let message = HashRequest { disk, request, first_block, count };
        self.send(&AgentMessage::HashRequest(message));
        Ok(request)
    }

    /// Asks for hashes of the leaves of blocks, which ascend.
    pub fn request_leaves(
        &mut self,
        disk: DiskId,
        from: HashedFrom,
        blocks: Vec<u64>,
    ) -> Result<RequestId, SourceError> {
        if !self.features().contain(Features::LEAVES) {
            return Err(SourceError::NoLeaves);
        }
        let request = RequestId(self.next_request);
        self.open(disk)?.request_leaves(request, &blocks)?;
        self.next_request += 1;
        self.send(&AgentMessage::LeafRequest(LeafRequest { disk, request, from, blocks }));
        Ok(request)
    }

    /// What both ends are able to do; nothing before the welcome.
    pub fn features(&self) -> Features {
        match &self.phase {
            Phase::Ready(welcome) => welcome.features,
            Phase::AwaitingWelcome | Phase::Closed => Features::default(),
        }
    }

    /// Says that the disk's points up to that of epoch `through`, which the target has said is
    /// durable, may be relied on.
    pub fn confirm_points(&mut self, disk: DiskId, through: Epoch) -> Result<(), SourceError> {
        let durable = self.open(disk)?.durable_epoch();
        if through > durable {
            return Err(SourceError::NotDurable { epoch: through, durable });
        }
        self.send(&AgentMessage::ConfirmPoints { disk, through });
        Ok(())
    }

    /// Says that points which were not confirmed may lack writes.
    pub fn retract_points(&mut self, retract: RetractPoints) -> Result<(), SourceError> {
        self.open(retract.disk)?;
        self.send(&AgentMessage::RetractPoints(retract));
        Ok(())
    }

    /// Asks for a pong of the same number.
    pub fn ping(&mut self, number: u64) -> Result<(), SourceError> {
        self.ready()?;
        self.send(&AgentMessage::Ping(number));
        Ok(())
    }

    fn next_message(&mut self) -> Option<Result<TargetMessage, Violation>> {
        if matches!(self.phase, Phase::Closed) {
            return None;
        }
        let envelope = self.decoder.next_message().transpose()?;
        Some(envelope.and_then(|envelope| TargetMessage::decode(&envelope)).map_err(Into::into))
    }

    fn handle(&mut self, message: TargetMessage) -> Result<(), Violation> {
        match (&self.phase, message) {
            (Phase::AwaitingWelcome, TargetMessage::Welcome(welcome)) => self.welcome(welcome),
            (Phase::AwaitingWelcome, _) => Err(Violation::OutOfOrder("a message")),
            (_, TargetMessage::Welcome(_)) => Err(Violation::OutOfOrder("a second welcome")),
            (_, TargetMessage::DiskOpened(opened)) => self.opened(opened),
            (_, TargetMessage::DiskRefused(refused)) => self.refused(refused),
            (_, TargetMessage::EpochDurable { disk, epoch }) => {
                let news = self.answered(disk, |disk| disk.durable(epoch))?;
                self.events.extend(news.map(|()| SourceEvent::Durable { disk, epoch }));
                Ok(())
            }
            (_, TargetMessage::EpochFailed(failed)) => {
                let disk = failed.disk;
                if self.answered(disk, |disk| disk.failed(failed.epoch))?.unwrap_or(false) {
                    self.events.push_back(SourceEvent::Failed(failed));
                }
                Ok(())
            }
            (_, TargetMessage::Hashes(hashes)) => {
                let news = self.answered(hashes.disk, |disk| disk.hashes(&hashes))?;
                self.events.extend(news.map(|()| SourceEvent::Hashes(hashes)));
                Ok(())
            }
            (_, TargetMessage::Leaves(leaves)) => {
                let news = self.answered(leaves.disk, |disk| disk.leaves(&leaves))?;
                self.events.extend(news.map(|()| SourceEvent::Leaves(leaves)));
                Ok(())
            }
            (_, TargetMessage::Credit { disk, epoch, consumed }) => {
                let news = self.answered(disk, |disk| disk.credit(epoch, consumed))?;
                self.events.extend(news.map(|()| SourceEvent::Credited { disk }));
                Ok(())
            }
            (_, TargetMessage::DiskClosed { disk }) => self.disk_closed(disk),
            (_, TargetMessage::Pong(number)) => {
                self.events.push_back(SourceEvent::Pong(number));
                Ok(())
            }
        }
    }

    fn welcome(&mut self, welcome: Welcome) -> Result<(), Violation> {
        let ours = self.config.versions;
        let theirs = VersionRange { min: welcome.version, max: welcome.version };
        if ours.common(theirs).is_none() {
            return Err(Violation::Versions { ours, theirs });
        }
        if welcome.features.0 & !self.config.features.0 != 0 {
            return Err(Violation::Welcome("set of features"));
        }
        if welcome.window < WINDOW_MIN {
            return Err(Violation::Welcome("window"));
        }
        self.phase = Phase::Ready(welcome);
        self.events.push_back(SourceEvent::Welcomed(welcome));
        Ok(())
    }

    fn opened(&mut self, opened: DiskOpened) -> Result<(), Violation> {
        let disk = self.disks.get_mut(&opened.disk);
        let Some(Disk::Opening { generation, geometry }) = disk else {
            return Err(Violation::Unasked("an opened disk"));
        };
        if *generation != opened.generation {
            return Err(Violation::Generation(opened.disk));
        }
        let state = Disk::Open(Opened::new(*geometry, opened.last_durable));
        self.disks.insert(opened.disk, state);
        self.events.push_back(SourceEvent::Opened(opened));
        Ok(())
    }

    fn refused(&mut self, refused: DiskRefused) -> Result<(), Violation> {
        match self.disks.get(&refused.disk) {
            // It was never open, so nothing of it is on the way: it may be asked for again.
            Some(Disk::Opening { .. }) => drop(self.disks.remove(&refused.disk)),
            Some(Disk::Open(_) | Disk::Closing) => {
                self.disks.insert(refused.disk, Disk::Closed);
            }
            Some(Disk::Closed) | None => return Err(Violation::Unasked("a refused disk")),
        }
        self.events.push_back(SourceEvent::Refused(refused));
        Ok(())
    }

    fn disk_closed(&mut self, disk: DiskId) -> Result<(), Violation> {
        match self.disks.get(&disk) {
            Some(Disk::Closing) => {
                self.disks.insert(disk, Disk::Closed);
                self.events.push_back(SourceEvent::DiskClosed { disk });
                Ok(())
            }
            // It was refused before it heard that it should close, and has closed since.
            Some(Disk::Closed) => Ok(()),
            Some(Disk::Opening { .. } | Disk::Open(_)) | None => {
                Err(Violation::Unasked("a closed disk"))
            }
        }
    }

    /// Applies an answer to an open disk. Answers to one that is being closed were on their way,
    /// and nobody waits for them any more.
    fn answered<T>(
        &mut self,
        disk: DiskId,
        apply: impl FnOnce(&mut Opened) -> Result<T, Violation>,
    ) -> Result<Option<T>, Violation> {
        match self.disks.get_mut(&disk) {
            Some(Disk::Open(disk)) => apply(disk).map(Some),
            Some(Disk::Closing) => Ok(None),
            Some(Disk::Opening { .. } | Disk::Closed) | None => Err(Violation::NotOpen(disk)),
        }
    }

    fn ready(&self) -> Result<(), SourceError> {
        if matches!(self.phase, Phase::Ready(_)) { Ok(()) } else { Err(SourceError::NotReady) }
    }

    fn open(&mut self, disk: DiskId) -> Result<&mut Opened, SourceError> {
        self.ready()?;
        match self.disks.get_mut(&disk) {
            Some(Disk::Open(disk)) => Ok(disk),
            _ => Err(SourceError::NotOpen(disk)),
        }
    }

    fn send(&mut self, message: &AgentMessage) {
        self.transmit.push_back(message.encode());
    }

    fn end(&mut self, code: CloseCode, detail: &str) {
        self.phase = Phase::Closed;
        self.disks.clear();
        self.transmit.clear();
        self.events.push_back(SourceEvent::Closed { code, detail: Detail::lossy(detail) });
    }
}
