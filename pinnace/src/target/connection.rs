//! One agent's connection: moves bytes, frames and results between QUIC, the sans-I/O session and
//! the store.
//!
//! One task owns the session. Every data stream has a task that cuts it into frames; every epoch
//! has a thread that writes them ([`super::epoch`]); opening, hashing and folding run on blocking
//! threads. All of them answer through one queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use blocks::{ByteLen, DiskId, Epoch, MachineId};
use quinn::{Connection, RecvStream, SendStream};
use replica::{Admitted, BlockLeaves, ChangeError, Completeness, Disk, DiskState, History, Store};
use tokio::sync::mpsc;
use wire::message::{
    Features, HashRequest, LeafRequest, OpenDisk, ReplicaState, RequestId, RetractPoints,
    VersionRange,
};
use wire::session::{
    ReplicaPosition, StreamEnd, StreamId, TargetAction, TargetConfig, TargetSession,
};
use wire::{CheckedFrame, CloseCode, FrameDecoder, FrameError, Reason};

use super::assignments::Assignments;
use super::epoch::{EpochResult, EpochWriter, Helpers};
use super::opening::{self, Refused};
use super::retention::Retention;
use crate::causes::with_causes;

/// What of one disk's frames may be on the way or waiting to be written.
const WINDOW: ByteLen = ByteLen(32 << 20);
/// Control bytes read at once.
const CONTROL_READ: usize = 64 << 10;
/// Frames of all streams that wait for the session.
const FRAMES_QUEUED: usize = 32;

/// Requests of one agent that are under way at once, each with a thread. Others wait for them, so
/// that nobody who says too much has the threads that others need.
const AT_WORK_MAX: usize = 8;
/// Requests that may wait; with so many, nothing more is read that the agent says.
const ASKED_MAX: usize = 64;

/// What of all disks' frames may wait to be written: an agent that has many disks, or that ignores
/// its credit, waits in the network instead of in memory.
const PARKED_MAX: ByteLen = ByteLen(512 << 20);

/// A frame may hold room while it waits for one that finds none. When nothing has moved for this
/// long, the connection starts over.
const PARKING_PATIENCE: Duration = Duration::from_secs(30);

/// The share of [`PARKED_MAX`] that a frame holds until it is written.
pub(super) type Parking = tokio::sync::OwnedSemaphorePermit;

/// What the connection's helpers report.
pub(super) enum Report {
    Frame(StreamId, CheckedFrame, Parking),
    BadFrame(StreamId, FrameError),
    /// A frame found no room for as long as [`PARKING_PATIENCE`].
    Starved,
    StreamEnd(StreamId, StreamEnd),
    /// What the agent asked for, answered.
    Answer(Answer),
    Consumed(DiskId, Epoch, ByteLen),
    Epoch(DiskId, Epoch, EpochResult),
    Stream(RecvStream),
}

/// What became of something that the agent asked for.
pub(super) enum Answer {
    Opened(DiskId, Result<Admitted, Refused>),
    Hashes(DiskId, RequestId, Result<Vec<[u8; 32]>, (CloseCode, String)>),
    Leaves(DiskId, RequestId, Result<BlockLeaves, (CloseCode, String)>),
    /// What is known of points was to change durably.
    Points(DiskId, Result<(), (CloseCode, String)>),
}

/// What the target holds for its agents.
#[derive(Clone)]
pub(super) struct Holdings {
    pub(super) store: Arc<Store>,
    pub(super) assignments: Assignments,
    /// A disk larger than this is refused.
    pub(super) disk_size_max: ByteLen,
    pub(super) retention: Retention,
}

/// A connection at work.
pub(super) struct Peer {
    connection: Connection,
    holdings: Holdings,
    machine: MachineId,
    session: TargetSession,
    control: SendStream,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    disks: BTreeMap<DiskId, Disk>,
    epochs: BTreeMap<(DiskId, Epoch), EpochWriter>,
    /// Requests that were not answered yet.
    asked: usize,
    at_work: Arc<tokio::sync::Semaphore>,
    /// Room for frames that wait to be written, in KiB.
    room: Arc<tokio::sync::Semaphore>,
    /// The share of it that the frame at hand holds.
    parking: Option<Parking>,
    /// To stop streams that are no longer wanted.
    streams: BTreeMap<StreamId, tokio::sync::oneshot::Sender<CloseCode>>,
}

