//! Writers that pause: an application that keeps a disk busy without keeping it from being
//! replicated.
//!
//! One burst after the other, each by another method, with a rest between them. Full speed without
//! end changes most of a small disk in every cycle, which is another case: a comparison.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use blocks::ByteLen;

use crate::{After, Load, Method, Rig, Target, WriteLog, Writer, WriterReport};

/// How many writes a burst has.
const BURST: u64 = 32;
const LARGEST: ByteLen = ByteLen(128 << 10);
const REST: Duration = Duration::from_millis(15);
/// Room for an hour of bursts.
const LOGGED_MAX: usize = 8 << 20;

/// Every method there is: for disks on which nothing is ever missed, whatever is done to them.
pub const EVERY_METHOD: &[Method] = &[
    Method::Direct,
    Method::Ring,
    Method::Buffered,
    Method::Discard,
    Method::Mapped,
    Method::ZeroOut,
];

/// Writes stamped data all over `target`, as much as it is long; some of it stays untouched.
pub fn fill(rig: &Rig, target: &Target, seed: u64) -> Result<()> {
    let (smallest, largest) = (ByteLen(512 << 10), ByteLen(2 << 20));
    let writes = target.sectors * blocks::SECTOR_SIZE / (1 << 20);
    let load =
        Load { method: Method::Direct, seed, smallest, largest, after: After::Writes(writes) };
    let log = Arc::new(WriteLog::create(&rig.fresh("fill"), LOGGED_MAX)?);
    Writer::start(target, 0, load, &log)?.finish().map(drop)
}

/// Bursts of writes to one target. Dropped, they are stopped and waited for.
pub struct Bursts {
    stop: Arc<AtomicBool>,
    log: Arc<WriteLog>,
    thread: Option<JoinHandle<Result<WriterReport>>>,
}

impl Bursts {
    /// Starts writing to `target` by these methods in turn.
    pub fn start(rig: &Rig, target: Target, methods: &'static [Method], seed: u64) -> Result<Self> {
        let log = Arc::new(WriteLog::create(&rig.fresh("bursts"), LOGGED_MAX)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(&log));
        let run = move || {
            let mut total = WriterReport::default();
            for (stream, method) in (0..).zip(methods.iter().cycle()) {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let load = Load {
                    method: *method,
                    seed: seed << 32 | u64::from(stream),
                    smallest: ByteLen(u64::from(target.logical_block)),
                    largest: LARGEST,
                    after: After::Writes(BURST),
                };
                let report = Writer::start(&target, stream, load, &shared)?.finish()?;
                total.writes += report.writes;
                total.bytes += report.bytes;
                std::thread::sleep(REST);
            }
            Ok(total)
        };
        let thread = std::thread::Builder::new().name("bursts".into()).spawn(run)?;
        Ok(Self { stop, log, thread: Some(thread) })
    }

    /// What was written.
    pub fn log(&self) -> &WriteLog {
        &self.log
    }

    /// Stops after the burst under way. Everything it wrote is on the disk then.
    pub fn stop(mut self) -> Result<WriterReport> {
        self.join()
    }

    fn join(&mut self) -> Result<WriterReport> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(report)) => report,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(WriterReport::default()),
        }
    }
}

impl Drop for Bursts {
    fn drop(&mut self) {
        // Its result was not asked for.
        drop(self.join());
    }
}
