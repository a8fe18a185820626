//! Removing a disk from the store.
//!
//! Its catalogue is renamed first, durably: from then on the disk does not exist. What a crash
//! leaves of the rest is removed when the store is opened next.

use blocks::DiskId;
use storage::{Storage, StorageError, StorePath};

use super::{Store, has};
use crate::{
    error::FailureClass,
    layout::{self, DiskPaths, disk_of_name},
};

/// A disk that can't be removed.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// It is open.
    #[error("disk {0} is in use")]
    Busy(DiskId),
    /// There is none of that name.
    #[error("there is no disk {0}")]
    Unknown(DiskId),
    /// The storage failed. If the disk is gone from the listing, the rest goes when the store is
    /// opened next.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ForgetError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Busy(_) | Self::Unknown(_) => FailureClass::Refused,
            Self::Storage(error) => FailureClass::of_storage(error),
        }
    }
}

impl Store {
    /// Removes a disk with its base, its deltas and its key. The content of a block device stays.
    pub fn forget(&self, disk: DiskId) -> Result<(), ForgetError> {
        let _claim = self.claims.claim(disk).ok_or(ForgetError::Busy(disk))?;
        if self.registry.leases.oldest(disk).is_some() {
            return Err(ForgetError::Busy(disk));
        }
        let (storage, paths) = (self.storage.as_ref(), DiskPaths::new(disk));
        if !has(storage, &paths.catalog())? {
            return Err(ForgetError::Unknown(disk));
        }
        storage.rename(&paths.catalog(), &paths.forgotten())?;
        storage.sync_dir(paths.dir())?;
        self.registry.forget(disk);
        Ok(remove_rest(storage, disk)?)
    }

    /// Removes the rest of disks whose removal, or whose making, was cut short.
    pub(super) fn remove_remains(&self) -> Result<(), StorageError> {
        let storage = self.storage.as_ref();
        for disk in storage.list(&layout::disks())?.iter().filter_map(|name| disk_of_name(name)) {
            let paths = DiskPaths::new(disk);
            let names = storage.list(paths.dir())?;
            let has = |path: &StorePath| names.iter().any(|name| name == path.name());
            // A base without a catalogue is kept for people to look at, and an attached device
            // waits for its disk.
            let is_kept = has(&paths.base()) || has(&paths.base_device());
            if !has(&paths.catalog()) && (has(&paths.forgotten()) || !is_kept) {
                remove_rest(storage, disk)?;
            }
        }
        Ok(())
    }
}

/// Removes everything of a disk without a catalogue; the renamed catalogue goes last, so
/// that this is begun again if it is cut short.
fn remove_rest(storage: &dyn Storage, disk: DiskId) -> Result<(), StorageError> {
    let paths = DiskPaths::new(disk);
    for dir in [paths.incoming(), paths.deltas()] {
        remove_all(storage, &dir)?;
        ignore_missing(storage.remove_dir(&dir))?;
    }
    ignore_missing(storage.remove(&layout::key(disk)))?;
    storage.sync_dir(&layout::keys())?;
    for name in storage.list(paths.dir())? {
        let path = paths.dir().join(&name);
        if path != paths.forgotten() {
            storage.remove(&path)?;
        }
    }
    storage.sync_dir(paths.dir())?;
    ignore_missing(storage.remove(&paths.forgotten()))?;
    storage.remove_dir(paths.dir())?;
    storage.sync_dir(&layout::disks())
}

fn remove_all(storage: &dyn Storage, dir: &StorePath) -> Result<(), StorageError> {
    match storage.list(dir) {
        Ok(names) => names.iter().try_for_each(|name| storage.remove(&dir.join(name))),
        Err(error) => ignore_missing(Err(error)),
    }
}

fn ignore_missing(result: Result<(), StorageError>) -> Result<(), StorageError> {
    match result {
        Err(error) if error.is_missing() => Ok(()),
        result => result,
    }
}
