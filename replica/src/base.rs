//! The base: the oldest content a disk can be read at, a raw image in a sparse file or on a block
//! device.
//!
//! Invariants: it is at least as long as the disk; when `synced` says so, everything ever written
//! to it is durable. It does not know epochs: what it holds the catalogue says.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use blocks::{Bitmap, ByteLen, ChunkRange, DiskId, Extent, Geometry};
use storage::{
    BlockDevice, BlockDeviceError, OpenMode, Storage, StorageError, StorageFile, StorePath,
};

use crate::{
    BaseKind,
    catalog::{Completeness, Record},
    device_record::{DeviceRecord, DeviceRecordError},
    layout::DiskPaths,
};

/// The base of a disk.
#[derive(Debug)]
pub(crate) struct Base {
    file: Arc<dyn StorageFile>,
    geometry: Geometry,
    history: History,
    synced: AtomicBool,
    /// One writer at a time. The kernel has it so for every file, and lets the others spin for the
    /// processor that could decode the next frame meanwhile.
    writing: Mutex<()>,
}

/// What is known of the base's earlier content.
#[derive(Debug)]
enum History {
    /// This process created it: all zeroes but the chunks in the set.
    Fresh { written: Mutex<Bitmap> },
    /// It may hold anything anywhere.
    Unknown,
}

/// A base that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The block device can't be had.
    #[error(transparent)]
    Device(#[from] BlockDeviceError),
    /// The record of the block device can't be read.
    #[error(transparent)]
    Record(#[from] DeviceRecordError),
    /// Another device is behind the name than the one that was attached.
    #[error("the device is {found:?}, but {recorded:?} was attached")]
    DeviceChanged {
        /// What was attached.
        recorded: String,
        /// What is there now.
        found: String,
    },
    /// It is shorter than the disk.
    #[error("the base holds {found}, the disk {needed}")]
    TooSmall {
        /// The length of the disk.
        needed: ByteLen,
        /// The length of the base.
        found: ByteLen,
    },
    /// The file is gone though epochs were committed to it.
    #[error("{0} is missing")]
    Missing(StorePath),
    /// There is a base and no catalogue, so nobody knows what it holds.
    #[error("{0} exists, but its catalogue does not")]
    WithoutCatalog(StorePath),
}

impl Base {
    /// Opens the base of a disk whose catalogue says `record`; creates the file of a disk that
    /// holds nothing yet. All that it shows is durable afterwards.
    pub(crate) fn open(
        storage: &dyn Storage,
        paths: &DiskPaths,
        record: &Record,
    ) -> Result<Self, BaseError> {
        let geometry = record.geometry;
        let base = |file, history| {
            let (synced, writing) = (AtomicBool::new(true), Mutex::default());
            Self { file, geometry, history, synced, writing }
        };
        let base = match record.base {
            BaseKind::Device => {
                base(open_device(storage, paths, record.disk)?.into_file(), History::Unknown)
            }
            BaseKind::File => match storage.open(&paths.base(), OpenMode::Write) {
                Ok(file) => base(file, History::Unknown),
                Err(error)
                    if error.is_missing() && record.state.completeness == Completeness::Empty =>
                {
                    let file = storage.open(&paths.base(), OpenMode::Create)?;
                    // First, so that a length the file system can't hold costs nothing.
                    file.set_len(geometry.len())?;
                    let written = Mutex::new(Bitmap::new(geometry.chunks()));
                    base(file, History::Fresh { written })
                }
                Err(error) if error.is_missing() => return Err(BaseError::Missing(paths.base())),
                Err(error) => return Err(error.into()),
            },
        };
        if record.base == BaseKind::File && record.state.completeness == Completeness::Empty {
            base.file.set_len(geometry.len())?;
            base.file.sync_data()?;
            storage.sync_dir(&paths.base().parent())?;
        }
        base.settle()
    }

    /// The base for somebody who only reads, and may do so longer than the disk is open.
    pub(crate) fn open_reader(
        storage: &dyn Storage,
        paths: &DiskPaths,
        record: &Record,
    ) -> Result<Arc<dyn StorageFile>, BaseError> {
        match record.base {
            BaseKind::File => Ok(storage.open(&paths.base(), OpenMode::Read)?),
            BaseKind::Device => {
                let device = open_recorded(storage, paths, record.disk, BlockDevice::open_shared);
                Ok(device?.into_file())
            }
        }
    }

    /// Makes durable what an earlier process left in the page cache, and forgets what a failed
    /// sync left there: comparisons must see what the medium holds.
    fn settle(self) -> Result<Self, BaseError> {
        let (needed, found) = (self.geometry.len(), self.file.len()?);
        if found < needed {
            return Err(BaseError::TooSmall { needed, found });
        }
        self.file.sync_data()?;
        self.file.drop_cache()?;
        Ok(self)
    }

    /// Whether this process made it, so that it is zeroes wherever nobody has written since.
    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self.history, History::Fresh { .. })
    }

    /// Its path for the operating system.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Writes the content of an extent that lies within the disk.
    pub(crate) fn write(&self, extent: Extent, bytes: &[u8]) -> Result<(), StorageError> {
        debug_assert_eq!(extent.len().0, bytes.len() as u64, "the content of the whole extent");
        if let History::Fresh { written } = &self.history {
            let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
            written.insert_range(self.geometry.chunks_of(extent));
        }
        // It guards nothing but the processor.
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.file.write_at(extent.start.bytes(), bytes);
        drop(writing);
        self.synced.store(false, Ordering::Release);
        result
    }

    /// Makes an extent that lies within the disk read as zeroes; says whether it may have read as
    /// anything else.
    pub(crate) fn zero(&self, extent: Extent) -> Result<bool, StorageError> {
        if self.is_untouched(self.geometry.chunks_of(extent)) {
            return Ok(false);
        }
        let result = self.file.zero_range(extent.start.bytes(), extent.len().0);
        self.synced.store(false, Ordering::Release);
        result.map(|()| true)
    }

    /// The file, for whoever reads it.
    pub(crate) fn file(&self) -> &dyn StorageFile {
        self.file.as_ref()
    }

    /// Makes durable all writes that have returned.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        // Cleared first: a write that ends during the sync may be too late for it, and sets it
        // again.
        self.synced.store(true, Ordering::Release);
        self.file.sync_data().inspect_err(|_| self.synced.store(false, Ordering::Release))
    }

    /// As [`Self::sync`], if anything was written since the last one. No write may be under way.
    pub(crate) fn sync_if_needed(&self) -> Result<(), StorageError> {
        if self.synced.load(Ordering::Acquire) { Ok(()) } else { self.sync() }
    }

    /// Whether nothing was ever written to any of these chunks.
    fn is_untouched(&self, chunks: ChunkRange) -> bool {
        let History::Fresh { written } = &self.history else { return false };
        let written = written.lock().unwrap_or_else(PoisonError::into_inner);
        written.first_from(chunks.start).is_none_or(|first| first >= chunks.end)
    }
}

