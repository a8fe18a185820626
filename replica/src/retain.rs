//! Retention: which points stay is for others to say; here is how the rest goes, one bounded step
//! at a time.
//!
//! A step folds the oldest delta into the base or merges neighbouring ones. Either can be cut short
//! at any byte: a fold is redone, and a merge is visible once the new file has the name of the
//! newest delta that went into it, durably. Only then are the others removed; what a crash leaves of
//! them, the next opening passes over and removes, since the merged delta follows what the oldest of
//! them followed.

mod merge;
mod plan;
mod room;

use std::{collections::BTreeSet, io, ops::RangeInclusive, sync::MutexGuard};

use blocks::Epoch;
use storage::StorageError;
use wire::{RandomError, SealError};

pub(crate) use self::room::Relief;
use self::{
    merge::{Merged, merge},
    plan::{Held, Work, plan},
};
use crate::{
    DiskPoint, History, MustReopenError,
    disk::{Books, DiskShared, Health, Pending},
    error::FailureClass,
    fold::FoldError,
    key_store::KeyError,
    view::LayerError,
};

/// What a step of retention did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The oldest delta went into the base.
    Folded {
        /// Its epoch.
        epoch: Epoch,
        /// The point that the base held before.
        dropped: Vec<DiskPoint>,
    },
    /// Neighbouring deltas became one.
    Merged {
        /// From the oldest to the newest of them.
        epochs: RangeInclusive<Epoch>,
        /// How many they were.
        deltas: usize,
        /// The points that were in between.
        dropped: Vec<DiskPoint>,
    },
    /// There was nothing to do.
    Done,
}

/// A step of retention that failed. What there was is there as before, unless the disk must be
/// opened again.
#[derive(Debug, thiserror::Error)]
pub enum RetainError {
    /// The oldest delta can't be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// A delta can't be read.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The merged delta can't be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The key can't be read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no salt for a new key.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A frame can't be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A frame can't be compressed.
    #[error("compressing a merged frame: {0}")]
    Compress(#[source] io::Error),
    /// The merged delta would have more extents than an epoch may.
    #[error("the merged delta would have too many extents")]
    TooManyExtents,
    /// See there.
    #[error(transparent)]
    MustReopen(#[from] MustReopenError),
}

impl RetainError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Fold(error) => error.class(),
            Self::Layer(error) => error.class(),
            Self::Storage(error) | Self::Key(KeyError::Storage(error)) => {
                FailureClass::of_storage(error)
            }
            Self::Key(KeyError::Damaged(_)) => FailureClass::Corrupt,
            Self::TooManyExtents => FailureClass::Refused,
            Self::Random(_) | Self::Seal(_) | Self::Compress(_) | Self::MustReopen(_) => {
                FailureClass::StoreFailed
            }
        }
    }
}

/// Which points are to stay, of those up to and with an epoch.
#[derive(Clone, Copy)]
pub(crate) struct Choice<'a> {
    pub(crate) keep: &'a BTreeSet<Epoch>,
    pub(crate) through: Epoch,
}

impl History {
    /// Does one step towards keeping the points of `keep` and no others, besides those that are
    /// always kept: pinned ones, those somebody looks at, and the newest that a machine could start
    /// from. To be called until it returns [`Step::Done`].
    ///
    /// `through` is the newest epoch that was there when `keep` was chosen. Points that have come
    /// since were not chosen from, and stay.
    ///
    /// Takes as long as rewriting what it folds or merges. Commits and views go on meanwhile.
    pub fn retain_step(&self, keep: &BTreeSet<Epoch>, through: Epoch) -> Result<Step, RetainError> {
        let folding = self.shared.lock_folding();
        self.shared.retain_step(&folding, Choice { keep, through })
    }
}

impl DiskShared {
    pub(crate) fn retain_step(
        &self,
        folding: &MutexGuard<'_, ()>,
        choice: Choice<'_>,
    ) -> Result<Step, RetainError> {
        let (work, parts) = {
            let books = self.books();
            books.check_health()?;
            let kept = self.kept(&books, choice);
            let held = books.pending.iter().map(|delta| Held {
                is_kept: delta.point.is_some() && kept.contains(&delta.link.epoch),
                bytes: delta.len.0,
            });
            let held: Vec<Held> = held.collect();
            let record = books.catalog.record();
            let base_is_kept = record.base_point.is_some() && kept.contains(&record.folded);
            let parts: Vec<Pending> = books.pending.iter().copied().collect();
            (plan(base_is_kept, &held), parts)
        };
        match work {
            Work::Nothing => Ok(Step::Done),
            Work::Fold => Ok(match self.fold_one(folding, choice.keep)? {
                Some(folded) => Step::Folded {
                    epoch: folded.epoch,
                    dropped: folded.dropped.into_iter().collect(),
                },
                // Somebody has begun to look at the base meanwhile.
                None => Step::Done,
            }),
            Work::Merge(window) => self.merge_parts(&parts[window], choice),
        }
    }

    /// The epochs of which the points stay.
    fn kept(&self, books: &Books, choice: Choice<'_>) -> BTreeSet<Epoch> {
        let disk = self.identity.0;
        let mut kept = self.registry.always_kept(disk);
        kept.extend(choice.keep);
        let newer = books.points().into_iter().map(|point| point.epoch);
        kept.extend(newer.filter(|epoch| *epoch > choice.through));
        kept.extend(books.catalog.record().marks.pins());
        kept.extend(self.registry.leases.epochs(disk));
        kept
    }

    fn merge_parts(&self, parts: &[Pending], choice: Choice<'_>) -> Result<Step, RetainError> {
        let storage = self.storage.as_ref();
        let Merged { writer, delta } = merge(self, parts).inspect_err(|error| {
            if let RetainError::Storage(error) = error {
                self.note_failure(error);
            }
        })?;
        let mut books = self.books();
        let (inner, kept) = (&parts[..parts.len() - 1], self.kept(&books, choice));
        let is_needed = |part: &Pending| part.point.is_some() && kept.contains(&part.link.epoch);
        // It may have been pinned, or opened, while the merge was made.
        if inner.iter().any(is_needed) {
            drop(books);
            writer.give_up(storage);
            return Ok(Step::Done);
        }
        books.check_health().inspect_err(|_| writer.give_up(storage))?;
        // Which of two files has the name after a crash is unknown once this has failed.
        let published = writer.publish(storage, &self.paths);
        published.inspect_err(|_| books.health = Health::Unknown)?;
        let points = books.points().into_iter();
        let is_inner = |point: &DiskPoint| inner.iter().any(|part| part.link.epoch == point.epoch);
        let dropped = points.filter(is_inner).collect();
        let (oldest, newest) = (parts[0].link.epoch, delta.link.epoch);
        books.pending.retain(|held| held.link.epoch < oldest || held.link.epoch > newest);
        let place = books.pending.partition_point(|held| held.link.epoch < oldest);
        books.pending.insert(place, delta);
        self.publish(&books);
        drop(books);
        for part in inner {
            // What can't be removed now is removed when the disk is opened next.
            let _ = storage.remove(&self.paths.delta(part.link.epoch));
        }
        Ok(Step::Merged { epochs: oldest..=newest, deltas: parts.len(), dropped })
    }
}
