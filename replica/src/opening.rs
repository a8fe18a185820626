//! Opening a disk that exists, after whatever happened to it.
//!
//! In this order: the catalogue (durable again by being opened), the key, the base (durable, and
//! read from the medium), the remains of epochs that never became durable, and the deltas, of which
//! an unbroken chain must lead from the base to the catalogue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
    disk::{Books, DiskShared, Health, Pending},
    error::FailureClass,
    key_store::{self, KeyError},
    layout::{DiskPaths, epoch_of_delta},
    leaves::LeafTable,
    points::Registry,
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
    #[error("the deltas to epoch {last_durable} begin at {reached}, but the base is at {folded}")]
    BrokenChain {
        /// What is in the base.
        folded: Epoch,
        /// How far back they lead: there is no delta of this epoch.
        reached: Epoch,
        /// The newest durable epoch.
        last_durable: Epoch,
    },
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
    registry: &Registry,
    disk: DiskId,
    claim: Claim,
) -> Result<DiskShared, RecoverError> {
    let paths = DiskPaths::new(disk);
    let storage = Arc::clone(storage);
    let mut catalog = Catalog::open(storage.as_ref(), &paths, disk)?;
    let record = catalog.record();
    let opener = Arc::new(Opener::new(&key_store::load(storage.as_ref(), disk)?));
    let base = Base::open(storage.as_ref(), &paths, record)?;
    drop_parts(storage.as_ref(), &paths)?;
    let pending = pending_deltas(storage.as_ref(), &paths, record)?;
    let identity = (disk, record.generation());
    if record.hashed > 0 && !LeafTable::is_there(storage.as_ref(), &paths, record)? {
        // Before another is made, whose entries would count: they are not known yet.
        let record = Record { hashed: 0, ..record.clone() };
        catalog.replace(record)?;
    }
    let record = catalog.record();
    let leaves = LeafTable::open(storage.as_ref(), &paths, record, &base)?;
    let taker = Arc::new(FrameTaker { opener, geometry: record.geometry, base, leaves });
    let books = Books {
        catalog,
        pending,
        receiving: Vec::new(),
        seeding: None,
        seeded_from: BTreeMap::new(),
        health: Health::Good,
    };
    let shared = DiskShared {
        identity,
        storage,
        workers: Arc::clone(workers),
        registry: registry.clone(),
        paths,
        taker,
        books: Mutex::new(books),
        seed_turn: Condvar::new(),
        folding: Mutex::new(()),
        damage: Mutex::default(),
        _claim: claim,
    };
    shared.publish(&shared.books());
    Ok(shared)
}

/// Removes what was received of epochs that never became durable.
fn drop_parts(storage: &dyn Storage, paths: &DiskPaths) -> Result<(), StorageError> {
    for name in storage.list(&paths.incoming())? {
        storage.remove(&paths.incoming().join(&name))?;
    }
    Ok(())
}

/// The deltas that lead from base to catalogue, oldest first. Removes all others: those that are in
/// the base already, those of which the flip never became durable, and those that a merge has
/// replaced.
fn pending_deltas(
    storage: &dyn Storage,
    paths: &DiskPaths,
    record: &Record,
) -> Result<VecDeque<Pending>, RecoverError> {
    let names = storage.list(&paths.deltas())?;
    let mut unused: BTreeSet<Epoch> =
        names.iter().filter_map(|name| epoch_of_delta(name)).collect();
    let (folded, last_durable) = (record.folded, record.state.last_durable);
    let mut reached = last_durable;
    let mut pending = VecDeque::new();
    // From the newest back: a delta knows which one it follows. A merged one follows that of the
    // oldest which went into it, and so passes over those.
    while reached > folded && unused.remove(&reached) {
        let in_delta = |source| RecoverError::Delta { epoch: reached, source };
        let delta = DeltaFile::open(storage, &paths.delta(reached)).map_err(in_delta)?;
        let name = delta.name();
        // A merged one is of the line of its newest epoch.
        let of_this_history = record.lineage.may_hold(reached, name.generation);
        let holds = (name.disk, name.link.epoch);
        if holds != (record.disk, reached) || !of_this_history || name.link.follows >= reached {
            return Err(in_delta(DeltaError::Foreign));
        }
        pending.push_front(Pending::of(&delta));
        reached = name.link.follows;
    }
    if reached != folded {
        return Err(RecoverError::BrokenChain { folded, reached, last_durable });
    }
    if !unused.is_empty() {
        // First, lest the name of a merged delta were lost and the removal of its parts were not.
        storage.sync_dir(&paths.deltas())?;
    }
    for epoch in unused {
        storage.remove(&paths.delta(epoch))?;
    }
    Ok(pending)
}
