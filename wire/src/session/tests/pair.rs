//! Two sessions with nothing between them, and frames to send.

use blocks::{
    ByteLen, ChunkSize, DiskId, Epoch, EpochKind, Generation, Geometry, MachineId, Sector, Ticket,
};

use crate::close::CloseCode;
use crate::frame::{CheckedFrame, Codec, Content, EpochSummary, FrameExtent, Sequence};
use crate::key::DataKey;
use crate::message::{Features, OpenDisk, Origin, ReplicaState, VersionRange};
use crate::seal::{EpochLink, FrameSpec, Sealer};
use crate::session::{
    ReplicaPosition, SourceConfig, SourceEvent, SourceSession, StreamId, TargetAction,
    TargetConfig, TargetSession, WINDOW_MIN,
};
use crate::text::Text;

pub(super) const DISK: DiskId = DiskId([1; 16]);
pub(super) const OTHER_DISK: DiskId = DiskId([2; 16]);
pub(super) const GENERATION: Generation = Generation([3; 16]);
pub(super) const MACHINE: MachineId = MachineId([4; 16]);
pub(super) const TARGET: MachineId = MachineId([5; 16]);
pub(super) const SECTORS: u64 = 4096;

pub(super) struct Pair {
    pub(super) source: SourceSession,
    pub(super) target: TargetSession,
    pub(super) sealer: Sealer,
}

pub(super) fn source_config() -> SourceConfig {
    SourceConfig {
        machine: MACHINE,
        build: Text::lossy("pinnace test"),
        versions: VersionRange::SUPPORTED,
        features: Features(0b11),
    }
}

pub(super) fn target_config() -> TargetConfig {
    TargetConfig {
        target: TARGET,
        peer: MACHINE,
        versions: VersionRange::SUPPORTED,
        features: Features(0b10),
        window: WINDOW_MIN,
    }
}

pub(super) fn open_request(disk: DiskId) -> OpenDisk {
    OpenDisk {
        disk,
        generation: GENERATION,
        geometry: Geometry::new(SECTORS, 512, ChunkSize::DEFAULT).unwrap(),
        name: Text::lossy("vda"),
        key: key(),
        origin: Origin::default(),
    }
}

pub(super) fn key() -> DataKey {
    DataKey::from_bytes([6; 32])
}

impl Pair {
    /// Two ends that have not spoken.
    pub(super) fn new() -> Self {
        Self::with(source_config(), target_config())
    }

    pub(super) fn with(source: SourceConfig, target: TargetConfig) -> Self {
        Self {
            source: SourceSession::new(source),
            target: TargetSession::new(target),
            sealer: Sealer::new(&key(), DISK, GENERATION).unwrap(),
        }
    }

    /// Two ends with one disk open, whose replica holds `last_durable`.
    pub(super) fn open(last_durable: Epoch) -> Self {
        let mut pair = Self::new();
        pair.pump();
        pair.open_disk(last_durable);
        pair
    }

    pub(super) fn open_disk(&mut self, last_durable: Epoch) {
        self.source.open_disk(open_request(DISK)).unwrap();
        let (_, actions) = self.pump();
        assert!(matches!(actions.as_slice(), [TargetAction::OpenDisk(_)]), "{actions:?}");
        self.target.handle_disk_opened(DISK, position(last_durable));
        let (events, _) = self.pump();
        assert!(
            matches!(&events[..], [SourceEvent::Opened(it)] if it.last_durable == last_durable)
        );
    }

    /// Carries all control messages to and fro, and returns what both ends have to say.
    pub(super) fn pump(&mut self) -> (Vec<SourceEvent>, Vec<TargetAction>) {
        loop {
            let to_target: Vec<_> = std::iter::from_fn(|| self.source.poll_transmit()).collect();
            let to_source: Vec<_> = std::iter::from_fn(|| self.target.poll_transmit()).collect();
            if to_target.is_empty() && to_source.is_empty() {
                break;
            }
            to_target.iter().for_each(|bytes| self.target.handle_control(bytes));
            to_source.iter().for_each(|bytes| self.source.handle_control(bytes));
        }
        let events = std::iter::from_fn(|| self.source.poll_event()).collect();
        (events, std::iter::from_fn(|| self.target.poll_action()).collect())
    }

    /// Begins an epoch and returns its frames.
    pub(super) fn begin(&mut self, epoch: u64, content_frames: u64) -> Vec<CheckedFrame> {
        let link = self.source.begin_epoch(DISK, Epoch(epoch), EpochKind::Delta).unwrap();
        epoch_frames(&self.sealer, link, content_frames)
    }

