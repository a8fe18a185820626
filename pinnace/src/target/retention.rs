//! Letting points go as they age: what the policy says, carried out in the background.
//!
//! The ladder (`control/`) chooses, the store (`replica/`) folds and merges, one bounded step at a
//! time; a thread here goes from step to step. While epochs are being received it waits before each
//! step, though not for ever, or history would grow without bound under a source that never rests.
//!
//! A disk without points has no history to keep: its base follows the newest epoch, and that is
//! done by whoever commits it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use blocks::{ByteLen, DiskId, Epoch};
use control::{Kept, Ladder, Point, UnixNs};
use jiff::Timestamp;
use replica::{DiskPoint, MachinePoint, PointStatus, Step, Store};

use super::points;
use crate::admin::points::{Dropped, PrunePlan};
use crate::admin::target::HistoryStatus;

/// How often is looked whether points have aged.
const EVERY: Duration = Duration::from_secs(60);

/// Points that arrive are looked at together, if they come closer to each other than this.
const GATHER: Duration = Duration::from_secs(1);

/// How long a step waits for receiving to pause.
const DEFERENCE: Duration = Duration::from_secs(2);

/// How long to wait before looking again whether it has.
const GLANCE: Duration = Duration::from_millis(20);

/// The policy, and what carries it out. Clones are one.
#[derive(Clone)]
pub(super) struct Retention(Arc<Shared>);

struct Shared {
    store: Arc<Store>,
    ladder: Ladder,
    quota: Option<ByteLen>,
    /// Epochs that are being received.
    receiving: AtomicUsize,
    asked: Mutex<bool>,
    wake: Condvar,
    /// What went wrong in the last pass.
    trouble: Mutex<Option<String>>,
    /// Points that commits have dropped to make room, since the target started.
    hurried: Mutex<Hurried>,
}

/// Points that went before their time: how many, and when the last one did.
#[derive(Clone, Copy, Debug, Default)]
struct Hurried {
    points: usize,
    last: Option<Timestamp>,
}

/// An epoch that is being received. Retention is polite while this lives.
pub(super) struct Receiving(Arc<Shared>);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.receiving.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Retention {
    pub(super) fn new(store: Arc<Store>, ladder: Ladder, quota: Option<ByteLen>) -> Self {
        store.set_quota(quota);
        Self(Arc::new(Shared {
            store,
            ladder,
            quota,
            receiving: AtomicUsize::new(0),
            asked: Mutex::new(false),
            wake: Condvar::new(),
            trouble: Mutex::new(None),
            hurried: Mutex::new(Hurried::default()),
        }))
    }

    /// Begins to carry the policy out, in a thread that ends with the process.
    pub(super) fn start(&self) -> Result<()> {
        let shared = Arc::clone(&self.0);
        let thread = std::thread::Builder::new().name("retention".into());
        thread.spawn(move || shared.run()).context("starting retention")?;
        Ok(())
    }

    /// Something has changed that the policy may have a say in.
    pub(super) fn look(&self) {
        *lock(&self.0.asked) = true;
        self.0.wake.notify_all();
    }

    /// Takes note of points that a commit has dropped to make room.
    pub(super) fn made_room(&self, points: usize) {
        let mut hurried = lock(&self.0.hurried);
        hurried.points += points;
        hurried.last = Some(Timestamp::now());
    }

    /// Takes note of an epoch that is being received.
    pub(super) fn receiving(&self) -> Receiving {
        self.0.receiving.fetch_add(1, Ordering::Relaxed);
        Receiving(Arc::clone(&self.0))
    }

    /// What the policy would drop now.
    pub(super) fn plan_prune(&self) -> Result<PrunePlan> {
        let shared = &self.0;
        let mut plan = PrunePlan {
            ladder: shared.ladder.to_string(),
            quota_bytes: shared.quota.map(|quota| quota.0),
            history_bytes: shared.store.history_bytes().0,
            ..PrunePlan::default()
        };
        let described = points::list(&shared.store)?;
        for machine in shared.store.machines() {
            let points = shared.store.points(machine);
            let kept = keep(&shared.ladder, &points, now());
            plan.kept += kept.kept().count();
            for index in kept.dropped() {
                let id = points[index].record.id.to_string();
                let Some(point) = described.iter().find(|point| point.id == id) else { continue };
                plan.freed_bytes_max += point.delta_bytes;
                let reason = reason(&points[index]).to_owned();
                plan.dropped.push(Dropped { point: point.clone(), reason });
            }
        }
        Ok(plan)
    }

