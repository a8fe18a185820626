//! The cutter: one thread that reads disks at one instant, as the cut core says.
//!
//! It owns the conflict table and the image's memory, sleeps until it is asked for a cut, and
//! answers with what came of it. It decides nothing: [`Cut`] does. While it works, nobody else
//! harvests the disks it was given.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use blocks::{Bitmap, ByteLen, DiskId, Geometry, MonotonicNs};
use crossbeam_channel::{Receiver, Sender, bounded};
use ebpf::device::DeviceNumber;
use ebpf::{ConflictTable, TrackedDisk};
use nix::libc;
use shipper::{DiskImage, RealTime, WindowDisk, WindowReader};
use tracker::cut::{Cut, CutDisk, CutLimits, Finished, Freeze, Heat, Outcome};

mod mistake;
mod run;

use run::Run;

use super::clock;
use super::freeze::is_any_mounted;
use super::hooks::{self, When};
use crate::config::Hooks;

/// Reads under way at a time: as many as an attempt reads in one go.
const DEPTH: u32 = 256;

/// What the core asks for.
pub(super) struct CutRequest {
    pub(super) disks: Vec<ToCut>,
    pub(super) freeze: Freeze,
    /// The longest freeze.
    pub(super) freeze_limit: Duration,
    /// What makes applications ready first. File systems are frozen then, if any are mounted.
    pub(super) hooks: Option<Hooks>,
    pub(super) seed: u64,
}

/// A disk to cut.
pub(super) struct ToCut {
    pub(super) id: DiskId,
    pub(super) path: PathBuf,
    pub(super) number: DeviceNumber,
    pub(super) geometry: Geometry,
    pub(super) tracked: TrackedDisk,
    pub(super) dirty: Bitmap,
    pub(super) heat: Heat,
}

/// What came of it.
pub(super) struct CutDone {
    pub(super) outcome: Outcome,
    pub(super) attempts: u32,
    /// When the first harvest may have begun.
    pub(super) began: MonotonicNs,
    /// How long file systems stood still.
    pub(super) freeze: Duration,
    /// Whether applications had been made ready.
    pub(super) application: bool,
    /// What hooks printed, and what was wrong with the one that ran after.
    pub(super) notes: Vec<String>,
    pub(super) disks: Vec<WasCut>,
}

/// A disk that was cut.
pub(super) struct WasCut {
    pub(super) id: DiskId,
    /// What the image holds, or what is dirty.
    pub(super) chunks: Bitmap,
    pub(super) heat: Heat,
    /// Its content, if the cut is verified.
    pub(super) image: Option<DiskImage>,
}

/// How the cutter tells that a cut has ended. Never blocks.
pub(super) type Tell = Box<dyn Fn(CutDone) + Send>;

/// The core's end of it. Dropping it ends the thread, once the cut under way has ended.
pub(super) struct Cutter {
    requests: Option<Sender<CutRequest>>,
    thread: Option<JoinHandle<()>>,
}

impl Cutter {
    /// Starts the thread. Its image will take no more than `memory`.
    pub(super) fn start(table: ConflictTable, memory: ByteLen, tell: Tell) -> Result<Self> {
        let (requests, asked) = bounded(1);
        let reader = WindowReader::new(memory, DEPTH).context("reads of cuts")?;
        let limits = CutLimits { memory, depth: DEPTH.into(), ..CutLimits::default() };
        let mut shell = Shell { table, reader, limits, files: BTreeMap::new(), may_hurry: true };
        let run = move || shell.run(&asked, &tell);
        let thread = std::thread::Builder::new().name("cut".into()).spawn(run)?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Asks for a cut; whether the thread is there to make it. To be called while none is under way.
    pub(super) fn cut(&self, request: CutRequest) -> bool {
        self.requests.as_ref().is_some_and(|requests| requests.try_send(request).is_ok())
    }
}

impl Cutter {
    /// Whether the thread has ended although nobody asked it to.
    pub(super) fn has_died(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been printed.
            drop(thread.join());
        }
    }
}

/// The thread's own things.
struct Shell {
    table: ConflictTable,
    reader: WindowReader,
    limits: CutLimits,
    /// Opened once: a disk that is closed by its last user drops its cache.
    files: BTreeMap<DiskId, (PathBuf, Arc<File>)>,
    /// Whether a higher priority may be had, as far as is known.
    may_hurry: bool,
}

impl Shell {
    fn run(&mut self, asked: &Receiver<CutRequest>, tell: &Tell) {
        for request in asked {
            tell(self.cut(request));
        }
    }

