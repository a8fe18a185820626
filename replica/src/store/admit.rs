//! Opening a disk for a source of which it must first be judged whether the two belong together.
//!
//! Who judges is told what both have been through, while nobody else can open or promote the disk.
//! What follows from the verdict is one flip of the catalogue: the line, what the replica is worth,
//! and the ticket for the next opening.

use std::sync::Arc;

use blocks::{Epoch, Lineage, Ticket, Tickets};

use super::{OpenDiskError, Store};
use crate::{
    Completeness, Disk, DiskSpec, DiskState, ReplicaRole,
    catalog::Record,
    disk::{DiskShared, Health},
};

/// What a source is known by, beside what [`DiskSpec`] says of its disk.
#[derive(Clone, Debug)]
pub struct SourceOrigin {
    /// The lines of its history; it is in that of the spec.
    pub lineage: Lineage,
    /// The ticket that it showed.
    pub ticket: Ticket,
    /// What the next ticket can't be guessed without: 16 random bytes.
    pub secret: [u8; 16],
}

/// What a replica has been through.
#[derive(Clone, Debug)]
pub struct ReplicaOrigin {
    /// The lines of its history.
    pub lineage: Lineage,
    /// How far it has come.
    pub state: DiskState,
    /// What it is to its source.
    pub role: ReplicaRole,
    /// The tickets that it remembers.
    pub tickets: Tickets,
}

/// How a source is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Admission {
    /// The replica goes on as it is, in the source's line from now on.
    GoOn,
    /// The replica is to become what the source is: until a comparison has ended it is no point.
    Compare,
}

/// A disk that was opened, and what its source must show the next time.
#[derive(Debug)]
pub struct Admitted {
    /// The disk.
    pub disk: Disk,
    /// The ticket.
    pub ticket: Ticket,
}

/// A source that is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError<R> {
    /// The disk can't be opened.
    #[error(transparent)]
    Open(#[from] OpenDiskError),
    /// The judge says no.
    #[error("the two don't belong together")]
    Refused(R),
}

impl Store {
    /// As [`Self::open_disk`], but the line and the role of a disk that exists are for `judge` to
    /// look at. A disk that does not exist is made in the source's line.
    pub fn admit<R>(
        &self,
        spec: &DiskSpec,
        origin: &SourceOrigin,
        judge: impl FnOnce(&ReplicaOrigin) -> Result<Admission, R>,
    ) -> Result<Admitted, AdmitError<R>> {
        let source = self.claim_source(spec)?;
        let mut admission = Admission::GoOn;
        self.find_or_create(spec, |record| {
            admission = judge(&ReplicaOrigin::of(record)).map_err(AdmitError::Refused)?;
            Ok::<_, AdmitError<R>>(())
        })?;
        let mut shared = self.open_adopted(spec)?;
        let changes_line = self.note_admission(&shared, origin, admission)?;
        let ticket = shared.books().catalog.record().tickets.last;
        if changes_line {
            // Opened anew in the new line.
            drop(shared);
            shared = self.open_shared(spec.id).map_err(OpenDiskError::from)?;
        }
        Ok(Admitted { disk: Disk { shared, source: Arc::new(source) }, ticket })
    }

    /// Durably takes over what follows from an admission. Whether the disk must be opened anew.
    fn note_admission(
        &self,
        shared: &Arc<DiskShared>,
        origin: &SourceOrigin,
        admission: Admission,
    ) -> Result<bool, OpenDiskError> {
        let mut books = shared.books();
        let record = books.catalog.record().clone();
        let disk = record.disk;
        let line = record.generation();
        let next = record.admitted(origin, admission);
        let changes_line = next.generation() != line;
        if changes_line && Arc::strong_count(shared) > 1 {
            return Err(OpenDiskError::Busy(disk));
        }
        books.flip(next)?;
        if changes_line {
            // Whoever has come by this one since must not take the next epochs for its own line.
            books.health = Health::Unknown;
        }
        shared.publish(&books);
        Ok(changes_line)
    }
}

impl Record {
    /// The record once a source was let in.
    fn admitted(self, origin: &SourceOrigin, admission: Admission) -> Self {
        let DiskState { last_durable, completeness } = self.state;
        let lineage = self.lineage_with(origin, last_durable);
        let completeness = match (admission, completeness) {
            (Admission::Compare, Completeness::Follows) => Completeness::Partial,
            (_, completeness) => completeness,
        };
        let tickets = self.tickets.issue(origin.secret, origin.ticket, last_durable);
        let state = DiskState { last_durable, completeness };
        Self { lineage, role: ReplicaRole::Follower, tickets, state, ..self }
    }

    /// The lines that the content will have gone through once it is in the source's: its own, and
    /// then that one. What it holds of its own is not in the source's lineage, but in deltas here.
    fn lineage_with(&self, origin: &SourceOrigin, last_durable: Epoch) -> Lineage {
        let (ours, theirs) = (&self.lineage, &origin.lineage);
        match ours.current() == theirs.current() {
            true => ours.clone(),
            false if last_durable == Epoch::NONE => Lineage::begin(theirs.current()),
            false => ours.fork(theirs.current(), last_durable),
        }
    }
}

impl ReplicaOrigin {
    fn of(record: &Record) -> Self {
        Self {
            lineage: record.lineage.clone(),
            state: record.state,
            role: record.role,
            tickets: record.tickets,
        }
    }
}
