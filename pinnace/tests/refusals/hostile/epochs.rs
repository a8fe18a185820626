//! Well-formed epochs that are not what they say: they fail, and the disk is good for the next.

use anyhow::{Result, ensure};
use blocks::{
    Consistency, CutMethod, CutTime, EpochKind, MonotonicNs, PointId, PointRecord, Sector,
};
use wire::{Codec, Content, EpochEnd, EpochLink, FrameExtent, FrameSpec, Reason, Sealer, Sequence};

use super::attacker::{Attacker, coded, end, epoch, frame, summary};
use super::frames::forger;
use super::{attack, withstands};

/// An epoch for a disk that holds the first one, and why it fails.
struct Lie {
    name: &'static str,
    kind: EpochKind,
    tell: fn(&Sealer, EpochLink) -> Result<Vec<u8>>,
    reason: Reason,
}

const fn lie(
    name: &'static str,
    kind: EpochKind,
    tell: fn(&Sealer, EpochLink) -> Result<Vec<u8>>,
    reason: Reason,
) -> Lie {
    Lie { name, kind, tell, reason }
}

use EpochKind::{Compare, Delta};
use Reason::{EpochOutOfOrder, NotAuthentic, ProtocolViolation};

static LIES: [Lie; 11] = [
    lie("too many frames in the sum", Delta, |s, l| ends(s, l, (7, 4096)), ProtocolViolation),
    lie("too few bytes in the sum", Delta, |s, l| ends(s, l, (1, 512)), ProtocolViolation),
    lie("2^64 bytes in the sum", Delta, |s, l| ends(s, l, (1, u64::MAX)), ProtocolViolation),
    lie("a bomb", Compare, |s, l| holds(s, l, 2048, &zstd_bomb()), ProtocolViolation),
    lie("too little inside", Compare, |s, l| holds(s, l, 8, &zeroes(4095)), ProtocolViolation),
    lie("too much inside", Compare, |s, l| holds(s, l, 8, &zeroes(4097)), ProtocolViolation),
    lie("noise inside", Compare, |s, l| holds(s, l, 8, &[0xa5; 900]), ProtocolViolation),
    lie("a delta that is not all", Delta, not_all, EpochOutOfOrder),
    lie("a point of nothing", Compare, point_of_a_part, ProtocolViolation),
    lie("a point of no disks", Compare, |s, l| ends_in(s, l, 0), NotAuthentic),
    lie("an end of zeroes", Delta, |s, l| ends(s, l, (0, 0)), ProtocolViolation),
];

/// One frame, and an end that counts something else.
fn ends(sealer: &Sealer, link: EpochLink, counts: (u64, u64)) -> Result<Vec<u8>> {
    let frame = frame(sealer, link, 0, (0, 8))?;
    let end = sealer.seal_end(link, Sequence(99), &summary(counts.0, counts.1))?;
    Ok([&frame[..], &end].concat())
}

/// One frame of this coded data, and an end that agrees.
fn holds(sealer: &Sealer, link: EpochLink, sectors: u32, payload: &[u8]) -> Result<Vec<u8>> {
    let frame = coded(sealer, link, (Codec::Zstd, payload), (0, 0, sectors))?;
    Ok([frame, end(sealer, link, (1, u64::from(sectors) * 512))?].concat())
}

fn not_all(sealer: &Sealer, link: EpochLink) -> Result<Vec<u8>> {
    let frame = frame(sealer, link, 0, (0, 8))?;
    let part = wire::EpochSummary { completes: false, ..summary(1, 4096) };
    Ok([&frame[..], &sealer.seal_end(link, Sequence(1), &part)?].concat())
}

