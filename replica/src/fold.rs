//! Folding: the oldest delta goes into the base.
//!
//! A base that holds a point stops being one first, in the catalogue. Then redo: every extent of the
//! delta is written to the base, the base is synced, and only then does the catalogue say so; then
//! the file goes. A crash anywhere before the flip leaves the delta, and
//! folding it again from its start gives the same base, whatever part of it was there already. A
//! crash after the flip leaves at most a file that nobody needs, which the next opening removes.

use std::{collections::BTreeSet, sync::MutexGuard};

use blocks::{Epoch, Mutant};
use storage::StorageError;

use crate::{
    Disk, DiskPoint, MustReopenError,
    catalog::{CatalogError, Record},
    content::{ContentError, Treatment},
    delta::{DeltaError, DeltaFile},
    disk::{DiskShared, Pending},
    error::FailureClass,
    workers::Batch,
};

/// A delta that can't be folded. It stays, and so does the base's place in history.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// It can't be read, or is damaged.
    #[error("the delta of epoch {epoch}: {source}")]
    Delta {
        /// The epoch.
        epoch: Epoch,
        /// Why.
        source: DeltaError,
    },
    /// Its content can't be applied.
    #[error("applying epoch {epoch}: {source}")]
    Content {
        /// The epoch.
        epoch: Epoch,
        /// Why.
        source: ContentError,
    },
    /// The base can't be synced.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The catalogue can't be changed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// See there.
    #[error(transparent)]
    MustReopen(#[from] MustReopenError),
}

impl FoldError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Delta { source, .. } => source.class(),
            Self::Content { source, .. } => match source.class() {
                // Nobody has just sent this: it was whole when it was committed.
                FailureClass::Refused => FailureClass::Corrupt,
                class => class,
            },
            Self::Storage(error) => FailureClass::of_storage(error),
            Self::Catalog(error) => error.class(),
            Self::MustReopen(_) => FailureClass::StoreFailed,
        }
    }
}

impl Disk {
    /// Folds the oldest delta into the base; returns its epoch, or nothing if none was pending or
    /// the base must stay where it is: it holds a point that is pinned, or looked at, or the newest
    /// that a machine could start from.
    ///
    /// Takes as long as writing the delta does. Commits go on meanwhile.
    pub fn fold_one(&self) -> Result<Option<Epoch>, FoldError> {
        let folding = self.shared.lock_folding();
        let folded = self.shared.fold_one(&folding, &BTreeSet::new())?;
        Ok(folded.map(|folded| folded.epoch))
    }
}

/// A delta that was folded.
#[derive(Debug)]
pub(crate) struct Folded {
    pub(crate) epoch: Epoch,
    /// The point that the base held before.
    pub(crate) dropped: Option<DiskPoint>,
}

impl DiskShared {
    /// Folds what may be folded; `folding` shows that nobody else does.
    pub(crate) fn fold_all(&self, folding: &MutexGuard<'_, ()>) -> Result<(), FoldError> {
        while self.fold_one(folding, &BTreeSet::new())?.is_some() {}
        Ok(())
    }

    /// Folds the oldest delta, unless the base holds a point that is in `keep` or always kept.
    pub(crate) fn fold_one(
        &self,
        _folding: &MutexGuard<'_, ()>,
        keep: &BTreeSet<Epoch>,
    ) -> Result<Option<Folded>, FoldError> {
        let Some((oldest, dropped)) = self.leave_base(keep)? else { return Ok(None) };
        let epoch = oldest.link.epoch;
        self.apply_delta(epoch)?;
        if !Mutant::FoldNotSynced.is_on() {
            self.taker.sync().inspect_err(|error| self.note_failure(error))?;
        }

        let mut books = self.books();
        books.check_health()?;
        let record = books.catalog.record().clone();
        let hashed = books.hashed(self.taker.leaves.known());
        let mut record = Record { folded: epoch, base_point: oldest.point, hashed, ..record };
        record.marks.forget_before(epoch);
        books.flip(record)?;
        books.pending.retain(|pending| pending.link.epoch != epoch);
        self.publish(&books);
        drop(books);
        // A file that can't be removed now is removed when the disk is opened next.
        let _ = self.storage.remove(&self.paths.delta(epoch));
        Ok(Some(Folded { epoch, dropped }))
    }

    /// The delta to fold and the point that goes with it, if it may.
    ///
    /// From here on the base is a mixture until the delta is folded, so the catalogue stops calling
    /// it a point first, durably: a crash in between must not show half of the next epoch as one.
    fn leave_base(
        &self,
        keep: &BTreeSet<Epoch>,
    ) -> Result<Option<(Pending, Option<DiskPoint>)>, FoldError> {
        let mut books = self.books();
        books.check_health()?;
        let oldest = match Mutant::FoldedOutOfOrder.is_on() {
            true => books.pending.back(),
            false => books.pending.front(),
        };
        let Some(oldest) = oldest.copied() else { return Ok(None) };
        let disk = self.identity.0;
        let record = books.catalog.record();
        let folded = record.folded;
        let viewed = self.registry.leases.oldest(disk).is_some_and(|view| view < oldest.link.epoch);
        let is_kept = |epoch| {
            let marked = record.marks.is_pinned(epoch) || keep.contains(&epoch);
            marked || self.registry.always_kept(disk).contains(&epoch)
        };
        if viewed || (record.base_point.is_some() && is_kept(folded)) {
            return Ok(None);
        }
        let dropped = record.base_point.and_then(|_| books.points().into_iter().next());
        if dropped.is_some() {
            let record = Record { base_point: None, ..record.clone() };
            books.flip(record)?;
            self.publish(&books);
        }
        Ok(Some((oldest, dropped)))
    }

    /// Writes all extents of a delta to the base.
    fn apply_delta(&self, epoch: Epoch) -> Result<(), FoldError> {
        let in_delta = |source| FoldError::Delta { epoch, source };
        let path = self.paths.delta(epoch);
        let delta = DeltaFile::open(self.storage.as_ref(), &path).map_err(in_delta)?;
        let batch = Batch::new(Treatment::Apply);
        let submit = |frame| self.workers.submit(frame, &self.taker, &batch);
        let read = delta.read_authentic(&self.taker.opener, submit);
        // Waited for in any case: no write may be under way when the next fold begins.
        let applied = batch.wait();
        read.map_err(in_delta)?;
        applied.map_err(|source| FoldError::Content { epoch, source })
    }
}
