//! Frames as somebody seals them who has the key: an enrolled machine that was taken over.

use blocks::{
    ChunkSize, Consistency, CutMethod, CutTime, DiskId, Epoch, EpochKind, Generation, Geometry,
    MonotonicNs, PointId, PointRecord, Sector,
};
use wire::{
    CheckedFrame, Codec, Content, DataKey, EpochEnd, EpochLink, EpochSummary, FrameExtent,
    FrameSpec, Sealer, Sequence,
};

use crate::input::Input;

pub(crate) const DISK: DiskId = DiskId([0xd1; 16]);
pub(crate) const GENERATION: Generation = Generation([0x9e; 16]);
/// Five chunks and a bit.
pub(crate) const SECTORS: u64 = 8 * 5 + 3;

pub(crate) fn key() -> DataKey {
    DataKey::from_bytes([0x77; 32])
}

pub(crate) fn geometry() -> Geometry {
    Geometry::new(SECTORS, 512, ChunkSize::DEFAULT).expect("a small disk")
}

pub(crate) fn sealer(disk: DiskId) -> Sealer {
    Sealer::new(&key(), disk, GENERATION).expect("the system has random bytes")
}

/// A content frame with whatever the input says; nothing if it can't be sealed so.
pub(crate) fn content(input: &mut Input, sealer: &Sealer, link: EpochLink) -> Option<CheckedFrame> {
    let extents = extents(input);
    let plain: usize = extents
        .iter()
        .filter(|extent| extent.content == Content::Data)
        .fold(0usize, |sum, extent| sum.saturating_add(extent.sectors as usize * 512));
    if plain > 1 << 20 {
        return None;
    }
    let (codec, payload) = match input.below(4) {
        0 | 1 => (Codec::Raw, vec![input.pick(b"ab"); plain]),
        2 => {
            // More or less than is said, now and then.
            let len = if input.once_in(3) { input.index(1 << 14) } else { plain };
            let coded = zstd::bulk::compress(&vec![7; len], 1).expect("memory to compress");
            (Codec::Zstd, coded)
        }
        _ => (Codec::Zstd, input.bytes(64).to_vec()),
    };
    let sequence = Sequence(input.number(8));
    let spec = FrameSpec { link, sequence, codec, extents: &extents };
    let bytes = sealer.seal(&spec, &payload).ok()?;
    Some(CheckedFrame::parse(bytes).expect("what was sealed is a frame"))
}

fn extents(input: &mut Input) -> Vec<FrameExtent> {
    let mut extents = Vec::new();
    let mut at = 0;
    for _ in 0..1 + input.below(4) {
        let start = at + input.below(12);
        let sectors = 1 + u32::try_from(input.below(12)).expect("less than 12");
        let content = if input.once_in(4) { Content::Zeroes } else { Content::Data };
        extents.push(FrameExtent { start: Sector(start), sectors, content });
        at = start + u64::from(sectors);
    }
    if input.once_in(16) {
        let start = Sector(input.number(SECTORS));
        extents.push(FrameExtent { start, sectors: 1, content: Content::Zeroes });
    }
    extents
}

/// The end frame of an epoch whose content frames are `sent`; it may say otherwise.
pub(crate) fn end(
    input: &mut Input,
    sealer: &Sealer,
    link: EpochLink,
    sent: &[CheckedFrame],
) -> Option<CheckedFrame> {
    let data = |frame: &CheckedFrame| u64::from(frame.header().plain_len);
    let mut summary = EpochSummary {
        frames: sent.len() as u64,
        data_bytes: sent.iter().map(data).sum(),
        zero_bytes: sent.iter().map(CheckedFrame::zero_bytes).sum(),
        completes: !input.once_in(4),
    };
    match input.below(12) {
        0 => summary.frames = input.number(4),
        1 => summary.data_bytes = input.number(4096),
        2 => summary.zero_bytes = input.number(4096),
        _ => {}
    }
    let point = input.once_in(3).then(|| point(input));
    let sequence = Sequence(if input.once_in(8) { input.number(16) } else { 1 << 40 });
    let bytes = sealer.seal_end(link, sequence, EpochEnd { summary, point }).ok()?;
    Some(CheckedFrame::parse(bytes).expect("what was sealed is a frame"))
}

pub(crate) fn point(input: &mut Input) -> PointRecord {
    PointRecord {
        id: PointId([u8::try_from(input.below(8)).expect("less than 8"); 16]),
        cut: CutTime { unix_ns: input.number(1 << 40), monotonic: MonotonicNs(input.number(9)) },
        consistency: Consistency::Crash,
        method: CutMethod::Verified,
        disks: 1,
        attempts: 1,
        window: std::time::Duration::from_nanos(input.number(1000)),
        freeze: std::time::Duration::ZERO,
    }
}

/// A link to an epoch, most likely one that is next.
pub(crate) fn link(input: &mut Input, durable: Epoch) -> EpochLink {
    let kind = input.pick(&[EpochKind::Delta, EpochKind::Seed, EpochKind::Compare]);
    let follows = Epoch(if input.once_in(6) { input.number(8) } else { durable.0 });
    let epoch = Epoch(if input.once_in(6) {
        input.number(12)
    } else {
        follows.0.saturating_add(1 + input.below(2))
    });
    EpochLink { kind, epoch, follows }
}
