//! What all disks of a store hold, in memory: the points over the disks of a machine, the room that
//! history takes, and which points nobody may drop.
//!
//! Every disk publishes what it holds after each change, so asking costs no I/O, and a disk that is
//! closed is known too. Taken last of all locks, and held for no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use blocks::{ByteLen, DiskId, Epoch, MachineId, PointId};

use super::{DiskPoint, MachinePoint, PointStatus};
use crate::{VIEW_CACHE_DEFAULT, leases::Leases};

/// What a disk holds.
#[derive(Clone, Debug)]
pub(crate) struct DiskPoints {
    pub(crate) machine: MachineId,
    /// In rising epochs.
    pub(crate) points: Vec<DiskPoint>,
    /// What its deltas take.
    pub(crate) bytes: ByteLen,
}

/// What all disks hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    disks: Arc<Mutex<BTreeMap<DiskId, DiskPoints>>>,
    pub(crate) leases: Leases,
    quota: Arc<Mutex<Option<ByteLen>>>,
    /// What of decoded frames a view that is opened from now on may keep; unset, the default.
    view_cache: Arc<Mutex<Option<ByteLen>>>,
}

impl Registry {
    pub(crate) fn publish(&self, disk: DiskId, held: DiskPoints) {
        self.lock().insert(disk, held);
    }

    pub(crate) fn forget(&self, disk: DiskId) {
        self.lock().remove(&disk);
    }

    pub(crate) fn machines(&self) -> Vec<MachineId> {
        let machines: BTreeSet<_> = self.lock().values().map(|held| held.machine).collect();
        machines.into_iter().collect()
    }

    /// The points of a machine, in an order that is rising on each of its disks.
    pub(crate) fn points(&self, machine: MachineId) -> Vec<MachinePoint> {
        let disks = self.lock();
        let mut points: Vec<MachinePoint> = Vec::new();
        for (disk, held) in disks.iter().filter(|(_, held)| held.machine == machine) {
            // Where the point of this disk that was placed last is: the next one comes after it.
            let mut at = 0;
            for point in &held.points {
                let viewed = self.leases.holds(*disk, point.epoch);
                let point = DiskPoint { viewed, ..point.clone() };
                let known = points.iter().position(|known| known.record.id == point.record.id);
                at = known.unwrap_or_else(|| {
                    let record = point.record;
                    let before = |known: &MachinePoint| known.record.cut <= record.cut;
                    let place = points.iter().position(|known| !before(known));
                    let place = place.unwrap_or(points.len()).max(at);
                    points.insert(place, MachinePoint { record, disks: Vec::new() });
                    place
                });
                points[at].disks.push((*disk, point));
                at += 1;
            }
        }
        points
    }

    /// The epochs of a disk whose points are kept whatever anybody asks for: of those that are
    /// there on all disks the newest confirmed one and the newest at all, and the newest of this
    /// disk. Retracted points are none.
    pub(crate) fn always_kept(&self, disk: DiskId) -> BTreeSet<Epoch> {
        let disks = self.lock();
        let Some(held) = disks.get(&disk) else { return BTreeSet::new() };
        // How many disks of the machine hold a point, and on how many it is confirmed.
        let mut holders: BTreeMap<PointId, (u16, u16)> = BTreeMap::new();
        let mut retracted = BTreeSet::new();
        for point in disks.values().filter(|d| d.machine == held.machine).flat_map(|d| &d.points) {
            let (held, confirmed) = holders.entry(point.record.id).or_default();
            *held += 1;
            match point.status {
                PointStatus::Confirmed => *confirmed += 1,
                PointStatus::Provisional => {}
                PointStatus::Retracted(_) => {
                    retracted.insert(point.record.id);
                }
            }
        }
        let newest = |is_wanted: &dyn Fn(&DiskPoint) -> bool| {
            let mut newest = held.points.iter().rev();
            newest.find(|p| !retracted.contains(&p.record.id) && is_wanted(p)).map(|p| p.epoch)
        };
        let confirmed = newest(&|p| holders[&p.record.id].1 >= p.record.disks);
        let there = newest(&|p| holders[&p.record.id].0 >= p.record.disks);
        [confirmed, there, newest(&|_| true)].into_iter().flatten().collect()
    }

