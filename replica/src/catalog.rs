//! The catalogue: what the store knows of a disk beside its content. One record in an A/B slot
//! file, so that a commit is one flip.
//!
//! Invariants of a record:
//! - `folded <= last_durable`; the deltas in between are files, chained by what they follow.
//! - `Completeness::Empty` exactly while `last_durable` is 0.
//! - no line of history was left after `last_durable`.
//! - `hashed` is at most the number of the disk's leaves.
//! - `confirmed <= last_durable`, and `folded <= pin <= last_durable` for every pin.

mod format;
mod marks;

use blocks::{DiskId, Epoch, Generation, Geometry, Lineage, MachineId, PointRecord, Tickets};
use storage::{SlotError, SlotFile, SlotTag, Storage};

pub(crate) use marks::Marks;
pub use marks::{PINS_MAX, PointStatus};

use crate::{
    error::FailureClass,
    layout::DiskPaths,
    leaves::{LeafIndex, leaves_of},
};

const TAG: SlotTag = SlotTag(*b"PINDISK\0");
const VERSION: u16 = 2;

/// The longest name of a disk, in bytes.
pub const NAME_LEN_MAX: usize = 255;

/// What the replica of a disk is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Completeness {
    /// Nothing was committed yet.
    Empty,
    /// Segments of an initial synchronisation or a comparison are outstanding: the base is a
    /// mixture of times and no point.
    Partial,
    /// The replica equals the source at the seal of the last durable epoch.
    Follows,
}

/// How far the replica of a disk has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiskState {
    /// The newest epoch that is durable here.
    pub last_durable: Epoch,
    /// What the replica is worth.
    pub completeness: Completeness,
}

/// What a replica is to its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplicaRole {
    /// It follows.
    Follower,
    /// It was promoted: it is a disk of its own, and takes nothing from its source.
    Promoted,
}

/// Where the base of a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BaseKind {
    /// A sparse file in the store.
    File,
    /// A block device, named by a record in the store.
    Device,
}

/// The record of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) disk: DiskId,
    /// The lines of history that its content went through, discarded ones too.
    pub(crate) lineage: Lineage,
    pub(crate) role: ReplicaRole,
    pub(crate) tickets: Tickets,
    pub(crate) machine: MachineId,
    pub(crate) geometry: Geometry,
    pub(crate) base: BaseKind,
    pub(crate) state: DiskState,
    /// The newest epoch that is in the base.
    pub(crate) folded: Epoch,
    pub(crate) name: String,
    /// The point that the base holds, if it holds one.
    pub(crate) base_point: Option<PointRecord>,
    /// The hashes of so many leaves of the base are kept, from the first on.
    pub(crate) hashed: LeafIndex,
    pub(crate) marks: Marks,
}

/// A catalogue that says what can't be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// It was written by another version.
    #[error("the catalogue has version {0}; this is version {VERSION}")]
    Version(u16),
    /// Its length is not that of a record.
    #[error("the catalogue has {0} bytes")]
    Length(usize),
    /// A field holds a value without a meaning.
    #[error("the catalogue's {0} is invalid")]
    Field(&'static str),
    /// It belongs to another disk.
    #[error("the catalogue belongs to disk {0}")]
    OtherDisk(DiskId),
}

/// A catalogue that can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The slot file failed.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The record makes no sense.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl CatalogError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Slot(error) => FailureClass::of_slot(error),
            Self::Record(_) => FailureClass::Corrupt,
        }
    }
}

/// An open catalogue: the record that is durable, and the file to change it in.
#[derive(Debug)]
pub(crate) struct Catalog {
    slots: SlotFile,
    record: Record,
}

impl Catalog {
    pub(crate) fn create(
        storage: &dyn Storage,
        paths: &DiskPaths,
        record: Record,
    ) -> Result<Self, CatalogError> {
        let slots = SlotFile::create(storage, &paths.catalog(), TAG, &record.encode()?)?;
        Ok(Self { slots, record })
    }

    /// Opens the catalogue of `disk`; its record is durable afterwards.
    pub(crate) fn open(
        storage: &dyn Storage,
        paths: &DiskPaths,
        disk: DiskId,
    ) -> Result<Self, CatalogError> {
        let (slots, bytes) = SlotFile::open(storage, &paths.catalog(), TAG)?;
        Ok(Self { slots, record: Record::decode_of(disk, &bytes)? })
    }

    /// The record as another process may be writing it.
    pub(crate) fn peek(
        storage: &dyn Storage,
        paths: &DiskPaths,
        disk: DiskId,
    ) -> Result<Record, CatalogError> {
        let bytes = SlotFile::peek(storage, &paths.catalog(), TAG)?;
        Ok(Record::decode_of(disk, &bytes)?)
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Durably replaces the record. After an error the catalogue must be opened again.
    pub(crate) fn replace(&mut self, record: Record) -> Result<(), CatalogError> {
        self.slots.write(&record.encode()?)?;
        self.record = record;
        Ok(())
    }
}

impl Record {
    /// The line of history that it is in.
    pub(crate) fn generation(&self) -> Generation {
        self.lineage.current()
    }

    /// The invariants of the module's head.
    fn check(self) -> Result<Self, RecordError> {
        if self.state.last_durable > Epoch::MAX {
            return Err(RecordError::Field("last durable epoch"));
        }
        if self.folded > self.state.last_durable {
            return Err(RecordError::Field("folded epoch"));
        }
        let is_empty = self.state.completeness == Completeness::Empty;
        if is_empty != (self.state.last_durable == Epoch::NONE) {
            return Err(RecordError::Field("last durable epoch"));
        }
        let left = self.lineage.past().first().map(|line| line.through);
        if left > Some(self.state.last_durable) {
            return Err(RecordError::Field("lines of history"));
        }
        if self.hashed > leaves_of(self.geometry) {
            return Err(RecordError::Field("number of hashes"));
        }
        let (first, last) = (self.marks.pins().first(), self.marks.pins().last());
        let held = first.is_none_or(|pin| *pin >= self.folded)
            && last.is_none_or(|pin| *pin <= self.state.last_durable)
            && self.marks.confirmed <= self.state.last_durable;
        if !held || !self.marks.are_in_order() {
            return Err(RecordError::Field("marks"));
        }
        Ok(self)
    }
}
