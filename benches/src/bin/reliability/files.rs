//! A file system in use on a disk of its own, and what its points must hold.
//!
//! Files that were durable before a point's cut and have not been touched by a look after it must
//! be in the point, whole. Looks are taken all the time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use blocks::{ByteLen, DiskId, MonotonicNs};
use replica::View;
use vm_tests::{Durable, FileWorkload, Filesystem, LoopDisk, LoopSpec, Mounted, Pace, Rig};

use crate::stage::now;

const LEN: ByteLen = ByteLen(256 << 20);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const COPY_AT_ONCE: usize = 1 << 20;

/// An ext4 on a loop disk.
pub(crate) struct Files {
    mounted: Mounted,
    pub(crate) disk: LoopDisk,
    pub(crate) id: DiskId,
}

/// Its application at work, and who looks at what it says is durable.
pub(crate) struct Application {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(u64, Looks)>>,
}

/// What was durable at which time.
pub(crate) struct Looks(Vec<Look>);

struct Look {
    began: MonotonicNs,
    ended: MonotonicNs,
    durable: Durable,
}

impl Files {
    /// Makes it, and hands its disk to `protect` once it is mounted.
    pub(crate) fn make(
        rig: &Rig,
        protect: impl FnOnce(&LoopDisk) -> Result<DiskId>,
    ) -> Result<Self> {
        let disk = LoopDisk::create(rig, LoopSpec::new(LEN))?;
        Filesystem::Ext4.make(&disk)?;
        let mounted = Mounted::mount(rig, &disk, Filesystem::Ext4, "")?;
        let id = protect(&disk)?;
        Ok(Self { mounted, disk, id })
    }

    pub(crate) fn start(&self, seed: u64) -> Result<Application> {
        let pace = Pace { pause: Duration::from_millis(1), ..Pace::default() };
        let workload = FileWorkload::start_at(self.mounted.path(), seed, u64::MAX, pace)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            let mut looks = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                looks.push(Look::take(&workload));
                std::thread::sleep(LOOK_EVERY);
            }
            looks.push(Look::take(&workload));
            let (report, _) = workload.stop()?;
            Ok((report.written, Looks(looks)))
        };
        let thread = std::thread::Builder::new().name("looks".into()).spawn(run)?;
        Ok(Application { stop, thread })
    }
}

impl Application {
    /// Ends it: how many files were made durable, and what was seen.
    pub(crate) fn stop(self) -> Result<(u64, Looks)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Look {
    fn take(workload: &FileWorkload) -> Self {
        let began = now();
        let durable = workload.durable();
        Self { began, ended: now(), durable }
    }
}

impl Looks {
    /// What must be whole at an instant, if there are looks around it.
    fn at(&self, instant: MonotonicNs) -> Option<Durable> {
        let before = self.0.iter().rev().find(|look| look.ended <= instant)?;
        let after = self.0.iter().find(|look| look.began >= instant)?;
        let mut durable = before.durable.clone();
        durable.0.retain(|name, version| after.durable.0.get(name) == Some(version));
        Some(durable)
    }

    /// Checks a point: its journal is replayed, the file system is sound, and every file that must
    /// be there is, whole. How many these are.
    pub(crate) fn check(&self, rig: &Rig, view: &View) -> Result<usize> {
        let durable = self.at(view.record().cut.monotonic).context("no looks around the point")?;
        let copy = LoopDisk::create(rig, LoopSpec::new(view.len()))?;
        copy_out(view, &copy)?;
        let mounted = Mounted::mount(rig, &copy, Filesystem::Ext4, "").context("the journal")?;
        durable.check(mounted.path())?;
        mounted.unmount()?;
        Filesystem::Ext4.check(copy.path())?;
        Ok(durable.0.len())
    }
}

/// Writes a view to a disk of its length.
fn copy_out(view: &View, disk: &LoopDisk) -> Result<()> {
    let file = File::options().write(true).open(disk.path()).context("opening a copy")?;
    let mut buffer = vec![0; COPY_AT_ONCE];
    let mut at = 0;
    while at < view.len().0 {
        let left = usize::try_from(view.len().0 - at)?;
        let bytes = &mut buffer[..COPY_AT_ONCE.min(left)];
        view.read_at(at, bytes)?;
        if bytes.iter().any(|byte| *byte != 0) {
            file.write_all_at(bytes, at).context("writing a copy")?;
        }
        at += bytes.len() as u64;
    }
    file.sync_all().context("syncing a copy")
}