    /// How much history there is, and why room for it is short if it is.
    pub(super) fn status(&self, free: ByteLen) -> Result<HistoryStatus> {
        let shared = &self.0;
        let points = points::list(&shared.store)?;
        let bytes = shared.store.history_bytes();
        let pinned = || points.iter().filter(|point| point.pinned);
        let room = Room {
            bytes,
            quota: shared.quota,
            free,
            pinned: pinned().count(),
            pinned_bytes: ByteLen(pinned().map(|point| point.delta_bytes).sum()),
            hurried: *lock(&shared.hurried),
        };
        let mut notes: Vec<_> = room.shortage().into_iter().collect();
        notes.extend(lock(&shared.trouble).clone());
        Ok(HistoryStatus {
            points: points.len(),
            oldest: points.iter().map(|point| point.time).min(),
            newest: points.iter().map(|point| point.time).max(),
            bytes: bytes.0,
            quota_bytes: shared.quota.map(|quota| quota.0),
            ladder: shared.ladder.to_string(),
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        })
    }
}

impl Shared {
    fn run(&self) {
        let mut settled = HashMap::new();
        loop {
            let trouble =
                self.pass(&mut settled).err().map(|error| format!("retention waits: {error:#}"));
            if let Some(trouble) = &trouble {
                tracing::warn!("{trouble}");
            }
            *lock(&self.trouble) = trouble;
            self.wait();
        }
    }

    fn wait(&self) {
        let asked = lock(&self.asked);
        let nothing = |asked: &mut bool| !*asked;
        let waited = self.wake.wait_timeout_while(asked, EVERY, nothing);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        std::thread::sleep(GATHER);
        *lock(&self.asked) = false;
    }

    /// Carries the policy out once, on all disks whose points are not as they were when there was
    /// nothing left to do: opening a disk that nobody has open is not free. A disk that fails does
    /// not keep the others.
    fn pass(&self, settled: &mut HashMap<DiskId, Vec<Standing>>) -> Result<()> {
        let mut result = Ok(());
        for machine in self.store.machines() {
            let points = self.store.points(machine);
            for (disk, standing) in by_disk(&points, &keep(&self.ladder, &points, now())) {
                if settled.get(&disk) == Some(&standing) {
                    continue;
                }
                let kept = standing.iter().filter(|point| point.kept);
                let kept = kept.map(|point| point.epoch).collect();
                // Points that come while this waits or works were not chosen from.
                let through = standing.last().map_or(Epoch::NONE, |point| point.epoch);
                let retained = self.retain(disk, &kept, through);
                if retained.is_ok() {
                    settled.insert(disk, standing);
                }
                result = result.and(retained.with_context(|| format!("disk {disk}")));
            }
        }
        result
    }

    fn retain(&self, disk: DiskId, keep: &BTreeSet<Epoch>, through: Epoch) -> Result<()> {
        let history = self.store.history(disk)?;
        loop {
            self.defer();
            match history.retain_step(keep, through)? {
                Step::Done => return Ok(()),
                Step::Folded { epoch, dropped } => {
                    tracing::debug!(DISK = %disk, EPOCH = epoch.0, dropped = dropped.len(), "folded");
                }
                Step::Merged { epochs, deltas, dropped } => {
                    let dropped = dropped.len();
                    tracing::debug!(DISK = %disk, EPOCH = epochs.end().0, deltas, dropped, "merged");
                }
            }
        }
    }

    /// Waits until nothing is being received, for a while at most.
    fn defer(&self) {
        let until = Instant::now() + DEFERENCE;
        while self.receiving.load(Ordering::Relaxed) > 0 && Instant::now() < until {
            std::thread::sleep(GLANCE);
        }
    }
}

/// What the ladder says of a machine's points. One that was retracted can stand for no hour and no
/// day.
fn keep(ladder: &Ladder, points: &[MachinePoint], now: UnixNs) -> Kept {
    let point = |point: &MachinePoint| Point {
        cut: UnixNs(point.record.cut.unix_ns),
        consistency: point.record.consistency,
        complete: point.is_there() && !is_retracted(point),
        pinned: point.is_pinned(),
    };
    ladder.keep(&points.iter().map(point).collect::<Vec<_>>(), now)
}

