//! A source to test with: seals epochs, and knows what the replica must hold after each.

use std::time::Duration;

use blocks::{
    ChunkSize, Consistency, CutMethod, CutTime, DiskId, Epoch, EpochKind, Generation, Geometry,
    MachineId, MonotonicNs, PointId, PointRecord, SECTOR_SIZE, Sector,
};
use wire::{
    CheckedFrame, Codec, Content, DataKey, EpochEnd, EpochLink, EpochSummary, FrameExtent,
    FrameSpec, Sealer, Sequence,
};

use crate::{Disk, DiskSpec, Incoming, IncomingError, View};

/// Two and a half compare blocks, and a short last chunk.
pub(super) const SECTORS: u64 = 2 * 128 + 61;
pub(super) const DISK_LEN: usize = (2 * 128 + 61) * 512;

pub(super) fn spec() -> DiskSpec {
    DiskSpec {
        id: DiskId([0xd1; 16]),
        generation: Generation([0x9e; 16]),
        geometry: Geometry::new(SECTORS, 512, ChunkSize::DEFAULT).unwrap(),
        name: "disk under test".to_owned(),
        machine: MachineId([0x3a; 16]),
        key: DataKey::from_bytes([0x77; 32]),
    }
}

/// A part of an epoch: sectors, and what they are filled with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) sectors: u32,
    pub(super) fill: Fill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    Zero,
    /// The same byte over and over, sent compressed.
    Same(u8),
    /// No two sectors alike, sent raw.
    Noise(u8),
}

/// An epoch to be sealed. Each piece becomes a frame of its own, but zeroes go into the frame of
/// the piece before them.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) link: EpochLink,
    pub(super) pieces: Vec<Piece>,
    pub(super) completes: bool,
    pub(super) point: Option<PointRecord>,
}

pub(super) fn plan(kind: EpochKind, epoch: u64, completes: bool, pieces: &[Piece]) -> Plan {
    let link = EpochLink { kind, epoch: Epoch(epoch), follows: Epoch(epoch - 1) };
    Plan { link, pieces: pieces.to_vec(), completes, point: None }
}

/// A delta that makes a point of one disk.
pub(super) fn point_plan(epoch: u64, pieces: &[Piece]) -> Plan {
    Plan { point: Some(point(epoch, 1)), ..plan(EpochKind::Delta, epoch, true, pieces) }
}

/// A point with the number of its epoch.
pub(crate) fn point(number: u64, disks: u16) -> PointRecord {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    PointRecord {
        id: PointId(id),
        cut: CutTime { unix_ns: number * 1_000_000_000, monotonic: MonotonicNs(number) },
        consistency: Consistency::Crash,
        method: CutMethod::Verified,
        disks,
        attempts: 1,
        window: Duration::from_micros(150),
        freeze: Duration::ZERO,
    }
}

pub(super) fn piece(start: u64, sectors: u32, fill: Fill) -> Piece {
    Piece { start, sectors, fill }
}

impl Piece {
    fn bytes(&self) -> Vec<u8> {
        let len = self.sectors as usize * 512;
        match self.fill {
            Fill::Zero => vec![0; len],
            Fill::Same(byte) => vec![byte; len],
            Fill::Noise(seed) => {
                let mut bytes = vec![0; len];
                blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
                bytes
            }
        }
    }

    fn extent(&self) -> FrameExtent {
        let content = if self.fill == Fill::Zero { Content::Zeroes } else { Content::Data };
        FrameExtent { start: Sector(self.start), sectors: self.sectors, content }
    }
}

impl Plan {
    /// Changes `content` as the epoch changes the disk.
    pub(super) fn apply(&self, content: &mut [u8]) {
        for piece in &self.pieces {
            let start = usize::try_from(piece.start * SECTOR_SIZE).unwrap();
            let bytes = piece.bytes();
            content[start..start + bytes.len()].copy_from_slice(&bytes);
        }
    }

    /// The frames of the epoch, its end last.
    pub(super) fn frames(&self) -> Vec<CheckedFrame> {
        self.frames_of(&spec())
    }

