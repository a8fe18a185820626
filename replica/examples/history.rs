//! Measures history: `cargo run --release -p replica --example history -- DIR`.
//!
//! A disk of 16 GiB, sparse, with 1,000 deltas of scattered blocks on it, of which each tenth makes
//! a point: how long the newest point takes to open and to serve its first byte. Then a mebibyte at
//! a time in order: the base, a view that comes from the base, one of which a quarter comes from the
//! scattered deltas, and one that comes from a large delta. Then how fast large deltas become durable, beside the same bytes written to one file and
//! synced. DIR must not exist; it is removed.

use std::{
    fs::File,
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use blocks::{
    ChunkSize, Consistency, CutMethod, CutTime, DiskId, Epoch, EpochKind, Generation, Geometry,
    MachineId, MonotonicNs, PointId, PointRecord, Sector,
};
use nix::{
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    sys::resource::{Resource, getrlimit, setrlimit},
};
use replica::{Disk, DiskSpec, Store, View};
use wire::{
    CheckedFrame, Codec, Content, DataKey, EpochEnd, EpochLink, EpochSummary, FrameExtent,
    FrameSpec, Sealer, Sequence,
};

const MIB: usize = 1 << 20;
const DISK_MIB: u64 = 16 << 10;
const SECTORS_PER_MIB: u64 = 2048;
/// What the base holds of the disk, and what is read in order.
const WRITTEN_MIB: u64 = 512;
const DELTAS: u64 = 1000;
/// Blocks of 4 KiB in each of the deltas, scattered over the whole disk.
const BLOCKS: u64 = 1000;
/// Large deltas, and what each holds.
const LARGE: u64 = 6;
const LARGE_MIB: u64 = 128;

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).context("a directory that does not exist is needed")?;
    let dir = Path::new(&dir);
    ensure!(!dir.exists(), "{} exists", dir.display());
    // A view has a descriptor for each delta.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Store::init(dir)?;
    let result = measure(dir);
    std::fs::remove_dir_all(dir)?;
    result
}

/// A disk, and what its epochs are sealed with.
struct Bench {
    disk: Disk,
    sealer: Sealer,
    epoch: u64,
}

fn measure(dir: &Path) -> Result<()> {
    let store = Store::open(dir)?;
    let spec = DiskSpec {
        id: DiskId([1; 16]),
        generation: Generation([2; 16]),
        geometry: Geometry::new(DISK_MIB * SECTORS_PER_MIB, 512, ChunkSize::DEFAULT)?,
        name: "history".to_owned(),
        machine: MachineId([3; 16]),
        key: DataKey::generate()?,
    };
    let disk = store.open_disk(&spec)?;
    let sealer = Sealer::new(&spec.key, spec.id, spec.generation)?;
    let mut bench = Bench { disk, sealer, epoch: 0 };
    bench.commit(EpochKind::Seed, true, &frames_of(0..WRITTEN_MIB))?;
    for n in 1..=DELTAS {
        bench.commit(EpochKind::Delta, n % 10 == 0, &scattered(n))?;
    }
    opening(&bench)?;
    reading(&mut bench, dir)?;
    ingest(&mut bench, dir)
}

fn opening(bench: &Bench) -> Result<()> {
    let newest = Epoch(bench.epoch);
    let mut times = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let view = bench.disk.history().view(newest)?;
        view.read_at(0, &mut [0; 512])?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!(
        "opening a point with {DELTAS} deltas of {BLOCKS} blocks: {:.0?} to its first byte",
        times[2]
    );
    Ok(())
}

fn reading(bench: &mut Bench, dir: &Path) -> Result<()> {
    let base = File::open(bench.disk.base_path())?;
    let raw = Rates::of(dir, |offset, bytes| Ok(base.read_exact_at(bytes, offset)?))?;
    let of_view = |view: &View| Rates::of(dir, |offset, bytes| Ok(view.read_at(offset, bytes)?));
    let oldest = bench.disk.history().points()[0].epoch;
    let through_base = of_view(&bench.disk.history().view(oldest)?)?;
    let scattered = of_view(&bench.disk.history().view(Epoch(bench.epoch))?)?;
    bench.commit(EpochKind::Delta, true, &frames_of(0..WRITTEN_MIB))?;
    let from_delta = of_view(&bench.disk.history().view(Epoch(bench.epoch))?)?;
    println!("reading in order, from the medium and from the page cache:");
    raw.tell("the raw base", &raw);
    through_base.tell("a view of the base", &raw);
    scattered.tell("a view of base and all deltas", &raw);
    from_delta.tell("a view of one large delta", &raw);
    Ok(())
}

/// GiB a second of what is written of the disk.
struct Rates {
    cold: f64,
    warm: f64,
}

impl Rates {
    fn of(dir: &Path, mut read: impl FnMut(u64, &mut [u8]) -> Result<()>) -> Result<Self> {
        let mut bytes = vec![0; MIB];
        let mut rate = || -> Result<f64> {
            let begun = Instant::now();
            (0..WRITTEN_MIB).try_for_each(|at| read(at * MIB as u64, &mut bytes))?;
            Ok(WRITTEN_MIB as f64 / 1024.0 / begun.elapsed().as_secs_f64())
        };
        forget(dir)?;
        Ok(Self { cold: rate()?, warm: rate()? })
    }

