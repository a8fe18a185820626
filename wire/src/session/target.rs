//! The target's end of a connection.
//!
//! ```text
//! AwaitingHello -> Ready -> Closed            a disk: Opening -> Open -> Closing -> Closed
//!        \_________________/                             \________________________/
//! ```
//!
//! Streams and the control stream are not ordered against each other, so a frame may arrive of an
//! epoch or disk that was ended meanwhile. Such frames are thrown away with their stream; they
//! are no violation. To keep that sound, a disk that was open is not opened again in a session.

mod action;
mod disk;

use std::collections::{BTreeMap, HashMap, VecDeque};

use blocks::{ByteLen, DiskId, Epoch, Generation, Geometry};
use bytes::Bytes;

pub use self::action::{ReplicaPosition, StreamEnd, TargetAction, TargetConfig};
use self::disk::{Admission, Asked, OpenDisk as Opened};
use super::{DISKS_MAX, StreamId, Violation, WINDOW_MIN};
use crate::close::{CloseCode, Detail, Reason};
use crate::frame::{CheckedFrame, FrameError};
use crate::message::{
    AgentMessage, DiskOpened, DiskRefused, EpochFailed, Features, Forget, HashRequest, Hashes,
    Hello, LeafRequest, Leaves, LeavesOfBlock, MessageDecoder, OpenDisk, RequestId, RetractPoints,
    TargetMessage, Welcome,
};

/// The target's end of a connection; see [`session`](super).
#[derive(Debug)]
pub struct TargetSession {
    config: TargetConfig,
    phase: Phase,
    /// What both ends are able to do.
    features: Features,
    disks: BTreeMap<DiskId, Disk>,
    /// Streams that showed a frame and have not ended.
    streams: HashMap<StreamId, Stream>,
    decoder: MessageDecoder,
    transmit: VecDeque<Bytes>,
    actions: VecDeque<TargetAction>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    AwaitingHello,
    Ready,
    Closed,
}

#[derive(Debug)]
enum Disk {
    Opening { generation: Generation, geometry: Geometry },
    Open(Opened),
    Closing,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    /// It carries an epoch of a disk.
    Epoch(DiskId, Epoch),
    /// Nobody wants what it carries any more.
    Discarded,
}

