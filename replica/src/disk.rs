//! One disk's replica, open.
//!
//! Three kinds of work go on side by side: epochs are received ([`Incoming`]), the oldest delta is
//! folded into the base, and compare blocks are hashed. Two locks keep them apart:
//!
//! - `books` guards the catalogue and what is under way. It is held for the flip of a commit, and
//!   never while content is read or written.
//! - `folding` is held by whoever reads the base as a whole or folds into it, so that nobody reads
//!   half a fold. It is taken before `books`.
//!
//! Invariant: `folded <= last_durable`, and `pending` are the deltas that lead from the one to the
//! other, each following the one before. After a failure that leaves unknown what is durable, every
//! change is refused until the disk is opened again.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use blocks::{ByteLen, DiskId, Epoch, EpochKind, Generation, Geometry, PointRecord};
use storage::{Operation, Storage, StorageError};
use wire::EpochLink;

use crate::{
    Completeness, DiskPoint, DiskState, History, Incoming,
    catalog::{Catalog, CatalogError, Record},
    claim::Claim,
    content::FrameTaker,
    delta::{DeltaFile, DeltaName},
    error::FailureClass,
    fold::FoldError,
    layout::DiskPaths,
    leaves::LeafIndex,
    points::{DiskPoints, Registry},
    scrub::Damage,
    workers::Workers,
};

/// A disk that its source has open. Clones are the same disk; it is released when the last of them
/// and of its [`Incoming`] is gone.
#[derive(Clone, Debug)]
pub struct Disk {
    pub(crate) shared: Arc<DiskShared>,
    /// The right of the source, which nobody else has meanwhile.
    pub(crate) source: Arc<Claim>,
}

#[derive(Debug)]
pub(crate) struct DiskShared {
    /// What every frame of the disk must name.
    pub(crate) identity: (DiskId, Generation),
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) registry: Registry,
    pub(crate) paths: DiskPaths,
    pub(crate) taker: Arc<FrameTaker>,
    pub(crate) books: Mutex<Books>,
    /// Told when a seed has been applied or given up.
    pub(crate) seed_turn: Condvar,
    pub(crate) folding: Mutex<()>,
    pub(crate) damage: Mutex<Damage>,
    /// Kept for its drop: the disk can be opened again afterwards.
    pub(crate) _claim: Claim,
}

/// What is known and under way.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) catalog: Catalog,
    /// Deltas that are not in the base yet, oldest first.
    pub(crate) pending: VecDeque<Pending>,
    /// Epochs that are being received.
    pub(crate) receiving: Vec<EpochLink>,
    /// The seed that is being written to the base.
    pub(crate) seeding: Option<Epoch>,
    /// The first leaf that each seed has written to, of seeds that are not committed.
    pub(crate) seeded_from: BTreeMap<Epoch, LeafIndex>,
    pub(crate) health: Health,
}

/// A delta that is not in the base yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) link: EpochLink,
    /// Whether nothing is outstanding once it is applied.
    pub(crate) completes: bool,
    /// What the disk holds once it is applied, if that is a point.
    pub(crate) point: Option<PointRecord>,
    pub(crate) len: ByteLen,
}

/// Whether what the books say is known to be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Good,
    /// A sync or a flip failed.
    Unknown,
}

/// The disk must be opened again: an earlier failure left unknown what is durable.
#[derive(Debug, thiserror::Error)]
#[error("an earlier failure left unknown what is durable; the disk must be opened again")]
pub struct MustReopenError;

/// An epoch that can't be begun.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// Its number is not after the newest durable one.
    #[error("epoch {epoch} is not after epoch {last_durable}, which is durable")]
    NotNew {
        /// What was asked for.
        epoch: Epoch,
        /// What is durable.
        last_durable: Epoch,
    },
    /// It is being received already.
    #[error("epoch {0} is being received already")]
    Twice(Epoch),
    /// A seed writes over the base, and the replica holds a point.
    #[error("a seed would overwrite a point that the replica holds")]
    SeedOverPoint,
    /// Another epoch must be applied or committed before this seed may write to the base. See
    /// [`Disk::wait_for_seed_turn`].
    #[error("epoch {0} is being received; a seed waits for it")]
    SeedMustWait(Epoch),
    /// The deltas before the seed can't be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// See there.
    #[error(transparent)]
    MustReopen(#[from] MustReopenError),
}

impl BeginError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::NotNew { .. } | Self::Twice(_) | Self::SeedOverPoint | Self::SeedMustWait(_) => {
                FailureClass::Refused
            }
            Self::Fold(error) => error.class(),
            Self::Storage(error) => FailureClass::of_storage(error),
            Self::MustReopen(_) => FailureClass::StoreFailed,
        }
    }
}

impl Disk {
    /// Which disk it is.
    pub fn id(&self) -> DiskId {
        self.shared.identity.0
    }

    /// The line of history that the replica belongs to.
    pub fn generation(&self) -> Generation {
        self.shared.identity.1
    }

    /// Its shape.
    pub fn geometry(&self) -> Geometry {
        self.shared.taker.geometry
    }

    /// How far the replica has come.
    pub fn state(&self) -> DiskState {
        self.shared.books().catalog.record().state
    }