    /// What the deltas of all disks take.
    pub(crate) fn bytes(&self) -> ByteLen {
        ByteLen(self.lock().values().map(|held| held.bytes.0).sum())
    }

    pub(crate) fn set_quota(&self, quota: Option<ByteLen>) {
        *self.quota.lock().unwrap_or_else(PoisonError::into_inner) = quota;
    }

    pub(crate) fn quota(&self) -> Option<ByteLen> {
        *self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_view_cache(&self, bytes: ByteLen) {
        *self.view_cache.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
    }

    pub(crate) fn view_cache(&self) -> ByteLen {
        let set = *self.view_cache.lock().unwrap_or_else(PoisonError::into_inner);
        set.unwrap_or(VIEW_CACHE_DEFAULT)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DiskId, DiskPoints>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use blocks::{
        Consistency, CutMethod, CutTime, MonotonicNs, PointRecord, RetractReason::CrossCheck,
    };

    use super::*;
    use PointStatus::{Confirmed, Provisional, Retracted};

    const MACHINE: MachineId = MachineId([7; 16]);
    const DISKS: [DiskId; 2] = [DiskId([1; 16]), DiskId([2; 16])];

    fn point(number: u8, epoch: u64, status: PointStatus) -> DiskPoint {
        let unix_ns = u64::from(number) * 1_000;
        let record = PointRecord {
            id: PointId([number; 16]),
            cut: CutTime { unix_ns, monotonic: MonotonicNs(unix_ns) },
            consistency: Consistency::Crash,
            method: CutMethod::Verified,
            disks: 2,
            attempts: 1,
            window: Duration::ZERO,
            freeze: Duration::ZERO,
        };
        let (pinned, viewed, bytes) = (false, false, ByteLen(100));
        DiskPoint { epoch: Epoch(epoch), record, status, pinned, viewed, bytes }
    }

    fn registry(points: [Vec<DiskPoint>; 2]) -> Registry {
        let registry = Registry::default();
        for (disk, points) in DISKS.into_iter().zip(points) {
            let held = DiskPoints { machine: MACHINE, points, bytes: ByteLen(100) };
            registry.publish(disk, held);
        }
        registry
    }

    #[test]
    fn a_point_is_there_once_all_its_disks_hold_it() {
        let registry = registry([
            vec![point(1, 10, Confirmed), point(3, 12, Provisional)],
            vec![
                point(1, 20, Confirmed),
                point(2, 21, Provisional),
                point(3, 22, Retracted(CrossCheck)),
            ],
        ]);
        let points = registry.points(MACHINE);
        let shown: Vec<_> =
            points.iter().map(|p| (p.record.id.0[0], p.is_there(), p.status())).collect();
        let expected =
            [(1, true, Confirmed), (2, false, Provisional), (3, true, Retracted(CrossCheck))];
        assert_eq!(shown, expected);
        assert_eq!(registry.points(MachineId([8; 16])), []);
        assert_eq!(registry.machines(), [MACHINE]);
        assert_eq!(registry.bytes(), ByteLen(200));
        registry.forget(DISKS[1]);
        assert!(!registry.points(MACHINE)[0].is_there());
    }

    #[test]
    fn what_is_always_kept_is_what_a_machine_could_start_from() {
        let kept = |points| -> Vec<u64> {
            registry(points).always_kept(DISKS[0]).into_iter().map(|epoch| epoch.0).collect()
        };
        let p = point;
        // Confirmed and there; there; not there yet.
        let second = vec![p(1, 20, Confirmed), p(2, 21, Provisional)];
        let first = vec![p(1, 10, Confirmed), p(2, 11, Provisional), p(3, 12, Provisional)];
        assert_eq!(kept([first.clone(), second]), [10, 11, 12]);
        // Retracted on the other disk only: no point on either.
        let second = vec![p(1, 20, Confirmed), p(2, 21, Retracted(CrossCheck))];
        assert_eq!(kept([first.clone(), second]), [10, 12]);
        let none: [u64; 0] = [];
        assert_eq!(kept([vec![p(1, 10, Retracted(CrossCheck))], vec![]]), none);
        let all = [p(1, 10, Confirmed), p(2, 11, Confirmed), p(3, 12, Confirmed)];
        assert_eq!(kept([all.to_vec(), all.to_vec()]), [12]);
    }
}