    fn tell(&self, what: &str, raw: &Self) {
        let (cold, warm) = (self.cold / raw.cold, self.warm / raw.warm);
        println!(
            "  {what}: {:.2} GiB/s ({cold:.2}), {:.2} GiB/s ({warm:.2})",
            self.cold, self.warm
        );
    }
}

/// Drops what the page cache holds of all files under `dir`.
fn forget(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget(&entry.path())?;
        } else {
            let file = File::open(entry.path())?;
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        }
    }
    Ok(())
}

fn ingest(bench: &mut Bench, dir: &Path) -> Result<()> {
    let (mut store, mut plain, mut sealed_bytes) = (Duration::ZERO, Duration::ZERO, 0);
    let path = dir.join("plain");
    for n in 0..LARGE {
        let frames =
            bench.seal(EpochKind::Delta, true, &frames_of(n * 100..n * 100 + LARGE_MIB))?;
        sealed_bytes += frames.iter().map(|frame| frame.bytes().len()).sum::<usize>();
        let mut file = File::create(&path)?;
        let begun = Instant::now();
        frames.iter().try_for_each(|frame| file.write_all(frame.bytes()))?;
        file.sync_all()?;
        plain += begun.elapsed();
        std::fs::remove_file(&path)?;
        let begun = Instant::now();
        let mut incoming = bench.disk.begin(bench.link(EpochKind::Delta))?;
        frames.into_iter().try_for_each(|frame| incoming.append(frame))?;
        incoming.commit()?;
        store += begun.elapsed();
    }
    let rate = |taken: Duration| sealed_bytes as f64 / f64::from(1 << 30) / taken.as_secs_f64();
    let (store, plain) = (rate(store), rate(plain));
    println!(
        "deltas of {LARGE_MIB} MiB to durable: {store:.2} GiB/s; the same bytes written and synced: \
         {plain:.2} GiB/s ({:.2})",
        store / plain
    );
    Ok(())
}

impl Bench {
    fn link(&self, kind: EpochKind) -> EpochLink {
        EpochLink { kind, epoch: Epoch(self.epoch), follows: Epoch(self.epoch - 1) }
    }

    /// Seals the next epoch.
    fn seal(
        &mut self,
        kind: EpochKind,
        is_point: bool,
        content: &[(Vec<FrameExtent>, Vec<u8>)],
    ) -> Result<Vec<CheckedFrame>> {
        self.epoch += 1;
        let link = self.link(kind);
        let mut summary = EpochSummary { completes: true, ..EpochSummary::default() };
        let mut frames = Vec::new();
        for (sequence, (extents, data)) in (0..).map(Sequence).zip(content) {
            let spec = FrameSpec { link, sequence, codec: Codec::Raw, extents };
            frames.push(CheckedFrame::parse(self.sealer.seal(&spec, data)?)?);
            summary.frames += 1;
            summary.data_bytes += data.len() as u64;
        }
        let end = EpochEnd { summary, point: is_point.then(|| point(self.epoch)) };
        let end = self.sealer.seal_end(link, Sequence(u64::MAX), end)?;
        frames.push(CheckedFrame::parse(end)?);
        Ok(frames)
    }

    fn commit(
        &mut self,
        kind: EpochKind,
        is_point: bool,
        content: &[(Vec<FrameExtent>, Vec<u8>)],
    ) -> Result<()> {
        let frames = self.seal(kind, is_point, content)?;
        let mut incoming = self.disk.begin(self.link(kind))?;
        frames.into_iter().try_for_each(|frame| incoming.append(frame))?;
        incoming.commit()?;
        Ok(())
    }
}

/// Whole mebibytes that don't compress.
fn frames_of(mebibytes: std::ops::Range<u64>) -> Vec<(Vec<FrameExtent>, Vec<u8>)> {
    let frame = |at: u64| {
        let mut data = vec![0; MIB];
        blake3::Hasher::new().update(&at.to_le_bytes()).finalize_xof().fill(&mut data);
        let start = Sector(at * SECTORS_PER_MIB);
        (vec![FrameExtent { start, sectors: 2048, content: Content::Data }], data)
    };
    mebibytes.map(frame).collect()
}

/// Blocks of 4 KiB all over the disk, in frames of 1 MiB, as a busy machine leaves them.
fn scattered(seed: u64) -> Vec<(Vec<FrameExtent>, Vec<u8>)> {
    let blocks = DISK_MIB * SECTORS_PER_MIB / 8;
    let block = |n: u64| {
        let hash = blake3::hash(&(seed * BLOCKS + n).to_le_bytes());
        u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash is longer")) % blocks
    };
    let places: std::collections::BTreeSet<u64> = (0..BLOCKS).map(block).collect();
    let places: Vec<u64> = places.into_iter().collect();
    let frame = |places: &[u64]| {
        let extent = |place: &u64| FrameExtent {
            start: Sector(place * 8),
            sectors: 8,
            content: Content::Data,
        };
        (places.iter().map(extent).collect(), vec![7; places.len() * 4096])
    };
    places.chunks(256).map(frame).collect()
}

fn point(number: u64) -> PointRecord {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    PointRecord {
        id: PointId(id),
        cut: CutTime { unix_ns: number, monotonic: MonotonicNs(number) },
        consistency: Consistency::Crash,
        method: CutMethod::Verified,
        disks: 1,
        attempts: 1,
        window: Duration::ZERO,
        freeze: Duration::ZERO,
    }
}