/// Opens the device that was attached to a disk, if it still is the one.
pub(crate) fn open_device(
    storage: &dyn Storage,
    paths: &DiskPaths,
    disk: DiskId,
) -> Result<BlockDevice, BaseError> {
    open_recorded(storage, paths, disk, BlockDevice::open)
}

fn open_recorded(
    storage: &dyn Storage,
    paths: &DiskPaths,
    disk: DiskId,
    open: impl FnOnce(&Path) -> Result<BlockDevice, BlockDeviceError>,
) -> Result<BlockDevice, BaseError> {
    let record = DeviceRecord::load(storage, paths, disk)?;
    let device = open(&record.path)?;
    if device.identity() == record.identity {
        return Ok(device);
    }
    let found = device.identity().to_owned();
    Err(BaseError::DeviceChanged { recorded: record.identity, found })
}

#[cfg(test)]
mod tests {
    use blocks::{ChunkSize, Epoch, Generation, Lineage, MachineId, Sector, Tickets};
    use storage::{FaultyStorage, create_dirs};

    use super::*;
    use crate::catalog::{DiskState, Marks, ReplicaRole};

    fn empty_disk() -> Record {
        Record {
            disk: DiskId([1; 16]),
            lineage: Lineage::begin(Generation([2; 16])),
            role: ReplicaRole::Follower,
            tickets: Tickets::default(),
            machine: MachineId([3; 16]),
            geometry: Geometry::new(128, 512, ChunkSize::DEFAULT).unwrap(),
            base: BaseKind::File,
            state: DiskState { last_durable: Epoch::NONE, completeness: Completeness::Empty },
            folded: Epoch::NONE,
            name: String::new(),
            base_point: None,
            hashed: 0,
            marks: Marks::default(),
        }
    }

    fn extent(start: u64, sectors: u64) -> Extent {
        Extent { start: Sector(start), sectors }
    }

    #[test]
    fn zeroes_are_written_only_where_something_may_be() {
        let storage = FaultyStorage::new();
        let (record, paths) = (empty_disk(), DiskPaths::new(DiskId([1; 16])));
        create_dirs(&storage, paths.dir()).unwrap();
        let base = Base::open(&storage, &paths, &record).unwrap();
        base.write(extent(9, 2), &[7; 1024]).unwrap();
        let writes = storage.operations();
        base.zero(extent(16, 100)).unwrap();
        assert_eq!(storage.operations(), writes, "fresh and untouched");
        base.zero(extent(0, 10)).unwrap();
        let mut bytes = [1; 1024];
        base.file().read_exact_at(9 * 512, &mut bytes).unwrap();
        assert!(bytes[..512] == [0; 512] && bytes[512..] == [7; 512]);

        let reopened = Base::open(&storage, &paths, &record).unwrap();
        let writes = storage.operations();
        reopened.zero(extent(16, 100)).unwrap();
        assert_eq!(storage.operations(), writes + 1, "nothing is known of an older file");
    }

    #[test]
    fn a_base_that_was_written_and_is_gone_or_short_is_an_error() {
        let storage = FaultyStorage::new();
        let (mut record, paths) = (empty_disk(), DiskPaths::new(DiskId([1; 16])));
        create_dirs(&storage, paths.dir()).unwrap();
        record.state = DiskState { last_durable: Epoch(1), completeness: Completeness::Partial };
        let missing = Base::open(&storage, &paths, &record);
        assert!(matches!(missing, Err(BaseError::Missing(_))));
        let file = storage.open(&paths.base(), OpenMode::Create).unwrap();
        file.set_len(ByteLen(128 * 512 - 1)).unwrap();
        let short = Base::open(&storage, &paths, &record);
        assert!(matches!(short, Err(BaseError::TooSmall { .. })));
    }
}
