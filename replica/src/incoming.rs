//! An epoch that is being received.
//!
//! A seed goes straight to the base, which holds no point yet; every other kind is kept as
//! received, so that the replica stays at the epoch before until all of it is here. Either way each
//! frame is opened and decoded once before the commit: what is acknowledged can be applied.
//!
//! Nothing of an epoch is visible before [`Incoming::commit`] returns, and dropping it gives the
//! epoch up. What a seed that was given up has written to the base stays there; nobody counts on a
//! base without a point, and the source sends these extents again.

use std::sync::Arc;

use blocks::{DiskId, Epoch, EpochKind, Extent, Generation};
use storage::{Failure, StorageError};
use wire::{CheckedFrame, EpochChain, EpochEnd, EpochLink, OpenError, frame::ChainError};

use crate::{
    Completeness, Disk, DiskPoint, DiskState, MustReopenError,
    catalog::{CatalogError, Record},
    claim::Claim,
    content::{ContentError, Treatment},
    delta::{DeltaName, EXTENTS_PER_EPOCH_MAX, FRAMES_PER_EPOCH_MAX, PartWriter, link_of},
    disk::{Books, DiskShared, Pending},
    error::FailureClass,
    leaves::{self, LeafIndex},
    retain::Relief,
    workers::Batch,
};

/// An epoch that is being received. Dropping it gives the epoch up.
#[derive(Debug)]
pub struct Incoming {
    disk: Arc<DiskShared>,
    /// Kept for its drop: another source may come when this one is done.
    _source: Arc<Claim>,
    link: EpochLink,
    route: Route,
    batch: Arc<Batch>,
    chain: Option<EpochChain>,
    frames: u64,
    /// Where a seed has written to the base.
    seeded: Seeded,
    end: Option<CheckedFrame>,
    outcome: Outcome,
}

#[derive(Debug)]
enum Route {
    /// To the base.
    Straight,
    /// To a file, which becomes a delta.
    Journal(PartWriter),
}

/// Where a seed has written.
#[derive(Clone, Copy, Debug, Default)]
struct Seeded {
    /// The first run of extents that join. A segment of a pass is a single one.
    run: Option<Extent>,
    /// The leaf after the last.
    end: LeafIndex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    Failed,
    Committed,
}

/// An epoch that is durable: it may be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The state of the disk with it; `last_durable` is the epoch.
    pub state: DiskState,
    /// Points that were dropped to make room for it, oldest first.
    pub dropped: Vec<DiskPoint>,
}

/// An epoch that can't be received or committed. It is given up; the replica is as it was.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    /// The frame is of another disk, generation or epoch.
    #[error("a frame of disk {disk}, generation {generation}, epoch {epoch} does not belong here")]
    Foreign {
        /// Its disk.
        disk: DiskId,
        /// Its generation.
        generation: Generation,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The frames are not those of one whole epoch.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// There are more frames than an epoch may have.
    #[error("an epoch of more than {FRAMES_PER_EPOCH_MAX} frames")]
    TooManyFrames,
    /// There are more extents than an epoch may have.
    #[error("an epoch of more than {EXTENTS_PER_EPOCH_MAX} extents")]
    TooManyExtents,
    /// A frame can't be opened, decoded or applied.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The end frame is not authentic.
    #[error("the end of the epoch: {0}")]
    End(#[source] OpenError),
    /// It is built on another epoch than the newest durable one.
    #[error("the epoch is built on epoch {follows}, but {last_durable} is the newest durable one")]
    OutOfOrder {
        /// What it is built on.
        follows: Epoch,
        /// What is durable.
        last_durable: Epoch,
    },
    /// A delta, but the replica holds no point it could change.
    #[error("a delta for a replica that holds no point")]
    DeltaWithoutPoint,
    /// A delta that says of itself that something is missing.
    #[error("a delta that is not complete")]
    IncompleteDelta,
    /// A point, of which something is missing.
    #[error("a point that is not complete")]
    PointOfNothing,
    /// History takes as much as it may, and what may be dropped was not enough.
    #[error("history takes all the room it may; {} points were dropped for more", dropped.len())]
    Quota {
        /// What was dropped all the same, oldest first.
        dropped: Vec<DiskPoint>,
    },
    /// The file system is full. It may not be when the epoch comes again.
    #[error("{source}; {} points were dropped to make room", dropped.len())]
    Full {
        /// What found no room.
        source: StorageError,
        /// What was dropped, oldest first.
        dropped: Vec<DiskPoint>,
    },
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The catalogue can't be changed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// See there.
    #[error(transparent)]
    MustReopen(#[from] MustReopenError),
    /// An earlier error ended it.
    #[error("the epoch has failed earlier")]
    FailedEarlier,
}

impl IncomingError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Foreign { .. }
            | Self::Chain(_)
            | Self::TooManyFrames
            | Self::TooManyExtents
            | Self::End(_)
            | Self::OutOfOrder { .. }
            | Self::DeltaWithoutPoint
            | Self::IncompleteDelta
            | Self::PointOfNothing
            | Self::FailedEarlier => FailureClass::Refused,
            Self::Quota { .. } | Self::Full { .. } => FailureClass::StoreFull,
            Self::Content(error) => error.class(),
            Self::Storage(error) => FailureClass::of_storage(error),
            Self::Catalog(error) => error.class(),
            Self::MustReopen(_) => FailureClass::StoreFailed,
        }
    }
}