    /// Where the base is, for the operating system.
    pub fn base_path(&self) -> &Path {
        self.shared.taker.base.path()
    }

    /// What there is of the disk's past, for others than its source.
    pub fn history(&self) -> History {
        History { shared: Arc::clone(&self.shared) }
    }

    /// How many deltas are not in the base.
    pub fn pending_folds(&self) -> usize {
        self.shared.books().pending.len()
    }

    /// Begins to receive an epoch.
    ///
    /// Several may be received at once, as long as they are committed in order. A seed goes
    /// straight to the base, so it is alone in being received until its commit has begun to sync;
    /// before it begins, what is pending is folded.
    pub fn begin(&self, link: EpochLink) -> Result<Incoming, BeginError> {
        if link.kind != EpochKind::Seed {
            let mut books = self.shared.books();
            books.check_new(link)?;
            let (disk, generation) = self.shared.identity;
            let name = DeltaName { disk, generation, link };
            let incoming = Incoming::journal(self, name)?;
            books.receiving.push(link);
            return Ok(incoming);
        }
        // Held until the seed is in the books: whoever hashes the base after this sees it there.
        let folding = self.shared.lock_folding();
        self.shared.fold_all(&folding)?;
        let mut books = self.shared.books();
        books.check_new(link)?;
        let follows = books.catalog.record().state.completeness == Completeness::Follows;
        // What could not be folded leads to a point that somebody needs.
        if follows || !books.pending.is_empty() || books.catalog.record().base_point.is_some() {
            return Err(BeginError::SeedOverPoint);
        }
        let journaled = books.receiving.iter().find(|other| other.kind != EpochKind::Seed);
        if let Some(before) = books.seeding.or(journaled.map(|other| other.epoch)) {
            return Err(BeginError::SeedMustWait(before));
        }
        books.seeding = Some(link.epoch);
        books.receiving.push(link);
        Ok(Incoming::straight(self, link))
    }

    /// Waits until no seed is being written to the base. Another thread may begin one right after.
    pub fn wait_for_seed_turn(&self) {
        let books = self.shared.books();
        let waited = self.shared.seed_turn.wait_while(books, |books| books.seeding.is_some());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl DiskShared {
    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        // Nothing panics while it holds the lock, so the books are whole.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_folding(&self) -> MutexGuard<'_, ()> {
        self.folding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next seed begin, if it was `epoch` that others waited for.
    pub(crate) fn end_seed(&self, epoch: Epoch) {
        let mut books = self.books();
        if books.seeding == Some(epoch) {
            books.seeding = None;
            self.seed_turn.notify_all();
        }
    }

    /// Tells the store what the disk holds now.
    pub(crate) fn publish(&self, books: &Books) {
        let held = DiskPoints {
            machine: books.catalog.record().machine,
            points: books.points(),
            bytes: ByteLen(books.pending.iter().map(|delta| delta.len.0).sum()),
        };
        self.registry.publish(self.identity.0, held);
    }

    /// Notes an error of the storage: after a failed sync nothing is believed any more.
    pub(crate) fn note_failure(&self, error: &StorageError) {
        if error.operation == Operation::Sync {
            self.books().health = Health::Unknown;
        }
    }
}

impl Pending {
    pub(crate) fn of(delta: &DeltaFile) -> Self {
        Self {
            link: delta.name().link,
            completes: delta.completes(),
            point: delta.point().copied(),
            len: delta.len(),
        }
    }
}

impl Books {
    pub(crate) fn check_health(&self) -> Result<(), MustReopenError> {
        if self.health == Health::Good { Ok(()) } else { Err(MustReopenError) }
    }

    /// Durably replaces the record of the catalogue.
    pub(crate) fn flip(&mut self, record: Record) -> Result<(), CatalogError> {
        self.catalog.replace(record).inspect_err(|_| self.health = Health::Unknown)
    }

    /// The points of the disk, in rising epochs. Who looks at them the store knows.
    pub(crate) fn points(&self) -> Vec<DiskPoint> {
        let record = self.catalog.record();
        let point = |epoch, record: Option<PointRecord>, bytes| {
            let marks = &self.catalog.record().marks;
            let (status, pinned) = (marks.status(epoch), marks.is_pinned(epoch));
            Some(DiskPoint { epoch, record: record?, status, pinned, viewed: false, bytes })
        };
        let base = point(record.folded, record.base_point, ByteLen(0));
        let deltas = self.pending.iter().map(|d| point(d.link.epoch, d.point, d.len));
        base.into_iter().chain(deltas.flatten()).collect()
    }

    /// How many hashes of leaves may be relied on after a crash, if so many are true now.
    pub(crate) fn hashed(&self, known: LeafIndex) -> LeafIndex {
        self.seeded_from.values().copied().fold(known, LeafIndex::min)
    }

    fn check_new(&self, link: EpochLink) -> Result<(), BeginError> {
        self.check_health()?;
        let last_durable = self.catalog.record().state.last_durable;
        if link.epoch <= last_durable {
            return Err(BeginError::NotNew { epoch: link.epoch, last_durable });
        }
        if self.receiving.iter().any(|other| other.epoch == link.epoch) {
            return Err(BeginError::Twice(link.epoch));
        }
        Ok(())
    }
}
