//! Opening a disk for a source, and making it when it is new.

use std::{path::Path, sync::Arc};

use blocks::{ByteLen, DiskId, Epoch, Generation, Geometry, MachineId};
use storage::{BlockDevice, BlockDeviceError, StorageError, create_dirs};
use wire::{DataKey, Opener};

use super::{Store, has};
use crate::{
    BaseKind, Completeness, Disk, DiskState,
    base::{BaseError, open_device},
    catalog::{Catalog, CatalogError, NAME_LEN_MAX, Record},
    claim::Claim,
    device_record::{DeviceRecord, DeviceRecordError},
    disk::DiskShared,
    error::FailureClass,
    key_store::{self, KeyError},
    layout::DiskPaths,
    opening::RecoverError,
};

/// A store with less room than this does not take another disk.
const ROOM_MIN: ByteLen = ByteLen(16 << 20);

/// What a source says of its disk.
#[derive(Clone, Debug)]
pub struct DiskSpec {
    /// Which disk.
    pub id: DiskId,
    /// The line of its history.
    pub generation: Generation,
    /// Its shape.
    pub geometry: Geometry,
    /// How people call it; at most 255 bytes.
    pub name: String,
    /// The machine it belongs to, as its certificate says.
    pub machine: MachineId,
    /// The key its frames are sealed with.
    pub key: DataKey,
}

/// A disk that can't be opened for a source.
#[derive(Debug, thiserror::Error)]
pub enum OpenDiskError {
    /// Somebody has it open.
    #[error("disk {0} is in use")]
    Busy(DiskId),
    /// It belongs to another machine.
    #[error("the disk belongs to machine {0}")]
    OtherMachine(MachineId),
    /// The history forked: the replica belongs to another line of it.
    #[error("the replica is of generation {stored}")]
    GenerationMismatch {
        /// The replica's.
        stored: Generation,
    },
    /// The disk has another length or block size than its replica.
    #[error("the disk has {}, its replica {}", offered.len(), stored.len())]
    GeometryChanged {
        /// The replica's.
        stored: Geometry,
        /// The disk's.
        offered: Geometry,
    },
    /// The attached device is shorter than the disk.
    #[error("the device holds {found}, the disk {needed}")]
    ReplicaTooSmall {
        /// The length of the disk.
        needed: ByteLen,
        /// The length of the device.
        found: ByteLen,
    },
    /// The store has no room for another disk.
    #[error("the store has {free} left, and needs {needed} to take a disk")]
    NoRoom {
        /// What is left.
        free: ByteLen,
        /// What a new disk needs at once.
        needed: ByteLen,
    },
    /// The name is too long.
    #[error("a name of {0} bytes; {NAME_LEN_MAX} are the limit")]
    NameTooLong(usize),
    /// The attached device can't be used.
    #[error(transparent)]
    Base(BaseError),
    /// The replica can't be recovered.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The key can't be read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The catalogue can't be written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl OpenDiskError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::NoRoom { .. } => FailureClass::StoreFull,
            Self::Recover(error) => error.class(),
            Self::Catalog(error) => error.class(),
            Self::Storage(error) | Self::Key(KeyError::Storage(error)) => {
                FailureClass::of_storage(error)
            }
            Self::Key(KeyError::Damaged(_)) => FailureClass::Corrupt,
            Self::Base(_) => FailureClass::StoreFailed,
            _ => FailureClass::Refused,
        }
    }
}