impl Incoming {
    pub(crate) fn straight(disk: &Disk, link: EpochLink) -> Self {
        Self::new(disk, link, Route::Straight, Treatment::Apply)
    }

    pub(crate) fn journal(disk: &Disk, name: DeltaName) -> Result<Self, StorageError> {
        let shared = &disk.shared;
        let path = shared.paths.part(name.link.epoch);
        let writer = PartWriter::create(shared.storage.as_ref(), path, name)?;
        Ok(Self::new(disk, name.link, Route::Journal(writer), Treatment::Check))
    }

    fn new(disk: &Disk, link: EpochLink, route: Route, treatment: Treatment) -> Self {
        Self {
            disk: Arc::clone(&disk.shared),
            _source: Arc::clone(&disk.source),
            link,
            route,
            batch: Batch::new(treatment),
            chain: None,
            frames: 0,
            seeded: Seeded::default(),
            end: None,
            outcome: Outcome::Open,
        }
    }

    /// Which epoch it is.
    pub fn link(&self) -> EpochLink {
        self.link
    }

    /// Takes the next frame, content or end. Waits while the store's workers are busy.
    ///
    /// An error may concern an earlier frame. After one the epoch is lost.
    pub fn append(&mut self, frame: CheckedFrame) -> Result<(), IncomingError> {
        if self.outcome != Outcome::Open {
            return Err(IncomingError::FailedEarlier);
        }
        let result = self.take(frame);
        self.note(result)
    }

    /// Makes the epoch durable, and part of the replica. When this returns it may be acknowledged.
    ///
    /// Epochs are committed in the order in which they follow each other.
    pub fn commit(mut self) -> Result<Durable, IncomingError> {
        if self.outcome != Outcome::Open {
            return Err(IncomingError::FailedEarlier);
        }
        let result = self.make_durable();
        let durable = self.note(result)?;
        self.outcome = Outcome::Committed;
        Ok(durable)
    }

    fn take(&mut self, frame: CheckedFrame) -> Result<(), IncomingError> {
        self.check_belongs(&frame)?;
        match &mut self.chain {
            Some(chain) => chain.push(&frame)?,
            None => self.chain = Some(EpochChain::begin(&frame)),
        }
        self.frames += 1;
        if self.frames > FRAMES_PER_EPOCH_MAX {
            return Err(IncomingError::TooManyFrames);
        }
        if self.batch.has_failed() {
            self.batch.wait()?;
        }
        match &mut self.route {
            Route::Journal(writer) if !writer.has_room(&frame) => {
                return Err(IncomingError::TooManyExtents);
            }
            Route::Journal(writer) => writer.append(&frame)?,
            Route::Straight => self.leave_hashes(&frame)?,
        }
        if frame.header().is_end() {
            self.end = Some(frame);
        } else {
            self.disk.workers.submit(frame, &self.disk.taker, &self.batch);
        }
        Ok(())
    }

    fn check_belongs(&self, frame: &CheckedFrame) -> Result<(), IncomingError> {
        let header = frame.header();
        let (disk, generation) = (header.disk, header.generation);
        if (disk, generation) != self.disk.identity || link_of(header) != self.link {
            return Err(IncomingError::Foreign { disk, generation, epoch: header.epoch });
        }
        if self.disk.taker.holds(frame) { Ok(()) } else { Err(ContentError::PastEnd.into()) }
    }

    fn make_durable(&mut self) -> Result<Durable, IncomingError> {
        self.batch.wait()?;
        let end = self.verify_end()?;
        let len = match &mut self.route {
            Route::Straight => {
                let taker = &self.disk.taker;
                // Before anybody may ask for hashes, who would find a leaf half accounted for.
                taker.leaves.settle(&taker.base)?;
                // Everything is written; the next seed may begin while this one is synced.
                self.disk.end_seed(self.link.epoch);
                taker.sync()?;
                self.seeded.run.into_iter().for_each(|run| taker.leaves.extend(run));
                None
            }
            Route::Journal(writer) => Some(writer.finish(&end)?),
        };
        let Relief { dropped, is_enough } = match len {
            Some(len) => self.disk.make_room_in_quota(len),
            None => Relief { is_enough: true, ..Relief::default() },
        };
        if !is_enough {
            return Err(IncomingError::Quota { dropped });
        }
        // Synced first and in the books second, so that a long sync holds nobody up; whether the
        // epoch is in order can only be said with the books in hand.
        let mut books = self.disk.books();
        let mut record = self.check_order(books.catalog.record(), &end)?;
        books.check_health()?;
        if let Route::Straight = self.route {
            books.seeded_from.remove(&self.link.epoch);
            record.hashed = self.hashed(&books, end.summary.completes);
        }
        if let Route::Journal(writer) = &self.route {
            writer.publish(self.disk.storage.as_ref(), &self.disk.paths)?;
        }
        let state = record.state;
        books.flip(record)?;
        if let Some(len) = len {
            let EpochEnd { summary, point } = end;
            let delta = Pending { link: self.link, completes: summary.completes, point, len };
            books.pending.push_back(delta);
        }
        self.disk.publish(&books);
        Ok(Durable { state, dropped })
    }

