//! Writers at full speed on a small disk against a harvest that keeps a copy of it.
//!
//! After each round the writers stop, the rest is harvested, and the copy is compared with the
//! disk. A chunk that differs was lost: no mark will ever bring it. Rounds are short, because a
//! lost chunk is found only if nobody writes it again.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, OpenOptionsExt},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::tracked::Tracked;
use anyhow::{Context, Result};
use blocks::{Bitmap, ByteLen, ChunkSize, Geometry};
use memmap2::MmapMut;
use vm_tests::{
    After, BlockDevice, Image, Load, Method, Rig, Target, WriteLog, Writer, WriterReport,
};

const WRITERS: u32 = 4;
const ROUND: Duration = Duration::from_millis(15);
/// More than a round's writers can do.
const LOG_CAPACITY: usize = 200_000;

/// Where a harvest takes marks from.
pub trait Marks {
    /// Takes the marks: the chunks that were marked until now and are no longer.
    fn take(&mut self) -> Result<Bitmap>;
}

impl Marks for Tracked {
    fn take(&mut self) -> Result<Bitmap> {
        Ok(Self::take(self))
    }
}

/// What a harvest does with a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Right: a write after the read marks its chunk again.
    ClearThenRead,
    /// Wrong: it clears the marks of writes that came after the read.
    ReadThenClear,
}

/// What came of a race.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Writes done.
    pub writes: u64,
    /// Chunks read after they were marked.
    pub harvested: u64,
    /// Chunks of the copy that are not what the disk holds: lost writes.
    pub stale: u64,
}

/// Races for so long.
pub fn race(
    rig: &Rig,
    device: &BlockDevice,
    marks: &mut dyn Marks,
    order: Order,
    time: Duration,
) -> Result<Outcome> {
    let mut harvest = Harvest::new(device, order)?;
    let mut outcome = Outcome::default();
    let started = Instant::now();
    let mut seed = 0;
    while started.elapsed() < time {
        seed += u64::from(WRITERS);
        outcome.writes += round(rig, device, &mut || harvest.run(marks), seed)?;
        harvest.run(marks)?;
        outcome.stale += harvest.repair_stale()?;
    }
    outcome.harvested = harvest.chunks;
    Ok(outcome)
}

/// Starts the writers, harvests until they are done; how many writes they did.
fn round(
    rig: &Rig,
    device: &BlockDevice,
    harvest: &mut dyn FnMut() -> Result<()>,
    seed: u64,
) -> Result<u64> {
    let path = rig.fresh("race-log");
    let log = Arc::new(WriteLog::create(&path, LOG_CAPACITY)?);
    let target = Target::whole(0, device);
    let mut writers = Vec::new();
    for stream in 0..WRITERS {
        let load = Load {
            method: Method::Direct,
            seed: seed + u64::from(stream),
            smallest: ByteLen(4096),
            largest: ByteLen(8192),
            after: After::Elapsed(ROUND),
        };
        writers.push(Writer::start(&target, stream, load, &log)?);
    }
    let started = Instant::now();
    while started.elapsed() < ROUND {
        harvest()?;
    }
    let reports = writers.into_iter().map(Writer::finish).collect::<Result<Vec<WriterReport>>>()?;
    fs::remove_file(&path).context("removing a log")?;
    Ok(reports.iter().map(|report| report.writes).sum())
}

struct Harvest {
    order: Order,
    device: BlockDevice,
    geometry: Geometry,
    disk: File,
    copy: Vec<u8>,
    buffer: MmapMut,
    /// Marked, and not yet read.
    left: Bitmap,
    /// How many were read.
    chunks: u64,
}

impl Harvest {
    fn new(device: &BlockDevice, order: Order) -> Result<Self> {
        let geometry = device.geometry(ChunkSize::DEFAULT)?;
        let direct = nix::libc::O_DIRECT;
        let disk = File::options().read(true).custom_flags(direct).open(device.path());
        let disk = disk.context("opening the disk")?;
        let copy = Image::read(device.path())?.bytes().to_vec();
        let buffer = MmapMut::map_anon(copy.len()).context("memory for reads")?;
        let left = Bitmap::new(geometry.chunks());
        let device = device.clone();
        Ok(Self { order, device, geometry, disk, copy, buffer, left, chunks: 0 })
    }

    fn run(&mut self, marks: &mut dyn Marks) -> Result<()> {
        let mut chunks = marks.take()?;
        chunks.union_with(&self.left);
        self.read(&chunks)?;
        self.left = Bitmap::new(self.geometry.chunks());
        if self.order == Order::ReadThenClear {
            // What clearing only now amounts to: marks that were set meanwhile go unread, for the
            // chunks that were read. The others stay for the next harvest.
            self.left = marks.take()?;
            self.left.subtract(&chunks);
        }
        self.chunks += chunks.count();
        Ok(())
    }

    fn read(&mut self, chunks: &Bitmap) -> Result<()> {
        for run in chunks.runs() {
            let extent = self.geometry.extent_of(run);
            let start = usize::try_from(extent.start.bytes())?;
            let end = usize::try_from(extent.end().bytes())?;
            let buffer = &mut self.buffer[start..end];
            self.disk.read_exact_at(buffer, extent.start.bytes()).context("reading the disk")?;
            self.copy[start..end].copy_from_slice(buffer);
        }
        Ok(())
    }

    /// Counts the chunks in which the copy differs, and mends them for the next round.
    fn repair_stale(&mut self) -> Result<u64> {
        let image = Image::read(self.device.path())?;
        let chunk = usize::try_from(self.geometry.chunk().bytes())?;
        let pairs = self.copy.chunks(chunk).zip(image.bytes().chunks(chunk));
        let stale = pairs.filter(|(copy, disk)| copy != disk).count();
        self.copy.copy_from_slice(image.bytes());
        Ok(stale as u64)
    }
}
