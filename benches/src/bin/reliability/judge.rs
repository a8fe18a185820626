//! The judgement of points: the stamped disk of each, read from the store, held against the log.
//!
//! Reading 4 GiB for each of hundreds of points takes longer than making them. So points are
//! judged in runs of ten: the first of a run is read whole, of each that follows the chunks that a
//! write touched since the cut before. A chunk that changes though nobody writes to it is found at
//! the next whole reading. Small disks are read whole always.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use blocks::{Bitmap, ByteLen, ChunkIndex, ChunkRange, ChunkSize, CutMethod, DiskId, Extent};
use oracle::{History, Initial, Layout, Observed, Outcome, Record, Verdict, Window};
use replica::{MachinePoint, PointStatus, ReadError, Store, View};
use vm_tests::ZramDisk;

use crate::stage::Stage;

const RUN: usize = 10;
/// A disk of no more is read whole for every point.
const SMALL: ByteLen = ByteLen(64 << 20);
/// The longest read of a view, in chunks.
const STEP: usize = 256;

/// A point that was judged.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) point: MachinePoint,
    /// Whether all of the stamped disk was read for it.
    pub(crate) whole: bool,
    /// Why it is no instant, if it is none.
    pub(crate) invalid: Option<String>,
}

impl Judged {
    pub(crate) fn is_retracted(&self) -> bool {
        matches!(self.point.status(), PointStatus::Retracted(_))
    }

    /// Whether it was cut without a freeze.
    pub(crate) fn is_verified(&self) -> bool {
        self.point.record.method == CutMethod::Verified
    }

    /// Everything about it, for the record.
    pub(crate) fn json(&self) -> serde_json::Value {
        let record = &self.point.record;
        serde_json::json!({
            "id": record.id.to_string(),
            "cut_unix_ns": record.cut.unix_ns,
            "disks": record.disks,
            "method": record.method.to_string(),
            "attempts": record.attempts,
            "window_ns": record.window.as_nanos(),
            "freeze_ns": record.freeze.as_nanos(),
            "status": format!("{:?}", self.point.status()),
            "read_whole": self.whole,
            "invalid": self.invalid,
        })
    }
}

/// Judges all points of a run whose writers have stopped.
pub(crate) fn judge(stage: &Stage, store: &Store, points: &[MachinePoint]) -> Result<Vec<Judged>> {
    let judge = Judge::new(stage, store)?;
    let runs: Vec<&[MachinePoint]> = points.chunks(RUN).collect();
    let next = AtomicUsize::new(0);
    let mut found: Vec<(usize, Vec<Judged>)> = std::thread::scope(|scope| {
        let work = || -> Result<Vec<(usize, Vec<Judged>)>> {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(run) = runs.get(at) else { return Ok(done) };
                done.push((at, judge.run(run)?));
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, _>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let all: Result<Vec<_>> = workers.into_iter().map(join).collect();
        all.map(|all| all.into_iter().flatten().collect())
    })?;
    found.sort_by_key(|(at, _)| *at);
    Ok(found.into_iter().flat_map(|(_, run)| run).collect())
}

struct Judge<'a> {
    store: &'a Store,
    disk: &'a ZramDisk,
    id: DiskId,
    history: History,
    records: Vec<Record>,
}

impl<'a> Judge<'a> {
    fn new(stage: &'a Stage, store: &'a Store) -> Result<Self> {
        let records = stage.log.records();
        let geometry = stage.disk.geometry(ChunkSize::DEFAULT)?;
        let layout = Layout::new(stage.log.run(), &[(0, geometry)]);
        let history = History::new(layout, Initial::Zeroes, records.iter().copied());
        let history = history.context("indexing the log")?;
        Ok(Self { store, disk: &stage.disk, id: stage.id, history, records })
    }

    /// Judges neighbouring points.
    fn run(&self, points: &[MachinePoint]) -> Result<Vec<Judged>> {
        let mut before: Option<(&MachinePoint, Observed)> = None;
        let mut judged = Vec::new();
        for point in points {
            let view = view(self.store, self.id, point)?;
            let small = view.geometry().len() <= SMALL;
            let whole = small || before.is_none();
            let observed = match &before {
                Some((earlier, observed)) if !whole => self.reread(&view, earlier, observed)?,
                _ => Observed::read(self.history.layout(), |_, extent, bytes: &mut [u8]| {
                    read(&view, extent, bytes)
                })?,
            };
            let window = Window::at(point.record.cut.monotonic);
            let invalid = match oracle::judge(&self.history, &observed, window) {
                Verdict::Valid(_) => None,
                Verdict::Invalid(why) => Some(why.to_string()),
            };
            judged.push(Judged { point: point.clone(), whole, invalid });
            before = Some((point, observed));
        }
        Ok(judged)
    }

    /// What a point holds, by what the one before held and what was written since.
    fn reread(&self, view: &View, before: &MachinePoint, held: &Observed) -> Result<Observed> {
        let (from, to) = (before.record.cut.monotonic, view.record().cut.monotonic);
        let may_have_landed = |record: &&Record| {
            let ended = match record.outcome {
                Outcome::Completed(at) => at < from,
                Outcome::InFlight | Outcome::Failed => false,
            };
            // Reads go on for a moment after the cut, and may see what was issued in it.
            record.issued <= blocks::MonotonicNs(to.0 + 1_000_000_000) && !ended
        };
        let written: Vec<Record> = self.records.iter().filter(may_have_landed).copied().collect();
        let geometry = self.disk.geometry(ChunkSize::DEFAULT)?;
        let chunks = Record::chunks(&written, 0, &geometry);
        let extents = pieces(&chunks).map(|piece| (0, geometry.extent_of(piece)));
        let layout = self.history.layout();
        Ok(held.reread(layout, extents, |_, extent, bytes: &mut [u8]| read(view, extent, bytes))?)
    }
}

/// The runs of a bitmap, in pieces that are read at once.
fn pieces(chunks: &Bitmap) -> impl Iterator<Item = ChunkRange> {
    chunks.runs().flat_map(|run| {
        let starts = (run.start.0..run.end.0).step_by(STEP);
        starts.map(move |start| ChunkRange {
            start: ChunkIndex(start),
            end: ChunkIndex(run.end.0.min(start + STEP as u64)),
        })
    })
}

/// A point's view of a disk, whatever it is worth.
pub(crate) fn view(store: &Store, id: DiskId, point: &MachinePoint) -> Result<View> {
    let found = point.disks.iter().find(|(disk, _)| *disk == id);
    let (_, of_disk) = found.context("a point without one of its disks")?;
    store.history(id)?.view_retracted(of_disk.epoch).context("a view of a point")
}

fn read(view: &View, extent: Extent, bytes: &mut [u8]) -> Result<(), ReadError> {
    view.read_at(extent.start.bytes(), bytes)
}
