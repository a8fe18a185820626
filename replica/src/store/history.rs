//! Disks as others than their sources see them.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use blocks::{ByteLen, DiskId, MachineId};
use storage::StorageError;

use super::{Store, has};
use crate::{
    History, MachinePoint, disk::DiskShared, error::FailureClass, layout::DiskPaths,
    opening::RecoverError,
};

/// How long a disk that somebody is just opening, or closing, is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A disk of which the history can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// There is none of that name.
    #[error("there is no disk {0}")]
    Unknown(DiskId),
    /// It is being made or removed; or an earlier failure left unknown what is durable, and
    /// somebody still has it open since then.
    #[error("disk {0} is in use")]
    Busy(DiskId),
    /// The replica can't be recovered.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl HistoryError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Unknown(_) | Self::Busy(_) => FailureClass::Refused,
            Self::Recover(error) => error.class(),
            Self::Storage(error) => FailureClass::of_storage(error),
        }
    }
}

impl Store {
    /// The history of a disk; opens the disk if nobody has it open.
    pub fn history(&self, disk: DiskId) -> Result<History, HistoryError> {
        Ok(History { shared: self.open_shared(disk)? })
    }

    /// The points of a machine, in an order that is rising on each of its disks. From memory.
    pub fn points(&self, machine: MachineId) -> Vec<MachinePoint> {
        self.registry.points(machine)
    }

    /// The machines that disks of the store belong to, those of damaged disks left out. From memory.
    pub fn machines(&self) -> Vec<MachineId> {
        self.registry.machines()
    }

    /// What the deltas of all disks take. From memory.
    pub fn history_bytes(&self) -> ByteLen {
        self.registry.bytes()
    }

    /// Limits what the deltas of all disks may take; without a limit there is only the file
    /// system's.
    pub fn set_quota(&self, quota: Option<ByteLen>) {
        self.registry.set_quota(quota);
    }

    /// Limits what a view that is opened from now on keeps of decoded frames. However little it is,
    /// what is read is the same; frames are decoded more often.
    pub fn set_view_cache(&self, bytes: ByteLen) {
        self.registry.set_view_cache(bytes);
    }

    /// The disk as whoever has it open has it, or opened.
    pub(super) fn open_shared(&self, disk: DiskId) -> Result<Arc<DiskShared>, HistoryError> {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let open = self.table().get(&disk).and_then(Weak::upgrade);
            if let Some(shared) = open {
                let healthy = shared.books().check_health().is_ok();
                return if healthy { Ok(shared) } else { Err(HistoryError::Busy(disk)) };
            }
            if let Some(claim) = self.claims.claim(disk) {
                if !has(self.storage.as_ref(), &DiskPaths::new(disk).catalog())? {
                    return Err(HistoryError::Unknown(disk));
                }
                let shared = Arc::new(self.open_claimed(disk, claim)?);
                self.table().insert(disk, Arc::downgrade(&shared));
                return Ok(shared);
            }
            if std::time::Instant::now() >= deadline {
                return Err(HistoryError::Busy(disk));
            }
            // Somebody is opening or closing it, and says nothing when that is done.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn table(&self) -> MutexGuard<'_, HashMap<DiskId, Weak<DiskShared>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