impl TargetSession {
    /// A session that waits for a hello.
    ///
    /// # Panics
    /// If the window is below [`WINDOW_MIN`].
    pub fn new(config: TargetConfig) -> Self {
        assert!(config.window >= WINDOW_MIN, "a window must hold frames while credit returns");
        Self {
            config,
            phase: Phase::AwaitingHello,
            features: Features::default(),
            disks: BTreeMap::new(),
            streams: HashMap::new(),
            decoder: MessageDecoder::new(),
            transmit: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// The next bytes for the control stream.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.transmit.pop_front()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<TargetAction> {
        self.actions.pop_front()
    }

    /// Takes bytes of the control stream.
    pub fn handle_control(&mut self, bytes: &[u8]) {
        if self.phase == Phase::Closed {
            return;
        }
        self.decoder.push(bytes);
        while let Some(result) = self.next_message() {
            let handled = result.and_then(|message| self.handle(message));
            self.close_on(handled);
        }
    }

    /// Takes the next frame of a data stream.
    pub fn handle_frame(&mut self, stream: StreamId, frame: CheckedFrame) {
        if self.phase != Phase::Closed {
            let handled = self.frame(stream, frame);
            self.close_on(handled);
        }
    }

    /// The bytes of a data stream are no frame. To be called too when a stream that finished
    /// leaves [`FrameDecoder::finish`](crate::FrameDecoder::finish) unhappy.
    pub fn handle_bad_frame(&mut self, stream: StreamId, error: FrameError) {
        if self.phase != Phase::Closed && self.streams.get(&stream) != Some(&Stream::Discarded) {
            self.close_on(Err(error.into()));
        }
    }

    /// A data stream has ended. To be called for every stream.
    pub fn handle_stream_end(&mut self, stream: StreamId, end: StreamEnd) {
        if self.phase == Phase::Closed {
            return;
        }
        let Some(Stream::Epoch(disk, epoch)) = self.streams.remove(&stream) else { return };
        let Some(Disk::Open(open)) = self.disks.get(&disk) else { return };
        if open.is_receiving(epoch) {
            match end {
                StreamEnd::Finished => self.close_on(Err(Violation::StreamShort(epoch))),
                StreamEnd::Reset => {
                    let code = Reason::EpochAborted.into();
                    self.fail(disk, epoch, code, &Detail::lossy("its stream was reset"));
                }
            }
        }
    }

    /// The connection is gone, or the target gives it up: whatever was not committed is aborted.
    pub fn handle_lost(&mut self) {
        if self.phase != Phase::Closed {
            self.abandon();
        }
    }

    /// Closes the session for a reason of the target's own, such as shutting down.
    pub fn close(&mut self, reason: Reason, detail: &str) {
        if self.phase != Phase::Closed {
            self.abandon();
            let (code, detail) = (reason.into(), Detail::lossy(detail));
            self.actions.push_back(TargetAction::Close { code, detail });
        }
    }

    /// A replica is open.
    pub fn handle_disk_opened(&mut self, disk: DiskId, position: ReplicaPosition) {
        let ReplicaPosition { last_durable, confirmed, state, ticket } = position;
        if let Some(Disk::Opening { generation, geometry }) = self.disks.get(&disk) {
            let (generation, geometry) = (*generation, *geometry);
            let open = Opened::new(generation, geometry, last_durable);
            self.disks.insert(disk, Disk::Open(open));
            let opened = DiskOpened { disk, generation, last_durable, confirmed, state, ticket };
            self.send(&TargetMessage::DiskOpened(opened));
        }
    }

    /// A replica can't be opened, or an open one can't be used any more. Epochs of it that were
    /// not committed are aborted.
    pub fn handle_disk_refused(&mut self, disk: DiskId, code: CloseCode, detail: &str) {
        self.refuse_disk(DiskRefused { disk, code, detail: Detail::lossy(detail), replica: None });
    }

    /// A replica is not opened because the line it is in, `replica`, is not the source's: a person
    /// must decide.
    pub fn handle_disk_diverged(
        &mut self,
        disk: DiskId,
        replica: Generation,
        code: CloseCode,
        detail: &str,
    ) {
        let (detail, replica) = (Detail::lossy(detail), Some(replica));
        self.refuse_disk(DiskRefused { disk, code, detail, replica });
    }

    fn refuse_disk(&mut self, refused: DiskRefused) {
        let disk = refused.disk;
        match self.disks.get(&disk) {
            Some(Disk::Opening { .. }) => drop(self.disks.remove(&disk)),
            Some(Disk::Open(_)) => self.drop_disk(disk, Disk::Closed),
            Some(Disk::Closing | Disk::Closed) | None => return,
        }
        self.send(&TargetMessage::DiskRefused(refused));
    }

    /// A replica was closed as asked.
    pub fn handle_disk_closed(&mut self, disk: DiskId) {
        if matches!(self.disks.get(&disk), Some(Disk::Closing)) {
            self.disks.insert(disk, Disk::Closed);
            self.send(&TargetMessage::DiskClosed { disk });
        }
    }

    /// Frames that were appended have been consumed: their memory is free.
    pub fn handle_consumed(&mut self, disk: DiskId, epoch: Epoch, len: ByteLen) {
        let eighth = ByteLen(self.config.window.0 / 8);
        let consumed = self.open(disk).and_then(|open| open.consume(epoch, len, eighth));
        if let Some(consumed) = consumed {
            self.send(&TargetMessage::Credit { disk, epoch, consumed });
        }
    }

    /// An epoch is durable: written, synced, and visible whole.
    pub fn handle_durable(&mut self, disk: DiskId, epoch: Epoch) {
        if self.open(disk).is_some_and(|open| open.durable(epoch)) {
            self.send(&TargetMessage::EpochDurable { disk, epoch });
            self.commit_next(disk);
        }
    }

    /// An epoch could not be taken or committed. What was appended of it is gone; epochs built on
    /// it are aborted.
    pub fn handle_failed(&mut self, disk: DiskId, epoch: Epoch, code: CloseCode, detail: &str) {
        let detail = Detail::lossy(detail);
        if let Some(stream) = self.open(disk).and_then(|open| open.remove(epoch)) {
            self.discard(stream, code);
            self.fail_answer(disk, epoch, code, &detail);
        }
    }

    /// The hashes that were asked for.
    pub fn handle_hashes(&mut self, disk: DiskId, request: RequestId, hashes: Vec<[u8; 32]>) {
        if let Some(asked) = self.open(disk).and_then(|open| open.answer(request)) {
            let Asked::Blocks(asked) = asked else { panic!("leaves were asked for") };
            assert_eq!(hashes.len(), asked.count as usize, "a hash for each block asked for");
            let first_block = asked.first_block;
            self.send(&TargetMessage::Hashes(Hashes { disk, request, first_block, hashes }));
        }
    }

    /// The hashes of leaves that were asked for, of the content of epoch `as_of`.
    pub fn handle_leaves(
        &mut self,
        (disk, request): (DiskId, RequestId),
        as_of: Epoch,
        blocks: Vec<LeavesOfBlock>,
    ) {
        if let Some(asked) = self.open(disk).and_then(|open| open.answer(request)) {
            let of = Asked::LeavesOf { blocks: blocks.len() };
            assert_eq!(of, asked, "the leaves of each block asked for");
            self.send(&TargetMessage::Leaves(Leaves { disk, request, as_of, blocks }));
        }
    }

    fn next_message(&mut self) -> Option<Result<AgentMessage, Violation>> {
        if self.phase == Phase::Closed {
            return None;
        }
        let envelope = self.decoder.next_message().transpose()?;
        Some(envelope.and_then(|envelope| AgentMessage::decode(&envelope)).map_err(Into::into))
    }

    fn handle(&mut self, message: AgentMessage) -> Result<(), Violation> {
        match (self.phase, message) {
            (Phase::AwaitingHello, AgentMessage::Hello(hello)) => self.hello(hello),
            (Phase::AwaitingHello, _) => Err(Violation::OutOfOrder("a message")),
            (_, AgentMessage::Hello(_)) => Err(Violation::OutOfOrder("a second hello")),
            (_, AgentMessage::OpenDisk(open)) => self.open_disk(open),
            (_, AgentMessage::HashRequest(request)) => self.hash(request),
            (_, AgentMessage::AbortEpoch { disk, epoch }) => self.abort(disk, epoch),
            (_, AgentMessage::CloseDisk { disk, forget }) => self.close_disk(disk, forget),
            (_, AgentMessage::Ping(number)) => {
                self.send(&TargetMessage::Pong(number));
                Ok(())
            }
            (_, AgentMessage::ConfirmPoints { disk, through }) => self.confirm(disk, through),
            (_, AgentMessage::RetractPoints(retract)) => self.retract(retract),
            (_, AgentMessage::LeafRequest(request)) => self.hash_leaves(request),
        }
    }

    fn hello(&mut self, hello: Hello) -> Result<(), Violation> {
        let (ours, theirs) = (self.config.versions, hello.versions);
        let version = ours.common(theirs).ok_or(Violation::Versions { ours, theirs })?;
        if hello.machine != self.config.peer {
            let (named, certified) = (hello.machine, self.config.peer);
            return Err(Violation::OtherMachine { named, certified });
        }
        let features = Features(self.config.features.0 & hello.features.0);
        let (target, window) = (self.config.target, self.config.window);
        self.phase = Phase::Ready;
        self.features = features;
        self.send(&TargetMessage::Welcome(Welcome { version, features, target, window }));
        self.actions.push_back(TargetAction::Welcomed { hello, version });
        Ok(())
    }

    fn open_disk(&mut self, open: OpenDisk) -> Result<(), Violation> {
        if self.disks.contains_key(&open.disk) {
            return Err(Violation::OpenedBefore(open.disk));
        }
        if self.disks.len() >= DISKS_MAX {
            return Err(Violation::TooManyDisks);
        }
        let (generation, geometry) = (open.generation, open.geometry);
        self.disks.insert(open.disk, Disk::Opening { generation, geometry });
        self.actions.push_back(TargetAction::OpenDisk(open));
        Ok(())
    }

    fn hash(&mut self, request: HashRequest) -> Result<(), Violation> {
        match self.disks.get_mut(&request.disk) {
            Some(Disk::Open(open)) => open.ask(&request)?,
            Some(Disk::Closing | Disk::Closed) => return Ok(()),
            Some(Disk::Opening { .. }) | None => return Err(Violation::NotOpen(request.disk)),
        }
        self.actions.push_back(TargetAction::Hash(request));
        Ok(())
    }

    fn hash_leaves(&mut self, request: LeafRequest) -> Result<(), Violation> {
        if !self.features.contain(Features::LEAVES) {
            return Err(Violation::NotAgreed("a request for leaves"));
        }
        match self.disks.get_mut(&request.disk) {
            Some(Disk::Open(open)) => open.ask_leaves(&request)?,
            Some(Disk::Closing | Disk::Closed) => return Ok(()),
            Some(Disk::Opening { .. }) | None => return Err(Violation::NotOpen(request.disk)),
        }
        self.actions.push_back(TargetAction::HashLeaves(request));
        Ok(())
    }

    fn abort(&mut self, disk: DiskId, epoch: Epoch) -> Result<(), Violation> {
        match self.disks.get(&disk) {
            Some(Disk::Open(open)) if open.owes_an_answer(epoch) => {
                let detail = Detail::lossy("given up by the source");
                self.fail(disk, epoch, Reason::EpochAborted.into(), &detail);
                Ok(())
            }
            Some(Disk::Open(_) | Disk::Closing | Disk::Closed) => Ok(()),
            Some(Disk::Opening { .. }) | None => Err(Violation::NotOpen(disk)),
        }
    }

    fn confirm(&mut self, disk: DiskId, through: Epoch) -> Result<(), Violation> {
        match self.disks.get(&disk) {
            Some(Disk::Open(open)) if open.holds(through) => {
                self.actions.push_back(TargetAction::ConfirmPoints { disk, through });
                Ok(())
            }
            Some(Disk::Open(_)) => Err(Violation::ConfirmedEarly(through)),
            Some(Disk::Closing | Disk::Closed) => Ok(()),
            Some(Disk::Opening { .. }) | None => Err(Violation::NotOpen(disk)),
        }
    }

    fn retract(&mut self, retract: RetractPoints) -> Result<(), Violation> {
        match self.disks.get(&retract.disk) {
            Some(Disk::Open(_)) => {
                self.actions.push_back(TargetAction::RetractPoints(retract));
                Ok(())
            }
            Some(Disk::Closing | Disk::Closed) => Ok(()),
            Some(Disk::Opening { .. }) | None => Err(Violation::NotOpen(retract.disk)),
        }
    }

    fn close_disk(&mut self, disk: DiskId, forget: Forget) -> Result<(), Violation> {
        match self.disks.get(&disk) {
            Some(Disk::Open(_)) => {
                self.drop_disk(disk, Disk::Closing);
                self.actions.push_back(TargetAction::CloseDisk { disk, forget });
                Ok(())
            }
            // It was refused while the request was on its way.
            Some(Disk::Closed) => Ok(()),
            Some(Disk::Opening { .. } | Disk::Closing) | None => Err(Violation::NotOpen(disk)),
        }
    }

    fn frame(&mut self, stream: StreamId, frame: CheckedFrame) -> Result<(), Violation> {
        if self.phase != Phase::Ready {
            return Err(Violation::OutOfOrder("a frame"));
        }
        match self.streams.get(&stream) {
            Some(Stream::Discarded) => Ok(()),
            Some(Stream::Epoch(disk, epoch)) => {
                let (disk, epoch, window) = (*disk, *epoch, self.config.window);
                // The streams of a disk that is closed are discarded with it.
                let open = self.open(disk).ok_or(Violation::NotOpen(disk))?;
                open.push(epoch, &frame, window)?;
                self.append(disk, epoch, frame);
                Ok(())
            }
            None => self.first_frame(stream, frame),
        }
    }

    fn first_frame(&mut self, stream: StreamId, frame: CheckedFrame) -> Result<(), Violation> {
        let header = *frame.header();
        let (disk, epoch) = (header.disk, header.epoch);
        let open = match self.disks.get_mut(&disk) {
            Some(Disk::Open(open)) => open,
            Some(Disk::Closing | Disk::Closed) => {
                self.refuse_stream(stream, Reason::EpochAborted.into());
                return Ok(());
            }
            Some(Disk::Opening { .. }) | None => return Err(Violation::NotOpen(disk)),
        };
        let code = match open.admit(stream, &frame)? {
            Admission::Begun => {
                self.streams.insert(stream, Stream::Epoch(disk, epoch));
                let (kind, follows) = (header.kind, header.follows);
                self.actions.push_back(TargetAction::BeginEpoch { disk, epoch, kind, follows });
                self.append(disk, epoch, frame);
                return Ok(());
            }
            Admission::FailedBefore => Reason::EpochAborted.into(),
            Admission::OutOfOrder => {
                let code = Reason::EpochOutOfOrder.into();
                self.fail(disk, epoch, code, &Detail::default());
                code
            }
        };
        self.refuse_stream(stream, code);
        Ok(())
    }

    fn append(&mut self, disk: DiskId, epoch: Epoch, frame: CheckedFrame) {
        let ends = frame.header().is_end();
        let frame = Box::new(frame);
        self.actions.push_back(TargetAction::Append { disk, epoch, frame });
        if ends {
            self.commit_next(disk);
        }
    }

    /// Commits the epoch whose turn it is, if it is complete, and fails those whose turn can't
    /// come any more.
    fn commit_next(&mut self, disk: DiskId) {
        if let Some(epoch) = self.open(disk).and_then(Opened::take_next) {
            self.actions.push_back(TargetAction::Commit { disk, epoch });
        }
        while let Some(epoch) = self.open(disk).and_then(|open| open.stale()) {
            self.fail(disk, epoch, Reason::EpochOutOfOrder.into(), &Detail::default());
        }
    }

    /// Fails an epoch that the target has not committed, with all that are built on it.
    fn fail(&mut self, disk: DiskId, epoch: Epoch, code: CloseCode, detail: &Detail) {
        if let Some(stream) = self.open(disk).and_then(|open| open.remove(epoch)) {
            self.discard(stream, code);
            self.actions.push_back(TargetAction::Abort { disk, epoch });
        }
        self.fail_answer(disk, epoch, code, detail);
    }

    /// Answers that an epoch is lost, and fails those that are built on it.
    fn fail_answer(&mut self, disk: DiskId, epoch: Epoch, code: CloseCode, detail: &Detail) {
        let Some(open) = self.open(disk) else { return };
        let built_on_it = open.fail(epoch);
        let detail = detail.clone();
        self.send(&TargetMessage::EpochFailed(EpochFailed { disk, epoch, code, detail }));
        for epoch in built_on_it {
            self.fail(disk, epoch, Reason::EpochOutOfOrder.into(), &Detail::default());
        }
    }

    /// Stops a stream from its first frame on.
    fn refuse_stream(&mut self, stream: StreamId, code: CloseCode) {
        self.streams.insert(stream, Stream::Discarded);
        self.actions.push_back(TargetAction::StopStream { stream, code });
    }

    /// Stops a stream, unless it has ended.
    fn discard(&mut self, stream: StreamId, code: CloseCode) {
        if self.streams.contains_key(&stream) {
            self.refuse_stream(stream, code);
        }
    }

    /// Ends an open disk: aborts what was not committed.
    fn drop_disk(&mut self, disk: DiskId, next: Disk) {
        if let Some(Disk::Open(open)) = self.disks.insert(disk, next) {
            for (epoch, stream) in open.uncommitted() {
                self.discard(stream, Reason::EpochAborted.into());
                self.actions.push_back(TargetAction::Abort { disk, epoch });
            }
        }
    }

    fn abandon(&mut self) {
        self.phase = Phase::Closed;
        self.transmit.clear();
        self.streams.clear();
        for (disk, state) in std::mem::take(&mut self.disks) {
            if let Disk::Open(open) = state {
                let abort = |(epoch, _)| TargetAction::Abort { disk, epoch };
                self.actions.extend(open.uncommitted().map(abort));
            }
        }
    }

    fn close_on(&mut self, handled: Result<(), Violation>) {
        if let Err(violation) = handled {
            self.close(violation.reason(), &violation.to_string());
        }
    }

    fn open(&mut self, disk: DiskId) -> Option<&mut Opened> {
        match self.disks.get_mut(&disk) {
            Some(Disk::Open(open)) => Some(open),
            _ => None,
        }
    }

    fn send(&mut self, message: &TargetMessage) {
        self.transmit.push_back(message.encode());
    }
}