    /// Gives frames to the target, as if they came on a stream.
    pub(super) fn deliver(&mut self, stream: u64, frames: &[CheckedFrame]) {
        for frame in frames {
            if frame.header().is_end() {
                self.source.handle_ending(frame.header().disk, frame.header().epoch);
            }
            self.target.handle_frame(StreamId(stream), frame.clone());
        }
    }

    /// What the target did and said about one run of frames on a stream of their own.
    pub(super) fn closes_on(&mut self, stream: u64, frames: &[CheckedFrame]) -> Option<CloseCode> {
        self.deliver(stream, frames);
        close_code(&self.pump().1)
    }
}

/// A replica that holds this epoch, and none of whose points is confirmed.
pub(super) fn position(last_durable: Epoch) -> ReplicaPosition {
    let empty = last_durable == Epoch::NONE;
    let state = if empty { ReplicaState::Empty } else { ReplicaState::Follows };
    ReplicaPosition { last_durable, confirmed: Epoch::NONE, state, ticket: Ticket::default() }
}

/// Frames of an epoch, of one sector each, and its end.
pub(super) fn epoch_frames(sealer: &Sealer, link: EpochLink, count: u64) -> Vec<CheckedFrame> {
    let mut frames: Vec<_> = (0..count).map(|i| content_frame(sealer, link, i, i)).collect();
    frames.push(end_frame(sealer, link, count, count));
    frames
}

pub(super) fn content_frame(
    sealer: &Sealer,
    link: EpochLink,
    sequence: u64,
    sector: u64,
) -> CheckedFrame {
    let extents = [FrameExtent { start: Sector(sector), sectors: 1, content: Content::Data }];
    let spec =
        FrameSpec { link, sequence: Sequence(sequence), codec: Codec::Raw, extents: &extents };
    CheckedFrame::parse(sealer.seal(&spec, &[0x77; 512]).unwrap()).unwrap()
}

pub(super) fn end_frame(
    sealer: &Sealer,
    link: EpochLink,
    sequence: u64,
    frames: u64,
) -> CheckedFrame {
    let summary = EpochSummary { frames, data_bytes: frames * 512, zero_bytes: 0, completes: true };
    let end = sealer.seal_end(link, Sequence(sequence), &summary).unwrap();
    CheckedFrame::parse(end).unwrap()
}

pub(super) fn close_code(actions: &[TargetAction]) -> Option<CloseCode> {
    actions.iter().find_map(|action| match action {
        TargetAction::Close { code, .. } => Some(*code),
        _ => None,
    })
}

/// A short name for what the target is to do.
pub(super) fn names(actions: &[TargetAction]) -> Vec<String> {
    let name = |action: &TargetAction| match action {
        TargetAction::Welcomed { .. } => "welcomed".to_owned(),
        TargetAction::OpenDisk(_) => "open".to_owned(),
        TargetAction::BeginEpoch { epoch, .. } => format!("begin {epoch}"),
        TargetAction::Append { epoch, frame, .. } if frame.header().is_end() => {
            format!("end {epoch}")
        }
        TargetAction::Append { epoch, .. } => format!("append {epoch}"),
        TargetAction::Commit { epoch, .. } => format!("commit {epoch}"),
        TargetAction::Abort { epoch, .. } => format!("abort {epoch}"),
        TargetAction::ConfirmPoints { through, .. } => format!("confirm {through}"),
        TargetAction::RetractPoints(it) => format!("retract {} to {}", it.after, it.through),
        TargetAction::Hash(request) => format!("hash {}", request.first_block),
        TargetAction::HashLeaves(request) => format!("hash leaves of {:?}", request.blocks),
        TargetAction::CloseDisk { forget, .. } => format!("close {forget:?}"),
        TargetAction::StopStream { stream, .. } => format!("stop {}", stream.0),
        TargetAction::Close { code, .. } => format!("CLOSE {code}"),
    };
    actions.iter().map(name).collect()
}

/// A short name for what the source heard.
pub(super) fn heard(events: &[SourceEvent]) -> Vec<String> {
    let name = |event: &SourceEvent| match event {
        SourceEvent::Durable { epoch, .. } => format!("durable {epoch}"),
        SourceEvent::Failed(failed) => format!("failed {}", failed.epoch),
        other => format!("{other:?}"),
    };
    events.iter().map(name).collect()
}

pub(super) fn len_of(frame: &CheckedFrame) -> ByteLen {
    ByteLen(frame.bytes().len() as u64)
}