fn point_of_a_part(sealer: &Sealer, link: EpochLink) -> Result<Vec<u8>> {
    let extents = [FrameExtent { start: Sector(0), sectors: 8, content: Content::Zeroes }];
    let spec = FrameSpec { link, sequence: Sequence(0), codec: Codec::Raw, extents: &extents };
    let part = wire::EpochSummary { frames: 1, data_bytes: 0, zero_bytes: 4096, completes: false };
    let end =
        sealer.seal_end(link, Sequence(1), EpochEnd { summary: part, point: Some(point(1)) })?;
    Ok([&sealer.seal(&spec, &[])?[..], &end].concat())
}

/// An end with a point of so many disks, which only a forger can make.
fn ends_in(sealer: &Sealer, link: EpochLink, disks: u16) -> Result<Vec<u8>> {
    let end = EpochEnd { summary: summary(0, 0), point: Some(point(disks)) };
    Ok(sealer.seal_end(link, Sequence(1), end)?.to_vec())
}

fn point(disks: u16) -> PointRecord {
    PointRecord {
        id: PointId([6; 16]),
        cut: CutTime { unix_ns: 1, monotonic: MonotonicNs(1) },
        consistency: Consistency::Crash,
        method: CutMethod::Verified,
        disks,
        attempts: 1,
        window: std::time::Duration::ZERO,
        freeze: std::time::Duration::ZERO,
    }
}

impl Lie {
    fn fails(&self, attacker: &mut Attacker<'_>) -> Result<()> {
        let mut hold = attacker.foothold()?;
        hold.begin(1)?;
        let first = epoch(&hold.sealer, 1)?;
        hold.succeeds(&first)?;
        let link = hold.begin_as(2, self.kind)?;
        let code = hold.fails(&(self.tell)(&hold.sealer, link)?)?;
        ensure!(code == self.reason, "failed with {code} instead of {:?}", self.reason);
        // The disk is still good.
        let link = hold.begin_as(3, EpochKind::Delta)?;
        let bytes = ends(&hold.sealer, link, (1, 4096))?;
        hold.succeeds(&bytes)
    }
}

#[test]
fn what_is_not_what_it_says_fails_its_epoch_and_no_more() -> Result<()> {
    let told = |lie: &'static Lie| attack(lie.name, |attacker| lie.fails(attacker));
    let forged = attack("a forger's epoch", |attacker| {
        let mut hold = attacker.foothold()?;
        hold.begin(1)?;
        let bytes = epoch(&forger(hold.disk)?, 1)?;
        let code = hold.fails(&bytes)?;
        ensure!(code == NotAuthentic, "{code}");
        Ok(())
    });
    let early = attack("a delta for an empty replica", |attacker| {
        let mut hold = attacker.foothold()?;
        let link = hold.begin_as(1, EpochKind::Delta)?;
        let bytes = ends(&hold.sealer, link, (1, 4096))?;
        let code = hold.fails(&bytes)?;
        ensure!(code == EpochOutOfOrder, "{code}");
        Ok(())
    });
    withstands(|_| LIES.iter().map(told).chain([forged, early]).collect())
}

fn zeroes(len: usize) -> Vec<u8> {
    raw_zstd(&[(len, true)])
}

/// 256 MiB of zeroes in blocks of one byte repeated.
fn zstd_bomb() -> Vec<u8> {
    let blocks = (256 << 20) / (128 << 10);
    let run: Vec<_> = (1..=blocks).map(|block| (128 << 10, block == blocks)).collect();
    raw_zstd(&run)
}

/// A zstd frame of run-length blocks, each of so many zeroes, the last one marked.
fn raw_zstd(blocks: &[(usize, bool)]) -> Vec<u8> {
    // Magic, a frame header of a window of 2 MiB, no content size.
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    for (len, last) in blocks {
        // Block header: last, type 1 (one byte repeated), size.
        let len = u32::try_from(*len).expect("a block of zstd");
        let header: u32 = len << 3 | 1 << 1 | u32::from(*last);
        bytes.extend_from_slice(&header.to_le_bytes()[..3]);
        bytes.push(0);
    }
    bytes
}
