//! The load under which recovery points are judged.
//!
//! Writers that write with `O_DIRECT`, one write at a time, so that each of their streams is a
//! chain; each goes round all targets, so that a chain spans them. One write in 64 is zeroes, one
//! in 64 repeats an earlier write of its stream, one in eight compresses: all else is unique.
//! Beside them, a *log tail*: one block that is rewritten every millisecond, as the end of a
//! database's log is.
//!
//! A light load has no power: a cut that is wrong by a little passes. Tests of the cut itself run
//! at [`Rate::Full`] on a disk of 16 MiB.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use blocks::{ByteLen, Extent, SECTOR_SIZE, Sector};
use memmap2::MmapMut;
use nix::libc;
use oracle::{Fill, Random, Stamp, WriteKind};

use super::{
    Session, Target, WriterReport,
    plan::Step,
    session::{Pending, bytes_of},
};
use crate::WriteLog;

const LOG_TAIL_EVERY: Duration = Duration::from_millis(1);
const REPEATING_ONE_IN: u64 = 8;
const ZEROES_ONE_IN: u64 = 64;
const REPEAT_ONE_IN: u64 = 64;
/// How many writes back a repetition reaches at most.
const REMEMBERED: usize = 16;

/// How fast all writers of a load together write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// As fast as they can.
    Full,
    /// So many bytes a second.
    PerSecond(ByteLen),
}

/// What a load for points does.
#[derive(Clone, Copy, Debug)]
pub struct PointLoadSpec {
    /// How many writers, the log tail aside.
    pub writers: u32,
    /// How fast they write together.
    pub rate: Rate,
    /// The smallest write. Sizes are spread evenly over the powers of two.
    pub smallest: ByteLen,
    /// The largest write.
    pub largest: ByteLen,
    /// Whether the last block of the first target is rewritten every millisecond.
    pub log_tail: bool,
    /// The first stream; the writers and then the log tail take the next ones.
    pub first_stream: u32,
    /// Decides places, sizes and content.
    pub seed: u64,
}

impl PointLoadSpec {
    /// Four writers of 4 to 64 KiB each at this rate, and a log tail.
    pub const fn new(rate: Rate) -> Self {
        Self {
            writers: 4,
            rate,
            smallest: ByteLen(4096),
            largest: ByteLen(65536),
            log_tail: true,
            first_stream: 0,
            seed: 1,
        }
    }

    /// The streams that such a load takes.
    pub const fn streams(&self) -> u32 {
        self.writers + self.log_tail as u32
    }
}

/// The load at work. Dropped, it is stopped and waited for.
pub struct PointLoad {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<WriterReport>>>,
}

impl PointLoad {
    /// Starts to write to all of `targets`.
    pub fn start(targets: &[Target], spec: PointLoadSpec, log: &Arc<WriteLog>) -> Result<Self> {
        let first = targets.first().context("a target")?;
        for target in targets {
            let (block, len) = (u64::from(target.logical_block), target.sectors * SECTOR_SIZE);
            let aligned = spec.smallest.0.is_multiple_of(block);
            let fits = spec.smallest <= spec.largest && spec.largest.0 <= len;
            ensure!(aligned && fits && spec.smallest.0 > 0, "write sizes");
        }
        let mut load = Self { stop: Arc::default(), threads: Vec::new() };
        for writer in 0..spec.writers {
            let author = load.author(targets, spec, writer, log)?;
            load.spawn(author, Author::run)?;
        }
        if spec.log_tail {
            let author = load.author(std::slice::from_ref(first), spec, spec.writers, log)?;
            load.spawn(author, Author::run_log_tail)?;
        }
        Ok(load)
    }

    /// Stops after the writes under way; everything is acknowledged then.
    pub fn stop(mut self) -> Result<WriterReport> {
        self.join()
    }

    fn author(
        &self,
        targets: &[Target],
        spec: PointLoadSpec,
        writer: u32,
        log: &Arc<WriteLog>,
    ) -> Result<Author> {
        let stream = spec.first_stream + writer;
        let mut session = Session::new(targets[0].clone(), stream, Arc::clone(log));
        let open = |target: &Target| {
            session.aim(target);
            Ok((target.clone(), session.open(libc::O_DIRECT)?))
        };
        let targets = targets.iter().map(open).collect::<Result<_>>()?;
        let largest = usize::try_from(spec.largest.0).context("a write fits memory")?;
        Ok(Author {
            session,
            targets,
            spec,
            random: Random::new(spec.seed << 32 | u64::from(stream)),
            // A mapping is page-aligned, which direct I/O asks for.
            buffer: MmapMut::map_anon(largest).context("memory for a writer")?,
            remembered: Vec::with_capacity(REMEMBERED),
            stop: Arc::clone(&self.stop),
        })
    }

