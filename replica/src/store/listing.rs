//! What is in the store, for people.

use std::path::{Path, PathBuf};

use blocks::{ByteLen, DiskId, Epoch, Generation, Geometry, MachineId};
use storage::{FileStorage, OpenMode, Space, Storage, StorageError, StorePath};

use super::{OpenStoreError, Store, check_version, disks_of};
use crate::{
    BaseKind, DiskState, ReplicaRole,
    catalog::{Catalog, CatalogError},
    device_record::DeviceRecord,
    layout::DiskPaths,
};

/// A disk of the store.
#[derive(Debug)]
pub struct DiskListing {
    /// Which disk.
    pub id: DiskId,
    /// What its catalogue says, or why that can't be read.
    pub summary: Result<DiskSummary, CatalogError>,
}

/// What the catalogue says of a disk, and the room it takes.
#[derive(Clone, Debug)]
pub struct DiskSummary {
    /// Whose it is.
    pub machine: MachineId,
    /// How people call it.
    pub name: String,
    /// The line of its history.
    pub generation: Generation,
    /// What it is to its source.
    pub role: ReplicaRole,
    /// Its shape.
    pub geometry: Geometry,
    /// How far the replica has come.
    pub state: DiskState,
    /// The newest epoch that is in the base.
    pub folded: Epoch,
    /// Whether the base is a file of the store.
    pub base: BaseKind,
    /// Where the base is.
    pub base_path: PathBuf,
    /// Room that the base takes in the store.
    pub base_allocated: ByteLen,
    /// Room that the deltas take.
    pub deltas: ByteLen,
}

/// The room in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What the file system has.
    pub space: Space,
    /// What the bases take, those on block devices left out.
    pub bases: ByteLen,
    /// What deltas and epochs being received take.
    pub deltas: ByteLen,
}

/// A store that can't be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It can't be read as a store.
    #[error(transparent)]
    Open(#[from] OpenStoreError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Store {
    /// The disks of this store.
    pub fn disks(&self) -> Result<Vec<DiskListing>, StorageError> {
        list(self.storage.as_ref())
    }

    /// The disks of the store in `dir`, which another process may have open. Takes no lock and
    /// changes nothing; what is being changed meanwhile shows as it was or as it is.
    pub fn inspect(dir: &Path) -> Result<Vec<DiskListing>, InspectError> {
        let storage = FileStorage::shared(dir);
        check_version(&storage)?;
        Ok(list(&storage)?)
    }

    /// How much room there is, and who takes it.
    pub fn usage(&self) -> Result<Usage, StorageError> {
        let storage = self.storage.as_ref();
        let (mut bases, mut deltas) = (0, 0);
        for disk in disks_of(storage)? {
            let paths = DiskPaths::new(disk);
            bases += allocated(storage, &paths.base())?;
            deltas += allocated_in(storage, &paths.deltas())?;
            deltas += allocated_in(storage, &paths.incoming())?;
        }
        Ok(Usage { space: storage.space()?, bases: ByteLen(bases), deltas: ByteLen(deltas) })
    }
}

fn list(storage: &dyn Storage) -> Result<Vec<DiskListing>, StorageError> {
    let summarise = |id| Ok(DiskListing { id, summary: summary(storage, id)? });
    disks_of(storage)?.into_iter().map(summarise).collect()
}

fn summary(
    storage: &dyn Storage,
    disk: DiskId,
) -> Result<Result<DiskSummary, CatalogError>, StorageError> {
    let paths = DiskPaths::new(disk);
    let record = match Catalog::peek(storage, &paths, disk) {
        Ok(record) => record,
        Err(error) => return Ok(Err(error)),
    };
    let base_path = match record.base {
        BaseKind::File => path_of(storage, &paths.base()),
        BaseKind::Device => {
            DeviceRecord::load(storage, &paths, disk).map(|device| device.path).unwrap_or_default()
        }
    };
    Ok(Ok(DiskSummary {
        machine: record.machine,
        generation: record.generation(),
        name: record.name,
        role: record.role,
        geometry: record.geometry,
        state: record.state,
        folded: record.folded,
        base: record.base,
        base_path,
        base_allocated: ByteLen(allocated(storage, &paths.base())?),
        deltas: ByteLen(allocated_in(storage, &paths.deltas())?),
    }))
}

/// The path of a file for the operating system; empty if there is no such file.
fn path_of(storage: &dyn Storage, path: &StorePath) -> PathBuf {
    storage.open(path, OpenMode::Read).map(|file| file.path().to_owned()).unwrap_or_default()
}

/// Room that a file takes: none if it is gone, as it may be at any time.
fn allocated(storage: &dyn Storage, path: &StorePath) -> Result<u64, StorageError> {
    match storage.open(path, OpenMode::Read) {
        Ok(file) => Ok(file.allocated()?.0),
        Err(error) if error.is_missing() => Ok(0),
        Err(error) => Err(error),
    }
}

fn allocated_in(storage: &dyn Storage, dir: &StorePath) -> Result<u64, StorageError> {
    storage.list(dir)?.iter().map(|name| allocated(storage, &dir.join(name))).sum()
}
