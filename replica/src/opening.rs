//! Opening a disk that exists, after whatever happened to it.
//!
//! In this order: the catalogue (durable again by being opened), the key, the base (durable, and
//! read from the medium), the remains of epochs that never became durable, and the deltas between
//! base and catalogue, which must form an unbroken chain. What is left is folded by the caller.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

use blocks::{DiskId, Epoch};
use storage::{Storage, StorageError};
use wire::Opener;

use crate::{
    base::{Base, BaseError},
    catalog::{Catalog, CatalogError, Record},
    claim::Claim,
    content::FrameTaker,
    delta::{DeltaError, DeltaFile},
    disk::{Books, DiskShared, Health},
    error::FailureClass,
    fold::FoldError,
    key_store::{self, KeyError},
    layout::{DiskPaths, epoch_of_delta},
    workers::Workers,
};

/// A disk of the store that can't be opened as it is.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The catalogue can't be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The key can't be read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The base can't be used.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// A delta can't be read.
    #[error("the delta of epoch {epoch}: {source}")]
    Delta {
        /// The epoch.
        epoch: Epoch,
        /// Why.
        source: DeltaError,
    },
    /// The deltas don't lead from the base to the newest durable epoch.
    #[error("the deltas lead from epoch {folded} to {reached}, but {last_durable} was durable")]
    BrokenChain {
        /// What is in the base.
        folded: Epoch,
        /// How far they lead.
        reached: Epoch,
        /// Where they had to lead.
        last_durable: Epoch,
    },
    /// What was pending can't be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
}

impl RecoverError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Storage(error)
            | Self::Key(KeyError::Storage(error))
            | Self::Base(BaseError::Storage(error)) => FailureClass::of_storage(error),
            Self::Catalog(error) => error.class(),
            Self::Delta { source, .. } => source.class(),
            Self::Fold(error) => error.class(),
            Self::Base(BaseError::Device(_)) => FailureClass::StoreFailed,
            Self::Key(KeyError::Damaged(_)) | Self::Base(_) | Self::BrokenChain { .. } => {
                FailureClass::Corrupt
            }
        }
    }
}

/// Opens a disk that has a catalogue; whoever has `claim` is the only one.
pub(crate) fn open_existing(
    storage: &Arc<dyn Storage>,
    workers: &Arc<Workers>,
    disk: DiskId,
    claim: Claim,
) -> Result<DiskShared, RecoverError> {
    let paths = DiskPaths::new(disk);
    let storage = Arc::clone(storage);
    let catalog = Catalog::open(storage.as_ref(), &paths, disk)?;
    let record = catalog.record();
    let opener = Opener::new(&key_store::load(storage.as_ref(), disk)?);
    let base = Base::open(storage.as_ref(), &paths, record)?;
    drop_parts(storage.as_ref(), &paths)?;
    let pending = pending_deltas(storage.as_ref(), &paths, record)?;
    let identity = (disk, record.generation);
    let taker = Arc::new(FrameTaker { opener, geometry: record.geometry, base });
    let books =
        Books { catalog, pending, receiving: Vec::new(), seeding: None, health: Health::Good };
    Ok(DiskShared {
        identity,
        storage,
        workers: Arc::clone(workers),
        paths,
        taker,
        books: Mutex::new(books),
        seed_turn: Condvar::new(),
        folding: Mutex::new(()),
        _claim: claim,
    })
}

/// Removes what was received of epochs that never became durable.
fn drop_parts(storage: &dyn Storage, paths: &DiskPaths) -> Result<(), StorageError> {
    for name in storage.list(&paths.incoming())? {
        storage.remove(&paths.incoming().join(&name))?;
    }
    Ok(())
}

/// The deltas between base and catalogue, oldest first. Removes those that are in the base
/// already, and those of which the flip never became durable.
fn pending_deltas(
    storage: &dyn Storage,
    paths: &DiskPaths,
    record: &Record,
) -> Result<VecDeque<Epoch>, RecoverError> {
    let names = storage.list(&paths.deltas())?;
    let mut epochs: Vec<Epoch> = names.iter().filter_map(|name| epoch_of_delta(name)).collect();
    epochs.sort_unstable();
    let (folded, last_durable) = (record.folded, record.state.last_durable);
    let mut reached = folded;
    let mut pending = VecDeque::new();
    for epoch in epochs {
        if epoch <= folded || epoch > last_durable {
            storage.remove(&paths.delta(epoch))?;
            continue;
        }
        let in_delta = |source| RecoverError::Delta { epoch, source };
        let delta = DeltaFile::open(storage, &paths.delta(epoch)).map_err(in_delta)?;
        let name = delta.name();
        if (name.disk, name.generation, name.link.epoch) != (record.disk, record.generation, epoch)
        {
            return Err(in_delta(DeltaError::Foreign));
        }
        if name.link.follows != reached {
            return Err(RecoverError::BrokenChain { folded, reached, last_durable });
        }
        reached = epoch;
        pending.push_back(epoch);
    }
    if reached == last_durable {
        Ok(pending)
    } else {
        Err(RecoverError::BrokenChain { folded, reached, last_durable })
    }
}
