//! Which points are being looked at.
//!
//! A lease belongs to the store and not to an open disk: a view outlives the disk it was opened
//! through, and whoever opens the disk next must respect it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use blocks::{DiskId, Epoch};

/// The leases of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases(Arc<Mutex<HashMap<DiskId, BTreeMap<Epoch, usize>>>>);

/// Keeps the content of a disk at an epoch readable until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Leases,
    disk: DiskId,
    epoch: Epoch,
}

impl Leases {
    /// Takes a lease. The caller has made sure that the epoch can be read, and that nobody begins
    /// to change that meanwhile.
    pub(crate) fn take(&self, disk: DiskId, epoch: Epoch) -> Lease {
        *self.lock().entry(disk).or_default().entry(epoch).or_default() += 1;
        Lease { leases: self.clone(), disk, epoch }
    }

    /// Whether there is a lease of this very epoch.
    pub(crate) fn holds(&self, disk: DiskId, epoch: Epoch) -> bool {
        self.lock().get(&disk).is_some_and(|epochs| epochs.contains_key(&epoch))
    }

    /// The oldest epoch of which there is a lease: the base must not be changed past it.
    pub(crate) fn oldest(&self, disk: DiskId) -> Option<Epoch> {
        self.lock().get(&disk).and_then(|epochs| epochs.keys().next().copied())
    }

    /// The epochs of which there is a lease.
    pub(crate) fn epochs(&self, disk: DiskId) -> Vec<Epoch> {
        self.lock().get(&disk).map(|epochs| epochs.keys().copied().collect()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DiskId, BTreeMap<Epoch, usize>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = self.leases.lock();
        let Some(epochs) = leases.get_mut(&self.disk) else { return };
        if let Some(count) = epochs.get_mut(&self.epoch) {
            *count -= 1;
            if *count == 0 {
                epochs.remove(&self.epoch);
            }
        }
        if epochs.is_empty() {
            leases.remove(&self.disk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_until_its_last_holder_is_gone() {
        let leases = Leases::default();
        let disk = DiskId([1; 16]);
        let (first, second) = (leases.take(disk, Epoch(5)), leases.take(disk, Epoch(5)));
        let younger = leases.take(disk, Epoch(9));
        assert_eq!(leases.oldest(disk), Some(Epoch(5)));
        drop(first);
        assert!(leases.holds(disk, Epoch(5)));
        drop(second);
        assert!(!leases.holds(disk, Epoch(5)));
        assert_eq!(leases.oldest(disk), Some(Epoch(9)));
        assert_eq!(leases.oldest(DiskId([2; 16])), None);
        drop(younger);
        assert_eq!(leases.oldest(disk), None);
    }
}
