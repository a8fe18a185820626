//! Opening a disk for a source, and making it when it is new.

use std::{path::Path, sync::Arc};

use blocks::{ByteLen, DiskId, Epoch, Generation, Geometry, Lineage, MachineId, Tickets};
use storage::{BlockDevice, BlockDeviceError, StorageError, create_dirs};
use wire::DataKey;

use super::{HistoryError, Store, has};
use crate::{
    BaseKind, Completeness, Disk, DiskState, ReplicaRole,
    base::{BaseError, open_device},
    catalog::{Catalog, CatalogError, Marks, NAME_LEN_MAX, Record},
    claim::Claim,
    device_record::{DeviceRecord, DeviceRecordError},
    disk::{DiskShared, Health},
    error::FailureClass,
    fold::FoldError,
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
    /// The replica was promoted: it is a disk of its own.
    #[error("the replica was promoted")]
    Promoted,
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
    /// Points are kept that only the old key opens.
    #[error("the disk has another key than the points that are kept of it")]
    KeyChanged,
    /// What was sealed with the old key can't be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
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

impl From<HistoryError> for OpenDiskError {
    fn from(error: HistoryError) -> Self {
        match error {
            // It was removed since it was found.
            HistoryError::Unknown(disk) | HistoryError::Busy(disk) => Self::Busy(disk),
            HistoryError::Recover(error) => Self::Recover(error),
            HistoryError::Storage(error) => Self::Storage(error),
        }
    }
}

impl OpenDiskError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::NoRoom { .. } => FailureClass::StoreFull,
            Self::Recover(error) => error.class(),
            Self::Fold(error) => error.class(),
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
        let source = self.claim_source(spec)?;
        self.find_or_create(spec, |record| check_line(spec, record))?;
        let shared = self.open_adopted(spec)?;
        Ok(Disk { shared, source: Arc::new(source) })
    }

    /// The right of the source to a disk; a stranger does not get it.
    pub(super) fn claim_source(&self, spec: &DiskSpec) -> Result<Claim, OpenDiskError> {
        if spec.name.len() > NAME_LEN_MAX {
            return Err(OpenDiskError::NameTooLong(spec.name.len()));
        }
        let (storage, paths) = (self.storage.as_ref(), DiskPaths::new(spec.id));
        self.sources.claim(spec.id).ok_or_else(|| {
            // Whose it is does not change while it is open; a stranger is told that at once.
            let record = Catalog::peek(storage, &paths, spec.id).map_err(OpenDiskError::from);
            let checked = record.and_then(|record| check_whose(spec, &record));
            checked.err().unwrap_or(OpenDiskError::Busy(spec.id))
        })
    }

    /// Sees to it that the disk exists, and that it is the source's and may be opened, before
    /// anything is done for it.
    pub(super) fn find_or_create<E: From<OpenDiskError>>(
        &self,
        spec: &DiskSpec,
        check: impl FnOnce(&Record) -> Result<(), E>,
    ) -> Result<(), E> {
        let (storage, paths) = (self.storage.as_ref(), DiskPaths::new(spec.id));
        if has(storage, &paths.catalog()).map_err(OpenDiskError::from)? {
            let record = Catalog::peek(storage, &paths, spec.id).map_err(OpenDiskError::from)?;
            check_whose(spec, &record)?;
            return check(&record);
        }
        let _claim = self.claims.claim(spec.id).ok_or(OpenDiskError::Busy(spec.id))?;
        Ok(self.create_disk(spec, &paths)?)
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
            lineage: Lineage::begin(spec.generation),
            role: ReplicaRole::Follower,
            tickets: Tickets::default(),
            machine: spec.machine,
            geometry: spec.geometry,
            base,
            state: DiskState { last_durable: Epoch::NONE, completeness: Completeness::Empty },
            folded: Epoch::NONE,
            name: spec.name.clone(),
            base_point: None,
            hashed: 0,
            marks: Marks::default(),
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
    pub(super) fn open_adopted(&self, spec: &DiskSpec) -> Result<Arc<DiskShared>, OpenDiskError> {
        let storage = self.storage.as_ref();
        let mut shared = self.open_shared(spec.id)?;
        check_whose(spec, shared.books().catalog.record())?;
        if key_store::load(storage, spec.id)? != spec.key {
            self.change_key(&shared, spec)?;
            // Opened anew with it; somebody who looks at its history meanwhile is in the way.
            drop(shared);
            shared = self.open_shared(spec.id)?;
        }
        let mut books = shared.books();
        let record = books.catalog.record().clone();
        let adopted = Record { name: spec.name.clone(), geometry: spec.geometry, ..record.clone() };
        if adopted != record {
            books.flip(adopted)?;
        }
        drop(books);
        Ok(shared)
    }

    /// Durably replaces the key of a disk. What was sealed with the old one goes into the base
    /// first; what must stay as it is needs the old key, and then the new one is refused.
    fn change_key(&self, shared: &Arc<DiskShared>, spec: &DiskSpec) -> Result<(), OpenDiskError> {
        let folding = shared.lock_folding();
        shared.fold_all(&folding)?;
        if !shared.books().pending.is_empty() {
            return Err(OpenDiskError::KeyChanged);
        }
        if Arc::strong_count(shared) > 1 {
            return Err(OpenDiskError::Busy(spec.id));
        }
        key_store::store(self.storage.as_ref(), spec.id, &spec.key)?;
        // Whoever has come by the old opener since must not be taken for an opener of the new.
        shared.books().health = Health::Unknown;
        Ok(())
    }
}

/// Whether the replica is in the source's line, and nothing but its replica.
fn check_line(spec: &DiskSpec, record: &Record) -> Result<(), OpenDiskError> {
    if spec.generation != record.generation() {
        return Err(OpenDiskError::GenerationMismatch { stored: record.generation() });
    }
    match record.role {
        ReplicaRole::Follower => Ok(()),
        ReplicaRole::Promoted => Err(OpenDiskError::Promoted),
    }
}

/// Whether the replica is of this machine's disk.
fn check_whose(spec: &DiskSpec, record: &Record) -> Result<(), OpenDiskError> {
    if spec.machine != record.machine {
        return Err(OpenDiskError::OtherMachine(record.machine));
    }
    let shape = |geometry: &Geometry| (geometry.sectors(), geometry.logical_block());
    if shape(&spec.geometry) != shape(&record.geometry) {
        let (stored, offered) = (record.geometry, spec.geometry);
        return Err(OpenDiskError::GeometryChanged { stored, offered });
    }
    Ok(())
}
