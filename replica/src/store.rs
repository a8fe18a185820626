//! The store: a directory of replicas, opened by one process at a time.
//!
//! A disk is open once, for its source and for whoever looks at its history together; it is closed
//! when the last of them is gone. Owns the order in which a disk comes to be and goes. A disk exists from the moment its
//! catalogue is durable, and is gone from the moment that has another name; everything else of it
//! is made before the first and removed after the second.

mod admit;
mod forget;
mod history;
mod listing;
mod open_disk;
mod promote;
mod verify;

use std::{
    collections::HashMap,
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
};

use blocks::DiskId;
use storage::{
    FileStorage, LockError, Storage, StorageError, create_dirs, read_whole, write_whole,
};

pub use admit::{Admission, AdmitError, Admitted, ReplicaOrigin, SourceOrigin};
pub use forget::ForgetError;
pub use history::HistoryError;
pub use listing::{DiskListing, DiskSummary, InspectError, Usage};
pub use open_disk::{AttachError, DiskSpec, OpenDiskError};
pub use promote::PromoteError;
pub use verify::{AtRest, VerifyReport};

use crate::{
    Parallelism,
    claim::{Claim, Claims},
    disk::DiskShared,
    error::FailureClass,
    layout::{self, DiskPaths, disk_of_name},
    opening::{RecoverError, open_existing},
    points::Registry,
    workers::Workers,
};

const VERSION_TEXT: &[u8] = b"pinnace replica store 1\n";
const VERSION_LEN_MAX: usize = 256;

/// An open store.
#[derive(Debug)]
pub struct Store {
    storage: Arc<dyn Storage>,
    workers: Arc<Workers>,
    /// Of the disks that are open, being opened, made or removed.
    claims: Claims,
    /// Of the disks that a source has open.
    sources: Claims,
    open: Mutex<HashMap<DiskId, Weak<DiskShared>>>,
    registry: Registry,
    damaged: Vec<(DiskId, RecoverError)>,
}

/// A store that can't be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is one already.
    #[error("there is a store already")]
    Exists,
    /// The directory holds something else.
    #[error("the directory holds {0:?}, which is not of a store")]
    NotEmpty(String),
    /// The directory can't be made.
    #[error("creating {}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A store that can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// There is none.
    #[error("there is no store here")]
    NotAStore,
    /// It was made by another version.
    #[error("the store has another format: {0:?}")]
    Version(String),
    /// Another process uses it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The worker threads can't be started.
    #[error("starting the worker threads: {0}")]
    Workers(#[source] io::Error),
}

impl OpenStoreError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::NotAStore | Self::Version(_) | Self::Lock(LockError::InUse(_)) => {
                FailureClass::Refused
            }
            Self::Lock(LockError::Storage(error)) | Self::Storage(error) => {
                FailureClass::of_storage(error)
            }
            Self::Workers(_) => FailureClass::StoreFailed,
        }
    }
}

impl Store {
    /// Makes an empty store in `dir`, which is created if need be and must be empty.
    pub fn init(dir: &Path) -> Result<(), InitError> {
        let failed = |source| InitError::Directory { path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        Self::init_on(&FileStorage::exclusive(dir, &layout::lock())?)
    }

    /// Makes an empty store in `storage`.
    pub fn init_on(storage: &dyn Storage) -> Result<(), InitError> {
        let (version, lock) = (layout::version(), layout::lock());
        // What an earlier attempt that was cut short may have left.
        let half_made = |name: &str| {
            [layout::keys().name(), layout::disks().name(), "version.new", lock.name()]
                .contains(&name)
        };
        let names = storage.list(&version.parent())?;
        if names.iter().any(|name| name == version.name()) {
            return Err(InitError::Exists);
        }
        if let Some(foreign) = names.into_iter().find(|name| !half_made(name)) {
            return Err(InitError::NotEmpty(foreign));
        }
        create_dirs(storage, &layout::keys())?;
        create_dirs(storage, &layout::disks())?;
        // Last: the store exists once its version does.
        Ok(write_whole(storage, &version, VERSION_TEXT)?)
    }

    /// Opens the store in `dir` for this process alone, with a worker for each processor.
    pub fn open(dir: &Path) -> Result<Self, OpenStoreError> {
        let failed = |error: LockError| match error {
            LockError::Storage(error) if error.is_missing() => OpenStoreError::NotAStore,
            error => error.into(),
        };
        let storage = FileStorage::exclusive(dir, &layout::lock()).map_err(failed)?;
        Self::open_on(Arc::new(storage), Parallelism::all_processors())
    }

    /// Opens the store in `storage`, which nobody else may use.
    ///
    /// Every disk is recovered. One that can't be is left as it is and told by
    /// [`Self::damaged`]; the others can be used.
    pub fn open_on(
        storage: Arc<dyn Storage>,
        parallelism: Parallelism,
    ) -> Result<Self, OpenStoreError> {
        check_version(storage.as_ref())?;
        let workers = Arc::new(Workers::start(parallelism).map_err(OpenStoreError::Workers)?);
        let mut store = Self {
            storage,
            workers,
            claims: Claims::default(),
            sources: Claims::default(),
            open: Mutex::default(),
            registry: Registry::default(),
            damaged: Vec::new(),
        };
        store.remove_remains()?;
        for disk in disks_of(store.storage.as_ref())? {
            if let Err(error) = store.recover(disk) {
                store.damaged.push((disk, error));
            }
        }
        Ok(store)
    }

    /// The disks that could not be recovered when the store was opened, and why.
    pub fn damaged(&self) -> &[(DiskId, RecoverError)] {
        &self.damaged
    }

    fn recover(&self, disk: DiskId) -> Result<(), RecoverError> {
        let claim = self.claims.claim(disk);
        self.open_claimed(disk, claim.expect("nobody has a disk of a store being opened"))?;
        Ok(())
    }

    fn open_claimed(&self, disk: DiskId, claim: Claim) -> Result<DiskShared, RecoverError> {
        open_existing(&self.storage, &self.workers, &self.registry, disk, claim)
    }
}

fn check_version(storage: &dyn Storage) -> Result<(), OpenStoreError> {
    match read_whole(storage, &layout::version(), VERSION_LEN_MAX) {
        Ok(text) if text == VERSION_TEXT => Ok(()),
        Ok(text) => Err(OpenStoreError::Version(String::from_utf8_lossy(&text).into_owned())),
        Err(error) if error.is_missing() => Err(OpenStoreError::NotAStore),
        Err(error) => Err(error.into()),
    }
}

/// The disks that exist: those with a catalogue.
fn disks_of(storage: &dyn Storage) -> Result<Vec<DiskId>, StorageError> {
    let mut disks = Vec::new();
    for disk in storage.list(&layout::disks())?.iter().filter_map(|name| disk_of_name(name)) {
        if has(storage, &DiskPaths::new(disk).catalog())? {
            disks.push(disk);
        }
    }
    disks.sort_unstable();
    Ok(disks)
}

/// Whether there is a file of this name.
fn has(storage: &dyn Storage, path: &storage::StorePath) -> Result<bool, StorageError> {
    match storage.list(&path.parent()) {
        Ok(names) => Ok(names.iter().any(|name| name == path.name())),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error),
    }
}
