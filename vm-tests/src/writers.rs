//! Writers: every way in which an application reaches a disk, with a log kept outside of it.
//!
//! A writer is one thread on one target. What it writes follows from its seed alone; how far it
//! gets may depend on time. Each write is in the log before it is submitted.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use blocks::{ByteLen, Sector};

use crate::{BlockDevice, Partition, WriteLog};

mod buffered;
mod direct;
mod erase;
mod mapped;
mod plan;
mod point_load;
mod ring;
mod session;

use plan::Plan;
use session::Session;

pub use point_load::{PointLoad, PointLoadSpec, Rate};

/// What is written to: a disk or a partition, and how the log calls it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The device that is opened.
    pub path: PathBuf,
    /// The whole disk, by the rig's numbering.
    pub disk: u32,
    /// Where the device begins on the whole disk.
    pub base: Sector,
    /// The length of the device in sectors.
    pub sectors: u64,
    /// The alignment of direct I/O, in bytes.
    pub logical_block: u32,
}

impl Target {
    /// A whole disk.
    pub fn whole(disk: u32, device: &BlockDevice) -> Self {
        Self {
            path: device.path().to_owned(),
            disk,
            base: Sector(0),
            sectors: device.sectors(),
            logical_block: device.logical_block(),
        }
    }

    /// Only the first bytes of it.
    ///
    /// # Panics
    /// If it has fewer.
    pub fn front(self, len: ByteLen) -> Self {
        let sectors = len.0 / blocks::SECTOR_SIZE;
        assert!(sectors <= self.sectors, "{} has fewer bytes", self.path.display());
        Self { sectors, ..self }
    }

    /// A partition of it.
    pub fn partition(disk: u32, partition: &Partition) -> Self {
        Self { base: partition.extent().start, ..Self::whole(disk, partition) }
    }
}

/// How a writer reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `O_DIRECT`, one write at a time.
    Direct,
    /// Through the page cache; acknowledged by `fdatasync`.
    Buffered,
    /// Through a shared mapping; acknowledged by `msync`.
    Mapped,
    /// `O_DIRECT` through io_uring, several writes at a time.
    Ring,
    /// `BLKDISCARD`.
    Discard,
    /// `BLKZEROOUT`.
    ZeroOut,
}

/// When a writer ends, if it is not stopped before.
#[derive(Clone, Copy, Debug)]
pub enum After {
    /// After so many writes.
    Writes(u64),
    /// After so long.
    Elapsed(Duration),
}

/// What a writer does.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How.
    pub method: Method,
    /// Decides places, sizes and content.
    pub seed: u64,
    /// The smallest write. Sizes are spread evenly over the powers of two.
    pub smallest: ByteLen,
    /// The largest write.
    pub largest: ByteLen,
    /// When it ends.
    pub after: After,
}

/// What a writer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterReport {
    /// Writes acknowledged.
    pub writes: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A writer at work. Dropped, it is stopped and waited for.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<WriterReport>>>,
}

impl Writer {
    /// Starts a writer. `stream` must be its own among the writers of one log.
    pub fn start(target: &Target, stream: u32, load: Load, log: &Arc<WriteLog>) -> Result<Self> {
        let block = u64::from(target.logical_block);
        let fits = load.largest.0 <= target.sectors * blocks::SECTOR_SIZE;
        ensure!(block <= load.smallest.0 && load.smallest <= load.largest && fits, "write sizes");
        let stop = Arc::new(AtomicBool::new(false));
        let plan = Plan::new(target, load, Arc::clone(&stop));
        let session = Session::new(target.clone(), stream, Arc::clone(log));
        let run = move || match load.method {
            Method::Direct => direct::run(session, plan),
            Method::Buffered => buffered::run(session, plan),
            Method::Mapped => mapped::run(session, plan),
            Method::Ring => ring::run(session, plan),
            Method::Discard | Method::ZeroOut => erase::run(session, plan, load.method),
        };
        let name = format!("writer-{stream}");
        let thread = std::thread::Builder::new().name(name).spawn(run).context("a writer")?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Asks the writer to end after the write it is at.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the writer to end by itself.
    pub fn finish(mut self) -> Result<WriterReport> {
        self.join()
    }

    fn join(&mut self) -> Result<WriterReport> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(report)) => report,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(WriterReport::default()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // Its result was not asked for.
            let _ = thread.join();
        }
    }
}