fn is_retracted(point: &MachinePoint) -> bool {
    matches!(point.status(), PointStatus::Retracted(_))
}

/// A point on a disk, as far as retention has to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    epoch: Epoch,
    /// By the ladder.
    kept: bool,
    /// The others decide what the store keeps by itself.
    there: bool,
    status: PointStatus,
    pinned: bool,
    viewed: bool,
}

/// The points of each disk that has any.
fn by_disk(points: &[MachinePoint], kept: &Kept) -> BTreeMap<DiskId, Vec<Standing>> {
    let mut disks: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (index, point) in points.iter().enumerate() {
        let kept = kept.reason(index).is_some();
        let there = point.is_there();
        for (disk, point) in &point.disks {
            let DiskPoint { epoch, status, pinned, viewed, .. } = *point;
            let standing = Standing { epoch, kept, there, status, pinned, viewed };
            disks.entry(*disk).or_default().push(standing);
        }
    }
    disks
}

/// Why the ladder lets a point go.
fn reason(point: &MachinePoint) -> &'static str {
    if is_retracted(point) {
        "it was retracted"
    } else if point.is_there() {
        "the ladder keeps another one of its time, or none so old"
    } else {
        "it never became whole"
    }
}

/// What room there is for history, and what takes it.
struct Room {
    bytes: ByteLen,
    quota: Option<ByteLen>,
    free: ByteLen,
    pinned: usize,
    pinned_bytes: ByteLen,
    hurried: Hurried,
}

impl Room {
    /// Why it is short, if it is.
    fn shortage(&self) -> Option<String> {
        let Self { bytes, quota, free, pinned, pinned_bytes, hurried } = self;
        let short = match quota {
            Some(quota) => quota.0.saturating_sub(bytes.0) < quota.0 / 10,
            None => false,
        };
        // Less than history takes already, by far: it would soon be gone.
        let short = short || free.0 < bytes.0 / 10;
        let what = match hurried.last {
            Some(last) => format!(
                "{} points went before the ladder lets them, the last at {last:.0}",
                hurried.points
            ),
            None if short => "old points will go before the ladder lets them".to_owned(),
            None => return None,
        };
        let limit = match quota {
            Some(quota) => format!("history takes {bytes} of its quota of {quota}"),
            None => format!("history takes {bytes} and {free} are left"),
        };
        let held = match pinned {
            0 => String::new(),
            _ => format!(", {pinned_bytes} of it for {pinned} pinned points"),
        };
        Some(format!("{what}: {limit}{held}"))
    }
}

fn now() -> UnixNs {
    UnixNs(u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn room(bytes: u64, quota: Option<u64>, free: u64) -> Room {
        let (bytes, quota, free) = (ByteLen(bytes), quota.map(ByteLen), ByteLen(free));
        let hurried = Hurried::default();
        Room { bytes, quota, free, pinned: 0, pinned_bytes: ByteLen(0), hurried }
    }

    #[test]
    fn a_shortage_is_explained_and_plenty_is_not() {
        assert_eq!(room(GIB, Some(10 * GIB), 100 * GIB).shortage(), None);
        assert_eq!(room(GIB, None, 100 * GIB).shortage(), None);
        let full = room(10 * GIB, Some(10 * GIB), 100 * GIB);
        let full = Room { pinned: 2, pinned_bytes: ByteLen(4 * GIB), ..full }.shortage().unwrap();
        assert!(full.contains("will go") && full.contains("quota of 10 GiB"), "{full}");
        assert!(full.contains("4 GiB of it for 2 pinned"), "{full}");
        let small = room(10 * GIB, None, GIB / 2).shortage().unwrap();
        assert!(small.contains("512 MiB are left"), "{small}");
        let hurried = Hurried { points: 3, last: Some(Timestamp::UNIX_EPOCH) };
        let went = Room { hurried, ..room(GIB, Some(10 * GIB), 100 * GIB) }.shortage().unwrap();
        assert!(went.contains("3 points went") && went.contains("1970-01-01T00:00:00Z"), "{went}");
    }
}