    pub(super) fn frames_of(&self, spec: &DiskSpec) -> Vec<CheckedFrame> {
        let sealer = Sealer::new(&spec.key, spec.id, spec.generation).unwrap();
        let mut groups: Vec<Vec<Piece>> = Vec::new();
        for piece in &self.pieces {
            match groups.last_mut() {
                Some(group) if piece.fill == Fill::Zero => group.push(*piece),
                _ => groups.push(vec![*piece]),
            }
        }
        let mut summary = EpochSummary { completes: self.completes, ..EpochSummary::default() };
        let mut frames = Vec::new();
        for (sequence, group) in (0..).step_by(3).zip(&groups) {
            frames.push(self.seal(&sealer, Sequence(sequence), group));
            summary.frames += 1;
            summary.data_bytes += u64::from(frames.last().unwrap().header().plain_len);
            summary.zero_bytes += frames.last().unwrap().zero_bytes();
        }
        let end = EpochEnd { summary, point: self.point };
        let end = sealer.seal_end(self.link, Sequence(1 << 40), end).unwrap();
        frames.push(CheckedFrame::parse(end).unwrap());
        frames
    }

    fn seal(&self, sealer: &Sealer, sequence: Sequence, group: &[Piece]) -> CheckedFrame {
        let extents: Vec<FrameExtent> = group.iter().map(Piece::extent).collect();
        let data: Vec<u8> =
            group.iter().filter(|p| p.fill != Fill::Zero).flat_map(Piece::bytes).collect();
        let compressed = matches!(group[0].fill, Fill::Same(_));
        let (codec, payload) = if compressed {
            (Codec::Zstd, zstd::bulk::compress(&data, 1).unwrap())
        } else {
            (Codec::Raw, data)
        };
        let spec = FrameSpec { link: self.link, sequence, codec, extents: &extents };
        CheckedFrame::parse(sealer.seal(&spec, &payload).unwrap()).unwrap()
    }
}

/// Gives all frames of an epoch to `incoming`.
pub(super) fn append_all(incoming: &mut Incoming, plan: &Plan) -> Result<(), IncomingError> {
    plan.frames().into_iter().try_for_each(|frame| incoming.append(frame))
}

/// Sends an epoch and commits it.
pub(super) fn send(disk: &Disk, plan: &Plan) {
    let mut incoming = disk.begin(plan.link).unwrap();
    append_all(&mut incoming, plan).unwrap();
    assert_eq!(incoming.commit().unwrap().state.last_durable, plan.link.epoch);
}

/// The content of a disk after its newest durable epoch.
pub(super) fn newest(disk: &Disk) -> Vec<u8> {
    let mut content = vec![0; DISK_LEN];
    let layers = disk.shared.layers_at(disk.state().last_durable, 1 << 20).unwrap();
    disk.shared.read_newest(&layers, Sector(0), &mut content).unwrap();
    content
}

/// The content of a view.
pub(super) fn read_view(view: &View) -> Vec<u8> {
    let mut content = vec![0; DISK_LEN];
    view.read_at(0, &mut content).unwrap();
    content
}

/// The link of the first epoch of a disk.
pub(super) fn link_of_first(kind: EpochKind) -> EpochLink {
    EpochLink { kind, epoch: Epoch(1), follows: Epoch::NONE }
}

/// An authentic seed frame of 10 sectors whose compressed data holds `holds` of them.
pub(super) fn mislabelled(holds: usize) -> CheckedFrame {
    let spec = spec();
    let sealer = Sealer::new(&spec.key, spec.id, spec.generation).unwrap();
    let extents = [FrameExtent { start: Sector(0), sectors: 10, content: Content::Data }];
    let payload = zstd::bulk::compress(&vec![7; holds * 512], 1).unwrap();
    let (link, sequence, codec) = (link_of_first(EpochKind::Seed), Sequence(0), Codec::Zstd);
    let frame = FrameSpec { link, sequence, codec, extents: &extents };
    CheckedFrame::parse(sealer.seal(&frame, &payload).unwrap()).unwrap()
}
