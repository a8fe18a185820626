//! One opener of a disk at a time.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use blocks::DiskId;

/// The disks of a store that are open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims(Arc<Mutex<HashSet<DiskId>>>);

/// The right to use a disk, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    claims: Claims,
    disk: DiskId,
}

impl Claims {
    /// Claims `disk`, unless somebody has.
    pub(crate) fn claim(&self, disk: DiskId) -> Option<Claim> {
        self.lock().insert(disk).then(|| Claim { claims: self.clone(), disk })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<DiskId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.lock().remove(&self.disk);
    }
}