/// A block device that can't become the base of a disk.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The disk has a base already.
    #[error("disk {0} has a base already")]
    DiskExists(DiskId),
    /// Somebody is opening it.
    #[error("disk {0} is in use")]
    Busy(DiskId),
    /// The path is not absolute.
    #[error("a path from the root is needed")]
    RelativePath,
    /// The device can't be had.
    #[error(transparent)]
    Device(#[from] BlockDeviceError),
    /// The device can't be recorded.
    #[error(transparent)]
    Record(#[from] DeviceRecordError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Store {
    /// Opens the replica of a disk, and makes it if there is none.
    ///
    /// An epoch that is durable stays so whatever the source says of itself here; a source whose
    /// story does not fit the replica's is refused.
    pub fn open_disk(&self, spec: &DiskSpec) -> Result<Disk, OpenDiskError> {
        if spec.name.len() > NAME_LEN_MAX {
            return Err(OpenDiskError::NameTooLong(spec.name.len()));
        }
        let paths = DiskPaths::new(spec.id);
        let claim = match self.claims.claim(spec.id) {
            Some(claim) => claim,
            None => {
                // Whose it is does not change while it is open; a stranger is told that at once.
                let record = Catalog::peek(self.storage.as_ref(), &paths, spec.id)?;
                check_spec(spec, &record)?;
                return Err(OpenDiskError::Busy(spec.id));
            }
        };
        if has(self.storage.as_ref(), &paths.catalog())? {
            // Before anything is done for it: whose replica this is.
            let record = Catalog::peek(self.storage.as_ref(), &paths, spec.id)?;
            check_spec(spec, &record)?;
        } else {
            self.create_disk(spec, &paths)?;
        }
        let shared = self.open_adopted(spec, claim)?;
        Ok(Disk { shared: Arc::new(shared) })
    }

    /// Makes the block device at `path` the base of a disk that does not exist yet. The device's
    /// content is overwritten as the disk is replicated.
    pub fn attach_base(&self, disk: DiskId, path: &Path) -> Result<(), AttachError> {
        let _claim = self.claims.claim(disk).ok_or(AttachError::Busy(disk))?;
        let paths = DiskPaths::new(disk);
        if has(self.storage.as_ref(), &paths.catalog())? {
            return Err(AttachError::DiskExists(disk));
        }
        if !path.is_absolute() {
            return Err(AttachError::RelativePath);
        }
        let identity = BlockDevice::open(path)?.identity().to_owned();
        create_dirs(self.storage.as_ref(), paths.dir())?;
        let record = DeviceRecord { path: path.to_owned(), identity };
        Ok(record.store(self.storage.as_ref(), &paths, disk)?)
    }

    /// Makes what a disk needs, its catalogue last. Only the file of the base comes later: it is
    /// made when a disk without content is opened.
    fn create_disk(&self, spec: &DiskSpec, paths: &DiskPaths) -> Result<(), OpenDiskError> {
        let storage = self.storage.as_ref();
        if has(storage, &paths.base())? {
            let orphan = BaseError::WithoutCatalog(paths.base());
            return Err(RecoverError::Base(orphan).into());
        }
        let free = storage.space()?.free;
        if free < ROOM_MIN {
            return Err(OpenDiskError::NoRoom { free, needed: ROOM_MIN });
        }
        let base = self.kind_of_base(spec, paths)?;
        create_dirs(storage, &paths.incoming())?;
        create_dirs(storage, &paths.deltas())?;
        key_store::store(storage, spec.id, &spec.key)?;
        let record = Record {
            disk: spec.id,
            generation: spec.generation,
            machine: spec.machine,
            geometry: spec.geometry,
            base,
            state: DiskState { last_durable: Epoch::NONE, completeness: Completeness::Empty },
            folded: Epoch::NONE,
            name: spec.name.clone(),
        };
        Catalog::create(storage, paths, record)?;
        Ok(())
    }

    /// A block device if one was attached, and if it is long enough.
    fn kind_of_base(&self, spec: &DiskSpec, paths: &DiskPaths) -> Result<BaseKind, OpenDiskError> {
        let storage = self.storage.as_ref();
        if !has(storage, &paths.base_device())? {
            return Ok(BaseKind::File);
        }
        let device = open_device(storage, paths, spec.id).map_err(OpenDiskError::Base)?;
        let (needed, found) = (spec.geometry.len(), device.len()?);
        if found < needed {
            return Err(OpenDiskError::ReplicaTooSmall { needed, found });
        }
        Ok(BaseKind::Device)
    }

    /// Opens an existing disk and takes over what the source says that may change: the key, the
    /// name, the size of its chunks.
    fn open_adopted(&self, spec: &DiskSpec, claim: Claim) -> Result<DiskShared, OpenDiskError> {
        let storage = self.storage.as_ref();
        let mut shared = self.open_recovered(spec.id, claim)?;
        check_spec(spec, shared.books().catalog.record())?;
        if key_store::load(storage, spec.id)? != spec.key {
            // Nothing sealed with the old key is pending: opening has folded all of it.
            key_store::store(storage, spec.id, &spec.key)?;
            let taker = Arc::get_mut(&mut shared.taker);
            taker.expect("no frame is being taken in").opener = Opener::new(&spec.key);
        }
        let record = shared.books().catalog.record().clone();
        let adopted = Record { name: spec.name.clone(), geometry: spec.geometry, ..record.clone() };
        if adopted != record {
            shared.books().flip(adopted)?;
        }
        Ok(shared)
    }
}

fn check_spec(spec: &DiskSpec, record: &Record) -> Result<(), OpenDiskError> {
    if spec.machine != record.machine {
        return Err(OpenDiskError::OtherMachine(record.machine));
    }
    if spec.generation != record.generation {
        return Err(OpenDiskError::GenerationMismatch { stored: record.generation });
    }
    let shape = |geometry: &Geometry| (geometry.sectors(), geometry.logical_block());
    if shape(&spec.geometry) != shape(&record.geometry) {
        let (stored, offered) = (record.geometry, spec.geometry);
        return Err(OpenDiskError::GeometryChanged { stored, offered });
    }
    Ok(())
}