    /// The authentic end of the epoch, if all that it counts has come.
    fn verify_end(&self) -> Result<EpochEnd, IncomingError> {
        let (Some(chain), Some(end)) = (&self.chain, &self.end) else {
            return Err(ChainError::NoEnd.into());
        };
        let end = self.disk.taker.opener.open_end(end).map_err(IncomingError::End)?;
        chain.verify(&end.summary)?;
        Ok(end)
    }

    /// The catalogue's record with this epoch, if it is the next one.
    fn check_order(&self, record: &Record, end: &EpochEnd) -> Result<Record, IncomingError> {
        let EpochLink { kind, epoch, follows } = self.link;
        let DiskState { last_durable, completeness } = record.state;
        let completes = end.summary.completes;
        if follows != last_durable {
            return Err(IncomingError::OutOfOrder { follows, last_durable });
        }
        if kind == EpochKind::Delta && completeness != Completeness::Follows {
            return Err(IncomingError::DeltaWithoutPoint);
        }
        if kind == EpochKind::Delta && !completes {
            return Err(IncomingError::IncompleteDelta);
        }
        if end.point.is_some() && !completes {
            return Err(IncomingError::PointOfNothing);
        }
        let completeness = if completes { Completeness::Follows } else { Completeness::Partial };
        let state = DiskState { last_durable: epoch, completeness };
        let (folded, base_point) = match kind {
            EpochKind::Seed => (epoch, end.point),
            EpochKind::Compare | EpochKind::Delta => (record.folded, record.base_point),
        };
        Ok(Record { state, folded, base_point, ..record.clone() })
    }

    /// Before a seed writes over leaves whose hashes a crash would leave in force: no longer.
    fn leave_hashes(&mut self, frame: &CheckedFrame) -> Result<(), IncomingError> {
        let Some(first) = frame.extents().first() else { return Ok(()) };
        let leaf = leaves::touched_by(first.extent()).start;
        let mut books = self.disk.books();
        let seeded_from = books.seeded_from.entry(self.link.epoch).or_insert(leaf);
        *seeded_from = leaf.min(*seeded_from);
        if leaf < books.catalog.record().hashed {
            let record = books.catalog.record().clone();
            books.flip(Record { hashed: leaf, ..record })?;
        }
        drop(books);
        frame.extents().iter().for_each(|extent| self.seeded.add(extent.extent()));
        Ok(())
    }

    /// How many hashes a crash leaves in force once this seed is committed. While more is to come,
    /// no more than the next one will not write over.
    fn hashed(&self, books: &Books, completes: bool) -> LeafIndex {
        let hashed = books.hashed(self.disk.taker.leaves.known());
        if completes { hashed } else { hashed.min(self.seeded.end) }
    }

    /// Remembers that the epoch failed, and whether the store can still be believed. If there was
    /// no room, makes some, so that the epoch fits when it comes again.
    fn note<T>(&mut self, result: Result<T, IncomingError>) -> Result<T, IncomingError> {
        result.map_err(|error| {
            self.outcome = Outcome::Failed;
            if let IncomingError::Storage(error)
            | IncomingError::Content(ContentError::Storage(error)) = &error
            {
                self.disk.note_failure(error);
            }
            match error {
                IncomingError::Storage(error) if error.failure() == Failure::Full => {
                    self.give_way(error)
                }
                error => error,
            }
        })
    }

    /// Gives the epoch's own room back, and as much again.
    fn give_way(&self, source: StorageError) -> IncomingError {
        let Route::Journal(writer) = &self.route else { return source.into() };
        let received = writer.written();
        writer.give_up(self.disk.storage.as_ref());
        let Relief { dropped, .. } = self.disk.free(received);
        IncomingError::Full { source, dropped }
    }
}

impl Seeded {
    fn add(&mut self, extent: Extent) {
        match &mut self.run {
            Some(run) if run.end() == extent.start => run.sectors += extent.sectors,
            Some(_) => {}
            run @ None => *run = Some(extent),
        }
        self.end = self.end.max(leaves::touched_by(extent).end);
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.batch.cancel();
        let seeded_from = self.disk.books().seeded_from.remove(&self.link.epoch);
        // Before anybody may ask for hashes again.
        seeded_from.into_iter().for_each(|leaf| self.disk.taker.leaves.forget_from(leaf));
        self.disk.end_seed(self.link.epoch);
        if let (Route::Journal(writer), false) = (&self.route, self.outcome == Outcome::Committed) {
            writer.give_up(self.disk.storage.as_ref());
        }
        self.disk.books().receiving.retain(|link| link.epoch != self.link.epoch);
    }
}
