//! What there is of a disk's past: its points, and what is said of them.
//!
//! Confirming, retracting and pinning each change the record of the catalogue in one durable flip,
//! so a crash leaves all of it or nothing.

use std::{ops::RangeInclusive, sync::Arc};

use blocks::{DiskId, Epoch, Geometry, MachineId, PointId, RetractReason};

use crate::{
    DiskPoint, DiskState, MustReopenError, PINS_MAX, View, ViewError,
    catalog::{CatalogError, Marks, Record},
    disk::{Books, DiskShared},
    error::FailureClass,
    view::Retracted,
};

/// The history of a disk, whether its source has it open or not.
///
/// The disk stays open while there is one: take it for an operation and let it go. A [`View`] does
/// not need it.
#[derive(Clone, Debug)]
pub struct History {
    pub(crate) shared: Arc<DiskShared>,
}

/// Something about a point that can't be changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The replica holds no point of that epoch.
    #[error("epoch {0} is no recovery point here")]
    NoPoint(Epoch),
    /// There are as many pins as can be.
    #[error("{PINS_MAX} points are pinned already")]
    TooManyPins,
    /// The catalogue can't be changed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// See there.
    #[error(transparent)]
    MustReopen(#[from] MustReopenError),
}

impl ChangeError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::NoPoint(_) | Self::TooManyPins => FailureClass::Refused,
            Self::Catalog(error) => error.class(),
            Self::MustReopen(_) => FailureClass::StoreFailed,
        }
    }
}

impl History {
    /// Which disk.
    pub fn id(&self) -> DiskId {
        self.shared.identity.0
    }

    /// Whose it is.
    pub fn machine(&self) -> MachineId {
        self.shared.books().catalog.record().machine
    }

    /// Its shape.
    pub fn geometry(&self) -> Geometry {
        self.shared.taker.geometry
    }

    /// How far the replica has come.
    pub fn state(&self) -> DiskState {
        self.shared.books().catalog.record().state
    }

    /// The newest epoch that the source stands by; not after the newest durable one.
    pub fn confirmed(&self) -> Epoch {
        self.shared.books().catalog.record().marks.confirmed
    }

    /// The points of the disk, in rising epochs; those that were retracted are among them.
    pub fn points(&self) -> Vec<DiskPoint> {
        let (leases, disk) = (&self.shared.registry.leases, self.id());
        let points = self.shared.books().points().into_iter();
        points.map(|point| DiskPoint { viewed: leases.holds(disk, point.epoch), ..point }).collect()
    }

    /// The point of this identity, if the disk holds it.
    pub fn point_of(&self, id: PointId) -> Option<DiskPoint> {
        self.points().into_iter().find(|point| point.record.id == id)
    }

    /// Opens the point of an epoch for reading.
    pub fn view(&self, epoch: Epoch) -> Result<View, ViewError> {
        self.shared.view(epoch, Retracted::Refuse)
    }

    /// As [`Self::view`], also of a point that was retracted: a person insists.
    pub fn view_retracted(&self, epoch: Epoch) -> Result<View, ViewError> {
        self.shared.view(epoch, Retracted::Show)
    }

    /// Notes that the source stands by its points up to this epoch, or the newest durable one if
    /// that is older. Durable on return.
    pub fn confirm(&self, through: Epoch) -> Result<(), ChangeError> {
        let mut books = self.shared.books();
        let through = through.min(books.catalog.record().state.last_durable);
        self.flip_marks(&mut books, |marks| {
            marks.confirm(through);
            Ok(())
        })
    }

    /// Notes that points of these epochs are none, those that come later too. Durable on return.
    /// Returns the points that were not retracted before.
    pub fn retract(
        &self,
        epochs: RangeInclusive<Epoch>,
        reason: RetractReason,
    ) -> Result<Vec<DiskPoint>, ChangeError> {
        let mut books = self.shared.books();
        let before = books.points();
        self.flip_marks(&mut books, |marks| {
            marks.retract(&epochs, reason);
            Ok(())
        })?;
        let now = books.points().into_iter().zip(before);
        let changed = now.filter(|(now, before)| now.status != before.status);
        Ok(changed.map(|(now, _)| now).collect())
    }

    /// Keeps the point of an epoch until it is unpinned. Durable on return.
    pub fn pin(&self, epoch: Epoch) -> Result<(), ChangeError> {
        let mut books = self.shared.books();
        if !books.points().iter().any(|point| point.epoch == epoch) {
            return Err(ChangeError::NoPoint(epoch));
        }
        self.flip_marks(&mut books, |marks| {
            if marks.pin(epoch) { Ok(()) } else { Err(ChangeError::TooManyPins) }
        })
    }

    /// Lets a point go that was pinned; one that was not is fine. Durable on return.
    pub fn unpin(&self, epoch: Epoch) -> Result<(), ChangeError> {
        self.change_marks(|marks| {
            marks.unpin(epoch);
            Ok(())
        })
    }

    fn change_marks(
        &self,
        change: impl FnOnce(&mut Marks) -> Result<(), ChangeError>,
    ) -> Result<(), ChangeError> {
        self.flip_marks(&mut self.shared.books(), change)
    }

    fn flip_marks(
        &self,
        books: &mut Books,
        change: impl FnOnce(&mut Marks) -> Result<(), ChangeError>,
    ) -> Result<(), ChangeError> {
        books.check_health()?;
        let mut record: Record = books.catalog.record().clone();
        change(&mut record.marks)?;
        if record != *books.catalog.record() {
            books.flip(record)?;
            self.shared.publish(books);
        }
        Ok(())
    }
}