/// Serves one authenticated agent until its connection ends.
pub(super) async fn serve(
    connection: Connection,
    holdings: Holdings,
    (target, machine): (MachineId, MachineId),
) -> Result<()> {
    let (control, receive) = connection.accept_bi().await?;
    let session = TargetSession::new(TargetConfig {
        target,
        peer: machine,
        versions: VersionRange::SUPPORTED,
        features: Features::SUPPORTED,
        window: WINDOW,
    });
    let peer = Peer {
        connection,
        holdings,
        machine,
        session,
        control,
        reports: mpsc::channel(FRAMES_QUEUED),
        disks: BTreeMap::new(),
        epochs: BTreeMap::new(),
        asked: 0,
        at_work: Arc::new(tokio::sync::Semaphore::new(AT_WORK_MAX)),
        room: Arc::new(tokio::sync::Semaphore::new(kib(PARKED_MAX))),
        parking: None,
        streams: BTreeMap::new(),
    };
    peer.run(receive).await
}

impl Peer {
    async fn run(mut self, mut receive: RecvStream) -> Result<()> {
        tokio::spawn(accept_streams(self.connection.clone(), self.reports.0.clone()));
        loop {
            if !self.pump().await? {
                return Ok(());
            }
            tokio::select! {
                read = receive.read_chunk(CONTROL_READ, true), if self.asked < ASKED_MAX => match read {
                    Ok(Some(chunk)) => self.session.handle_control(&chunk.bytes),
                    Ok(None) | Err(_) => {
                        self.session.handle_lost();
                        self.pump().await?;
                        return Ok(());
                    }
                },
                Some(report) = self.reports.1.recv() => self.report(report),
            }
        }
    }

