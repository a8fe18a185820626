//! Promoting a replica: from then on it is a disk of its own, and takes nothing from its source.

use blocks::{DiskId, Generation};

use super::{HistoryError, Store};
use crate::{
    Completeness, MustReopenError, ReplicaRole,
    catalog::{CatalogError, Record},
    error::FailureClass,
};

/// A replica that can't be promoted.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// Its source has it open.
    #[error("the source of disk {0} is connected")]
    Busy(DiskId),
    /// It was promoted before.
    #[error("the replica of disk {0} was promoted already")]
    Promoted(DiskId),
    /// It is a mixture of times, and no disk.
    #[error("the replica of disk {0} is not whole")]
    NotWhole(DiskId),
    /// See there.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The catalogue can't be written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// See there.
    #[error(transparent)]
    MustReopen(#[from] MustReopenError),
}

impl PromoteError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Busy(_) | Self::Promoted(_) | Self::NotWhole(_) => FailureClass::Refused,
            Self::History(error) => error.class(),
            Self::Catalog(error) => error.class(),
            Self::MustReopen(_) => FailureClass::StoreFailed,
        }
    }
}

impl Store {
    /// Begins the line `next` with what the replica of a disk holds: in one durable flip, so that a
    /// crash leaves a replica that follows or one that was promoted. Its source must not have it
    /// open, and is refused from then on.
    pub fn promote(&self, disk: DiskId, next: Generation) -> Result<(), PromoteError> {
        let _source = self.sources.claim(disk).ok_or(PromoteError::Busy(disk))?;
        let shared = self.open_shared(disk)?;
        let mut books = shared.books();
        books.check_health()?;
        let record = books.catalog.record().clone();
        if record.role == ReplicaRole::Promoted {
            return Err(PromoteError::Promoted(disk));
        }
        if record.state.completeness != Completeness::Follows {
            return Err(PromoteError::NotWhole(disk));
        }
        let lineage = record.lineage.fork(next, record.state.last_durable);
        // Whoever looks at its history reads what is there; the line matters to a source alone, and
        // the next one opens the disk anew.
        books.flip(Record { lineage, role: ReplicaRole::Promoted, ..record })?;
        Ok(())
    }
}