    /// A cut with its hooks. The one that comes after runs whatever became of the one before.
    fn cut(&mut self, mut request: CutRequest) -> CutDone {
        let hooks = request.hooks.take();
        let mut notes = Vec::new();
        let mut ready = Ok(());
        if let Some(hooks) = &hooks {
            let numbers: Vec<_> = request.disks.iter().map(|disk| disk.number).collect();
            request.freeze = match is_any_mounted(&numbers) {
                true => Freeze::Always,
                // An application that writes to the disk itself: nothing else is to be held.
                false => Freeze::Never,
            };
            if let Some(command) = &hooks.pre {
                ready = hooks::run(command, When::Pre, hooks.timeout).map(|out| notes.push(out));
            }
        }
        let mut done = match ready {
            Ok(()) => self.cut_now(request),
            Err(why) => not_begun(request, why),
        };
        if let Some(command) = hooks.as_ref().and_then(|hooks| hooks.post.as_ref()) {
            let limit = hooks.as_ref().map_or(Duration::ZERO, |hooks| hooks.timeout);
            notes.push(hooks::run(command, When::Post, limit).unwrap_or_else(|why| why));
        }
        notes.retain(|note| !note.is_empty());
        done.application = hooks.is_some();
        done.notes = notes;
        done
    }

    fn cut_now(&mut self, request: CutRequest) -> CutDone {
        let CutRequest { disks, freeze, freeze_limit, seed, .. } = request;
        let opened = self.open(&disks);
        let likely: u64 = disks.iter().map(|d| d.dirty.count() * d.geometry.chunk().bytes()).sum();
        let ids: Vec<DiskId> = disks.iter().map(|disk| disk.id).collect();
        let numbers: Vec<DeviceNumber> = disks.iter().map(|disk| disk.number).collect();
        let tracked: Vec<TrackedDisk> = disks.iter().map(|disk| disk.tracked.clone()).collect();
        let of_core = |disk: ToCut| {
            let ToCut { geometry, dirty, heat, .. } = disk;
            CutDisk { geometry, dirty, heat }
        };
        let began = clock::now();
        let of_core = disks.into_iter().map(of_core).collect();
        let mut cut = Cut::new(self.limits, freeze, of_core, seed, began);
        // Somewhat more than what is known: what is written meanwhile comes on top.
        let likely = ByteLen(2 * likely + (4 << 20));
        let (mut images, mut frozen) = (Vec::new(), Duration::ZERO);
        match opened.and_then(|disks| Ok(self.reader.begin(disks, likely)?)) {
            Ok(window) => {
                let hurry = hurry(&mut self.may_hurry);
                let table = &mut self.table;
                let (freezer, memory) = (None, mistake::Memory::default());
                let run =
                    Run { table, window, disks: &tracked, numbers, freeze_limit, freezer, memory };
                (images, frozen) = run.drive(&mut cut);
                drop(hurry);
            }
            Err(error) => cut.fail(format!("{error:#}")),
        }
        let Finished { outcome, disks, attempts } = cut.finish();
        let verified = matches!(outcome, Outcome::Verified(_));
        let mut images = images.into_iter().filter(|_| verified);
        let disks = ids.into_iter().zip(disks).map(|(id, disk)| WasCut {
            id,
            chunks: disk.chunks,
            heat: disk.heat,
            image: images.next(),
        });
        let disks = disks.collect();
        let (application, notes) = (false, Vec::new());
        CutDone { outcome, attempts, began, freeze: frozen, application, notes, disks }
    }

    fn open(&mut self, disks: &[ToCut]) -> Result<Vec<WindowDisk>> {
        self.files.retain(|id, (path, _)| disks.iter().any(|d| d.id == *id && d.path == *path));
        let open = |disk: &ToCut| {
            let file = match self.files.get(&disk.id) {
                Some((_, file)) => Arc::clone(file),
                None => {
                    let opened =
                        OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&disk.path);
                    let file =
                        opened.with_context(|| format!("opening {}", disk.path.display()))?;
                    let file = Arc::new(file);
                    self.files.insert(disk.id, (disk.path.clone(), Arc::clone(&file)));
                    file
                }
            };
            Ok(WindowDisk { file, geometry: disk.geometry })
        };
        disks.iter().map(open).collect()
    }
}

/// A cut that was given up before it began.
fn not_begun(request: CutRequest, why: String) -> CutDone {
    let back =
        |disk: ToCut| WasCut { id: disk.id, chunks: disk.dirty, heat: disk.heat, image: None };
    CutDone {
        outcome: Outcome::Failed(why),
        attempts: 0,
        began: clock::now(),
        freeze: Duration::ZERO,
        application: false,
        notes: Vec::new(),
        disks: request.disks.into_iter().map(back).collect(),
    }
}

/// Raises the thread's priority for the window, if that is permitted.
fn hurry(may_hurry: &mut bool) -> Option<RealTime> {
    if !*may_hurry {
        return None;
    }
    match RealTime::enter() {
        Ok(hurry) => {
            if !hurry.is_real() {
                tracing::debug!("no real-time priority for cuts: a nice value has to do");
            }
            Some(hurry)
        }
        Err(error) => {
            *may_hurry = false;
            tracing::warn!(%error, "cuts have no priority: their windows will be longer under load");
            None
        }
    }
}