    /// Sends what the session has to say and does what it asks for. Says no once it is over.
    async fn pump(&mut self) -> Result<bool> {
        loop {
            while let Some(bytes) = self.session.poll_transmit() {
                // A connection that is gone is noticed by the next read.
                if self.control.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            let Some(action) = self.session.poll_action() else { return Ok(true) };
            if let TargetAction::Close { code, detail } = &action {
                tracing::warn!(MACHINE = %self.machine, %code, detail = detail.as_str(), "closing");
                self.connection.close(code.number().into(), detail.as_str().as_bytes());
                return Ok(false);
            }
            self.act(action);
        }
    }

    fn act(&mut self, action: TargetAction) {
        match action {
            TargetAction::Welcomed { hello, version } => {
                tracing::info!(MACHINE = %hello.machine, build = hello.build.as_str(), version, "welcomed");
            }
            TargetAction::OpenDisk(open) => self.open_disk(open),
            TargetAction::BeginEpoch { disk, epoch, kind, follows } => {
                if let Some(open) = self.disks.get(&disk) {
                    let link = wire::EpochLink { kind, epoch, follows };
                    let writer = EpochWriter::new(open.clone(), link, self.helpers());
                    self.epochs.insert((disk, epoch), writer);
                }
            }
            TargetAction::Append { disk, epoch, frame } => {
                if let Some(writer) = self.epochs.get(&(disk, epoch)) {
                    writer.append(*frame, self.parking.take());
                }
            }
            TargetAction::Commit { disk, epoch } => {
                if let Some(writer) = self.epochs.get(&(disk, epoch)) {
                    writer.commit();
                }
            }
            // Dropping the writer throws away what it has.
            TargetAction::Abort { disk, epoch } => drop(self.epochs.remove(&(disk, epoch))),
            TargetAction::Hash(request) => self.hash(request),
            TargetAction::HashLeaves(request) => self.hash_leaves(request),
            TargetAction::ConfirmPoints { disk, through } => {
                self.change_points(disk, move |history| history.confirm(through));
            }
            TargetAction::RetractPoints(retract) => {
                self.change_points(retract.disk, move |history| retract_points(history, retract));
            }
            TargetAction::CloseDisk { disk, .. } => {
                // Forgetting a replica is for whoever administers the target.
                self.disks.remove(&disk);
                self.session.handle_disk_closed(disk);
            }
            TargetAction::StopStream { stream, code } => {
                if let Some(stop) = self.streams.remove(&stream) {
                    // A stream that has ended needs no stopping.
                    let _ = stop.send(code);
                }
            }
            TargetAction::Close { .. } => {}
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Frame(stream, frame, parking) => {
                // Taken up by the append that the session makes of the frame, if it makes one.
                self.parking = Some(parking);
                self.session.handle_frame(stream, frame);
            }
            Report::Starved => {
                self.session.close(Reason::OutOfMemory, "frames that wait have taken all room");
            }
            Report::BadFrame(stream, error) => self.session.handle_bad_frame(stream, error),
            Report::StreamEnd(stream, end) => {
                self.streams.remove(&stream);
                self.session.handle_stream_end(stream, end);
            }
            Report::Stream(stream) => self.read_stream(stream),
            Report::Answer(answer) => {
                self.asked -= 1;
                self.answer(answer);
            }
            Report::Consumed(disk, epoch, len) => self.session.handle_consumed(disk, epoch, len),
            Report::Epoch(disk, epoch, result) => {
                self.epochs.remove(&(disk, epoch));
                match result {
                    Ok(()) => {
                        tracing::debug!(DISK = %disk, EPOCH = epoch.0, "durable");
                        self.session.handle_durable(disk, epoch);
                        let of_disk = self.epochs.range_mut((disk, epoch)..);
                        let of_disk = of_disk.take_while(|((of, _), _)| *of == disk);
                        of_disk.for_each(|(_, writer)| writer.predecessor_is_durable(epoch));
                    }
                    Err((code, detail)) => {
                        tracing::warn!(DISK = %disk, EPOCH = epoch.0, detail, "an epoch failed");
                        self.session.handle_failed(disk, epoch, code, &detail);
                        if code == Reason::StoreFailed {
                            // Nobody knows what is durable: it must be opened, and found out, anew.
                            self.disks.remove(&disk);
                            self.session.handle_disk_refused(disk, code, &detail);
                        }
                    }
                }
            }
        }
    }

    /// Takes the answer to a request.
    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Opened(id, opened) => self.opened(id, opened),
            Answer::Hashes(disk, request, Ok(hashes)) => {
                self.session.handle_hashes(disk, request, hashes);
            }
            Answer::Leaves(disk, request, Ok(leaves)) => {
                let BlockLeaves { as_of, blocks } = leaves;
                self.session.handle_leaves((disk, request), as_of, blocks);
            }
            // What is no longer relied on may go, and what stood in for it too.
            Answer::Points(_, Ok(())) => self.holdings.retention.look(),
            Answer::Hashes(disk, _, Err((code, detail)))
            | Answer::Leaves(disk, _, Err((code, detail)))
            | Answer::Points(disk, Err((code, detail))) => {
                self.disks.remove(&disk);
                self.session.handle_disk_refused(disk, code, &detail);
            }
        }
    }

    fn helpers(&self) -> Helpers {
        Helpers { reports: self.reports.0.clone(), retention: self.holdings.retention.clone() }
    }

    fn open_disk(&mut self, open: OpenDisk) {
        let (holdings, machine) = (self.holdings.clone(), self.machine);
        let id = open.disk;
        let work = move || opening::open(&holdings, machine, open);
        self.later(work, move |opened| Answer::Opened(id, opened));
    }

    fn opened(&mut self, id: DiskId, opened: Result<Admitted, Refused>) {
        match opened {
            Ok(Admitted { disk, ticket }) => {
                let DiskState { last_durable, completeness } = disk.state();
                let state = match completeness {
                    Completeness::Empty => ReplicaState::Empty,
                    Completeness::Partial => ReplicaState::Partial,
                    Completeness::Follows => ReplicaState::Follows,
                };
                let confirmed = disk.history().confirmed();
                self.disks.insert(id, disk);
                let position = ReplicaPosition { last_durable, confirmed, state, ticket };
                self.session.handle_disk_opened(id, position);
            }
            Err(Refused { code, detail, replica }) => {
                tracing::warn!(DISK = %id, %code, detail, "a disk was refused");
                match replica {
                    Some(replica) => self.session.handle_disk_diverged(id, replica, code, &detail),
                    None => self.session.handle_disk_refused(id, code, &detail),
                }
            }
        }
    }

    fn hash(&mut self, request: HashRequest) {
        let Some(disk) = self.disks.get(&request.disk).cloned() else { return };
        let work = move || {
            let hashes = disk.hashes(request.first_block, request.count);
            let hashes = hashes.map(|hashes| hashes.hashes);
            hashes.map_err(|error| (opening::code(error.class()), with_causes(&error)))
        };
        self.later(work, move |hashes| Answer::Hashes(request.disk, request.request, hashes));
    }

    fn hash_leaves(&mut self, request: LeafRequest) {
        let Some(disk) = self.disks.get(&request.disk).cloned() else { return };
        let (id, number) = (request.disk, request.request);
        let work = move || {
            let leaves = disk.leaves(request.from, &request.blocks);
            leaves.map_err(|error| (opening::code(error.class()), with_causes(&error)))
        };
        self.later(work, move |leaves| Answer::Leaves(id, number, leaves));
    }

    /// Changes durably what is known of a disk's points.
    fn change_points(
        &mut self,
        id: DiskId,
        change: impl FnOnce(&History) -> Result<(), ChangeError> + Send + 'static,
    ) {
        let Some(history) = self.disks.get(&id).map(Disk::history) else { return };
        let work = move || {
            let changed = change(&history);
            changed.map_err(|error| (opening::code(error.class()), with_causes(&error)))
        };
        self.later(work, move |changed| Answer::Points(id, changed));
    }

    fn read_stream(&mut self, stream: RecvStream) {
        let id = StreamId(u64::from(stream.id()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        self.streams.insert(id, stop);
        let (room, reports) = (Arc::clone(&self.room), self.reports.0.clone());
        tokio::spawn(cut_into_frames((id, stream), stopped, room, reports));
    }

    /// Has a thread do something that the agent asked for, when its turn has come.
    fn later<T: Send + 'static, E: From<(CloseCode, String)> + Send + 'static>(
        &mut self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
        answer: impl FnOnce(Result<T, E>) -> Answer + Send + 'static,
    ) {
        self.asked += 1;
        let (reports, at_work) = (self.reports.0.clone(), Arc::clone(&self.at_work));
        tokio::spawn(async move {
            let turn = at_work.acquire_owned().await.expect("it is never closed");
            let done = tokio::task::spawn_blocking(work).await;
            drop(turn);
            let done = done.unwrap_or_else(|error| Err(opening::broken(&error).into()));
            // The connection may be gone by then.
            drop(reports.send(Report::Answer(answer(done))).await);
        });
    }
}

/// Retracts points, and logs which.
fn retract_points(history: &History, retract: RetractPoints) -> Result<(), ChangeError> {
    let RetractPoints { disk, after, through, reason } = retract;
    for point in history.retract(after.next()..=through, reason)? {
        let (id, epoch) = (point.record.id, point.epoch.0);
        tracing::warn!(DISK = %disk, POINT = %id, EPOCH = epoch, REASON = %reason, "retracted");
    }
    Ok(())
}

async fn accept_streams(connection: Connection, reports: mpsc::Sender<Report>) {
    while let Ok(stream) = connection.accept_uni().await {
        if reports.send(Report::Stream(stream)).await.is_err() {
            return;
        }
    }
}

/// Reads a data stream frame by frame, no faster than the session takes them.
async fn cut_into_frames(
    (id, mut stream): (StreamId, RecvStream),
    mut stopped: tokio::sync::oneshot::Receiver<CloseCode>,
    room: Arc<tokio::sync::Semaphore>,
    reports: mpsc::Sender<Report>,
) {
    let mut decoder = FrameDecoder::new();
    let end = loop {
        let read = tokio::select! {
            read = stream.read_chunk(decoder.wanted().max(1), true) => read,
            code = &mut stopped => {
                let code = code.unwrap_or(Reason::EpochAborted.into());
                // A stream that was reset meanwhile needs no stopping.
                drop(stream.stop(code.number().into()));
                break StreamEnd::Reset;
            }
        };
        match read {
            Ok(Some(chunk)) => {
                decoder.push(&chunk.bytes);
                if !report_frames(id, &mut decoder, &room, &reports).await {
                    return;
                }
            }
            Ok(None) => {
                if let Err(error) = decoder.finish() {
                    drop(reports.send(Report::BadFrame(id, error)).await);
                }
                break StreamEnd::Finished;
            }
            Err(_) => break StreamEnd::Reset,
        }
    };
    drop(reports.send(Report::StreamEnd(id, end)).await);
}

/// Hands on the frames that are whole. Says no when the stream is of no further use.
async fn report_frames(
    id: StreamId,
    decoder: &mut FrameDecoder,
    room: &Arc<tokio::sync::Semaphore>,
    reports: &mpsc::Sender<Report>,
) -> bool {
    loop {
        let report = match decoder.next_frame() {
            Ok(Some(frame)) => {
                let len = u32::try_from(kib(ByteLen(frame.bytes().len() as u64)));
                let len = len.expect("a frame is little more than 1 MiB");
                let parking = Arc::clone(room).acquire_many_owned(len);
                match tokio::time::timeout(PARKING_PATIENCE, parking).await {
                    Ok(Ok(parking)) => Report::Frame(id, frame, parking),
                    Ok(Err(_)) | Err(_) => Report::Starved,
                }
            }
            Ok(None) => return true,
            Err(error) => Report::BadFrame(id, error),
        };
        let bad = matches!(report, Report::BadFrame(..) | Report::Starved);
        if reports.send(report).await.is_err() || bad {
            return false;
        }
    }
}

/// A length in KiB, rounded up.
fn kib(len: ByteLen) -> usize {
    usize::try_from(len.0.div_ceil(1024)).expect("lengths of memory fit a usize")
}