    fn spawn(
        &mut self,
        author: Author,
        run: impl FnOnce(Author) -> Result<WriterReport> + Send + 'static,
    ) -> Result<()> {
        let thread = std::thread::Builder::new().name("point-load".into());
        self.threads.push(thread.spawn(move || run(author)).context("a writer")?);
        Ok(())
    }

    fn join(&mut self) -> Result<WriterReport> {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Ok(WriterReport::default());
        for thread in self.threads.drain(..) {
            let report = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            total = total.and_then(|total| {
                let report = report?;
                let (writes, bytes) = (total.writes + report.writes, total.bytes + report.bytes);
                Ok(WriterReport { writes, bytes })
            });
        }
        total
    }
}

impl Drop for PointLoad {
    fn drop(&mut self) {
        // Its result was not asked for.
        drop(self.join());
    }
}

/// One writer of the load.
struct Author {
    session: Session,
    targets: Vec<(Target, File)>,
    spec: PointLoadSpec,
    random: Random,
    buffer: MmapMut,
    /// The newest stamped writes: on which target, where, and what.
    remembered: Vec<(usize, Extent, Stamp)>,
    stop: Arc<AtomicBool>,
}

impl Author {
    fn run(mut self) -> Result<WriterReport> {
        let started = Instant::now();
        for place in (0..self.targets.len()).cycle() {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            self.pace(started);
            match self.random.below(REPEAT_ONE_IN) {
                0 if !self.remembered.is_empty() => self.repeat()?,
                _ => self.write(place)?,
            }
        }
        Ok(self.session.report())
    }

    fn run_log_tail(mut self) -> Result<WriterReport> {
        let target = &self.targets[0].0;
        let sectors = u64::from(target.logical_block) / SECTOR_SIZE;
        let extent = Extent { start: Sector(target.sectors - sectors), sectors };
        let mut due = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            self.stamped(0, &Step { extent, fill: Fill::Random })?;
            due += LOG_TAIL_EVERY;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(self.session.report())
    }

    /// Sleeps until the rate allows the next write.
    fn pace(&self, started: Instant) {
        let Rate::PerSecond(total) = self.spec.rate else { return };
        let each = total.0 as f64 / f64::from(self.spec.writers);
        let due = started + Duration::from_secs_f64(self.session.report().bytes as f64 / each);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }

    fn write(&mut self, place: usize) -> Result<()> {
        let extent = self.extent(place);
        if self.random.below(ZEROES_ONE_IN) == 0 {
            self.session.aim(&self.targets[place].0);
            let bytes = bytes_of(&Step { extent, fill: Fill::Random });
            self.buffer[..bytes].fill(0);
            let pending = self.session.issue(extent, WriteKind::Zeroes)?;
            return self.submit(place, extent, &pending);
        }
        let repeating = self.random.below(REPEATING_ONE_IN) == 0;
        let fill = if repeating { Fill::Repeating } else { Fill::Random };
        self.stamped(place, &Step { extent, fill })
    }

    fn stamped(&mut self, place: usize, step: &Step) -> Result<()> {
        self.session.aim(&self.targets[place].0);
        if self.remembered.len() == REMEMBERED {
            self.remembered.remove(0);
        }
        self.remembered.push((place, step.extent, self.session.stamp(step)));
        let pending = self.session.stamped(step, &mut self.buffer[..bytes_of(step)])?;
        self.submit(place, step.extent, &pending)
    }

    /// The bytes of an earlier write once more, where they were.
    fn repeat(&mut self) -> Result<()> {
        let chosen = self.random.below(self.remembered.len() as u64);
        let (place, extent, stamp) = self.remembered[usize::try_from(chosen).expect("an index")];
        self.session.aim(&self.targets[place].0);
        let bytes = bytes_of(&Step { extent, fill: stamp.fill });
        stamp.stamp(&mut self.buffer[..bytes]);
        let pending = self.session.issue(extent, WriteKind::Repeat { of: stamp.write })?;
        self.submit(place, extent, &pending)
    }

    fn submit(&mut self, place: usize, extent: Extent, pending: &Pending) -> Result<()> {
        let bytes = bytes_of(&Step { extent, fill: Fill::Random });
        let written =
            self.targets[place].1.write_all_at(&self.buffer[..bytes], extent.start.bytes());
        self.session.settle(pending, written)
    }

    /// Evenly over the powers of two, anywhere on the target, in units of the smallest write.
    fn extent(&mut self, place: usize) -> Extent {
        let (smallest, largest) = (self.spec.smallest.0, self.spec.largest.0);
        let steps = u64::from((largest / smallest).ilog2()) + 1;
        let bytes = smallest << self.random.below(steps);
        let (unit, len) = (smallest / SECTOR_SIZE, bytes / SECTOR_SIZE);
        let places = (self.targets[place].0.sectors - len) / unit + 1;
        Extent { start: Sector(self.random.below(places) * unit), sectors: len }
    }
}
