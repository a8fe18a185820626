//! Measures what the store takes in: `cargo run --release -p replica --example ingest -- DIR [MiB]`.
//!
//! First an initial synchronisation of a mixture (40 % zeroes, 35 % compressible, 25 % not), then
//! deltas of one block, each committed before the next. DIR must not exist; it is removed.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use blocks::{ChunkSize, DiskId, Epoch, EpochKind, Generation, Geometry, MachineId, Sector};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use replica::{Disk, DiskSpec, Store};
use wire::{
    CheckedFrame, Codec, Content, DataKey, EpochLink, EpochSummary, FrameExtent, FrameSpec, Sealer,
    Sequence,
};

const MIB: usize = 1 << 20;
const SECTORS_PER_MIB: u32 = 2048;
const EPOCH_MIB: u64 = 256;
const DELTAS: u64 = 500;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().context("a directory that does not exist is needed")?;
    let mebibytes: u64 = arguments.next().as_deref().unwrap_or("2048").parse()?;
    let dir = Path::new(&dir);
    ensure!(!dir.exists(), "{} exists", dir.display());
    Store::init(dir)?;
    let result = measure(dir, mebibytes);
    std::fs::remove_dir_all(dir)?;
    result
}

fn measure(dir: &Path, mebibytes: u64) -> Result<()> {
    let store = Store::open(dir)?;
    let spec = DiskSpec {
        id: DiskId([1; 16]),
        generation: Generation([2; 16]),
        geometry: Geometry::new(mebibytes * u64::from(SECTORS_PER_MIB), 512, ChunkSize::DEFAULT)?,
        name: "ingest".to_owned(),
        machine: MachineId([3; 16]),
        key: DataKey::generate()?,
    };
    let disk = store.open_disk(&spec)?;
    let sealer = Sealer::new(&spec.key, spec.id, spec.generation)?;

    let mut taken = Duration::ZERO;
    let mut epoch = 0;
    let cpu_before = cpu_time()?;
    let mut cpu_of_sealing = Duration::ZERO;
    for first in (0..mebibytes).step_by(usize::try_from(EPOCH_MIB)?) {
        epoch += 1;
        let sealing = cpu_time()?;
        let count = EPOCH_MIB.min(mebibytes - first);
        let link = link(EpochKind::Seed, epoch);
        let frames = seal(&sealer, link, first..first + count, first + count == mebibytes)?;
        cpu_of_sealing += cpu_time()? - sealing;
        let begun = Instant::now();
        commit(&disk, link, frames)?;
        taken += begun.elapsed();
    }
    let cpu = cpu_time()? - cpu_before - cpu_of_sealing;
    let bytes = mebibytes as f64 * f64::from(1 << 20);
    println!(
        "seed: {mebibytes} MiB in {taken:.2?}, {:.2} GiB/s, {:.2} ns of CPU a byte",
        bytes / f64::from(1 << 30) / taken.as_secs_f64(),
        cpu.as_nanos() as f64 / bytes,
    );
    deltas(&disk, &sealer, epoch)
}

fn deltas(disk: &Disk, sealer: &Sealer, last_seed: u64) -> Result<()> {
    let mut times = Vec::new();
    for epoch in last_seed + 1..=last_seed + DELTAS {
        let link = link(EpochKind::Delta, epoch);
        let extents =
            [FrameExtent { start: Sector(epoch * 8 % 10_000), sectors: 8, content: Content::Data }];
        let frame = FrameSpec { link, sequence: Sequence(0), codec: Codec::Raw, extents: &extents };
        let frame = CheckedFrame::parse(sealer.seal(&frame, &[7; 4096])?)?;
        let summary = EpochSummary { frames: 1, data_bytes: 4096, zero_bytes: 0, completes: true };
        let end = CheckedFrame::parse(sealer.seal_end(link, Sequence(1), &summary)?)?;
        let begun = Instant::now();
        commit(disk, link, vec![frame, end])?;
        times.push(begun.elapsed());
        disk.fold_one()?;
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("delta of 4 KiB: {:.2?} median, {:.2?} at 99 %, to durable", at(50), at(99));
    Ok(())
}

fn link(kind: EpochKind, epoch: u64) -> EpochLink {
    EpochLink { kind, epoch: Epoch(epoch), follows: Epoch(epoch - 1) }
}

fn commit(disk: &Disk, link: EpochLink, frames: Vec<CheckedFrame>) -> Result<()> {
    let mut incoming = disk.begin(link)?;
    for frame in frames {
        incoming.append(frame)?;
    }
    incoming.commit()?;
    Ok(())
}

/// The frames of these mebibytes of the disk, and the end.
fn seal(
    sealer: &Sealer,
    link: EpochLink,
    range: std::ops::Range<u64>,
    completes: bool,
) -> Result<Vec<CheckedFrame>> {
    let mut summary = EpochSummary { completes, ..EpochSummary::default() };
    let mut frames = Vec::new();
    for at in range {
        let data = content(at);
        let content = if data.is_empty() { Content::Zeroes } else { Content::Data };
        let start = Sector(at * u64::from(SECTORS_PER_MIB));
        let extents = [FrameExtent { start, sectors: SECTORS_PER_MIB, content }];
        let coded = zstd::bulk::compress(&data, 1)?;
        let (codec, payload) = match coded.len() < data.len() {
            true => (Codec::Zstd, &coded),
            false => (Codec::Raw, &data),
        };
        let frame = FrameSpec { link, sequence: Sequence(at), codec, extents: &extents };
        let frame = CheckedFrame::parse(sealer.seal(&frame, payload)?)?;
        summary.frames += 1;
        summary.data_bytes += data.len() as u64;
        summary.zero_bytes += frame.zero_bytes();
        frames.push(frame);
    }
    let end = sealer.seal_end(link, Sequence(u64::MAX), &summary)?;
    frames.push(CheckedFrame::parse(end)?);
    Ok(frames)
}

/// The content of a mebibyte; nothing for zeroes.
fn content(at: u64) -> Vec<u8> {
    let mut bytes = vec![0; MIB];
    blake3::Hasher::new().update(&at.to_le_bytes()).finalize_xof().fill(&mut bytes);
    match at % 20 {
        0..8 => Vec::new(),
        // Words of a small vocabulary.
        8..15 => {
            let words = bytes.iter().take(MIB / 8).map(|byte| {
                let word = u64::from(byte % 97).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
                word.to_le_bytes()
            });
            words.flatten().collect()
        }
        _ => bytes,
    }
}

/// Processor time of this process so far.
fn cpu_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}
