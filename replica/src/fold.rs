//! Folding: the oldest delta goes into the base.
//!
//! Redo: every extent of the delta is written to the base, the base is synced, and only then does
//! the catalogue say so; then the file goes. A crash anywhere before the flip leaves the delta, and
//! folding it again from its start gives the same base, whatever part of it was there already. A
//! crash after the flip leaves at most a file that nobody needs, which the next opening removes.

use std::sync::MutexGuard;

use blocks::{Epoch, Mutant};
use storage::StorageError;

use crate::{
    Disk, MustReopenError,
    catalog::{CatalogError, Record},
    content::{ContentError, Treatment},
    delta::{DeltaError, DeltaFile},
    disk::DiskShared,
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
    /// Folds the oldest delta into the base; returns its epoch, or nothing if none was pending.
    ///
    /// Takes as long as writing the delta does. Commits go on meanwhile.
    pub fn fold_one(&self) -> Result<Option<Epoch>, FoldError> {
        let folding = self.shared.lock_folding();
        self.shared.fold_one(&folding)
    }
}

impl DiskShared {
    /// Folds what is pending; `folding` shows that nobody else does.
    pub(crate) fn fold_all(&self, folding: &MutexGuard<'_, ()>) -> Result<(), FoldError> {
        while self.fold_one(folding)?.is_some() {}
        Ok(())
    }

    pub(crate) fn fold_one(
        &self,
        _folding: &MutexGuard<'_, ()>,
    ) -> Result<Option<Epoch>, FoldError> {
        let oldest = {
            let books = self.books();
            books.check_health()?;
            match Mutant::FoldedOutOfOrder.is_on() {
                true => books.pending.back().copied(),
                false => books.pending.front().copied(),
            }
        };
        let Some(epoch) = oldest else { return Ok(None) };
        self.apply_delta(epoch)?;
        if !Mutant::FoldNotSynced.is_on() {
            self.taker.base.sync().inspect_err(|error| self.note_failure(error))?;
        }

        let mut books = self.books();
        books.check_health()?;
        let record = Record { folded: epoch, ..books.catalog.record().clone() };
        books.flip(record)?;
        books.pending.retain(|pending| *pending != epoch);
        drop(books);
        // A file that can't be removed now is removed when the disk is opened next.
        let _ = self.storage.remove(&self.paths.delta(epoch));
        Ok(Some(epoch))
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
