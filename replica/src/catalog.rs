//! The catalogue: what the store knows of a disk beside its content. One record in an A/B slot
//! file, so that a commit is one flip.
//!
//! Invariants of a record:
//! - `folded <= last_durable`; the deltas in between are files, chained by what they follow.
//! - `Completeness::Empty` exactly while `last_durable` is 0.
//!
//! The record, little-endian, 384 bytes; `docs/replica-store.md` has the table.

use blocks::{ChunkSize, DiskId, Epoch, Generation, Geometry, MachineId};
use storage::{SlotError, SlotFile, SlotTag, Storage};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use crate::{error::FailureClass, layout::DiskPaths};

const TAG: SlotTag = SlotTag(*b"PINDISK\0");
const VERSION: u16 = 1;

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
    pub(crate) generation: Generation,
    pub(crate) machine: MachineId,
    pub(crate) geometry: Geometry,
    pub(crate) base: BaseKind,
    pub(crate) state: DiskState,
    /// The newest epoch that is in the base.
    pub(crate) folded: Epoch,
    pub(crate) name: String,
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

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRecord {
    version: U16,
    content: u8,
    base: u8,
    name_len: U16,
    reserved: U16,
    disk: [u8; 16],
    generation: [u8; 16],
    machine: [u8; 16],
    sectors: U64,
    logical_block: U32,
    chunk_len: U32,
    last_durable: U64,
    folded: U64,
    name: [u8; 256],
    spare: [u8; 40],
}

const _: () = assert!(size_of::<RawRecord>() == 384);

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
        let slots = SlotFile::create(storage, &paths.catalog(), TAG, record.encode()?.as_bytes())?;
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
        self.slots.write(record.encode()?.as_bytes())?;
        self.record = record;
        Ok(())
    }
}

impl Record {
    fn encode(&self) -> Result<RawRecord, RecordError> {
        let mut name = [0; 256];
        let name_len = u16::try_from(self.name.len()).ok();
        let name_len = name_len.filter(|len| usize::from(*len) <= NAME_LEN_MAX);
        let name_len = name_len.ok_or(RecordError::Field("name"))?;
        name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        Ok(RawRecord {
            version: VERSION.into(),
            content: match self.state.completeness {
                Completeness::Empty => 1,
                Completeness::Partial => 2,
                Completeness::Follows => 3,
            },
            base: match self.base {
                BaseKind::File => 1,
                BaseKind::Device => 2,
            },
            name_len: name_len.into(),
            reserved: U16::ZERO,
            disk: self.disk.0,
            generation: self.generation.0,
            machine: self.machine.0,
            sectors: self.geometry.sectors().into(),
            logical_block: self.geometry.logical_block().into(),
            chunk_len: (1 << self.geometry.chunk().log2()).into(),
            last_durable: self.state.last_durable.0.into(),
            folded: self.folded.0.into(),
            name,
            spare: [0; 40],
        })
    }

    fn decode_of(disk: DiskId, bytes: &[u8]) -> Result<Self, RecordError> {
        let record = Self::decode(bytes)?;
        if record.disk == disk { Ok(record) } else { Err(RecordError::OtherDisk(record.disk)) }
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let version = bytes.first_chunk().ok_or(RecordError::Length(bytes.len()))?;
        if u16::from_le_bytes(*version) != VERSION {
            return Err(RecordError::Version(u16::from_le_bytes(*version)));
        }
        let raw = RawRecord::ref_from_bytes(bytes).map_err(|_| RecordError::Length(bytes.len()))?;
        let name = raw.name.get(..usize::from(raw.name_len.get()));
        let name = name.and_then(|name| str::from_utf8(name).ok());
        let chunk = ChunkSize::from_bytes(u64::from(raw.chunk_len.get())).ok();
        let geometry =
            chunk.and_then(|c| Geometry::new(raw.sectors.get(), raw.logical_block.get(), c).ok());
        let record = Self {
            disk: DiskId(raw.disk),
            generation: Generation(raw.generation),
            machine: MachineId(raw.machine),
            geometry: geometry.ok_or(RecordError::Field("geometry"))?,
            base: match raw.base {
                1 => BaseKind::File,
                2 => BaseKind::Device,
                _ => return Err(RecordError::Field("kind of base")),
            },
            state: DiskState {
                last_durable: Epoch(raw.last_durable.get()),
                completeness: match raw.content {
                    1 => Completeness::Empty,
                    2 => Completeness::Partial,
                    3 => Completeness::Follows,
                    _ => return Err(RecordError::Field("content")),
                },
            },
            folded: Epoch(raw.folded.get()),
            name: name.ok_or(RecordError::Field("name"))?.to_owned(),
        };
        record.check()
    }

    /// The invariants of the module's head.
    fn check(self) -> Result<Self, RecordError> {
        if self.folded > self.state.last_durable {
            return Err(RecordError::Field("folded epoch"));
        }
        let is_empty = self.state.completeness == Completeness::Empty;
        if is_empty != (self.state.last_durable == Epoch::NONE) {
            return Err(RecordError::Field("last durable epoch"));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn record() -> Record {
        Record {
            disk: DiskId([1; 16]),
            generation: Generation([2; 16]),
            machine: MachineId([3; 16]),
            geometry: Geometry::new(1000, 512, ChunkSize::DEFAULT).unwrap(),
            base: BaseKind::File,
            state: DiskState { last_durable: Epoch(7), completeness: Completeness::Follows },
            folded: Epoch(6),
            name: "/dev/disk/by-id/system".to_owned(),
        }
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let written = record();
        assert_eq!(Record::decode(written.encode().unwrap().as_bytes()), Ok(written.clone()));
        let longest = Record { name: "n".repeat(NAME_LEN_MAX), ..written.clone() };
        assert_eq!(Record::decode(longest.encode().unwrap().as_bytes()), Ok(longest));
        let too_long = Record { name: "n".repeat(NAME_LEN_MAX + 1), ..written };
        assert!(matches!(too_long.encode(), Err(RecordError::Field("name"))));
    }

    #[test]
    fn the_layout_of_version_1_does_not_move() {
        let raw = record().encode().unwrap();
        let bytes = raw.as_bytes();
        assert_eq!(bytes[..8], [1, 0, 3, 1, 22, 0, 0, 0]);
        assert_eq!((bytes[8], bytes[24], bytes[40]), (1, 2, 3));
        assert_eq!(bytes[56..72], [0xe8, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 16, 0, 0]);
        assert_eq!((bytes[72], bytes[80], bytes[88]), (7, 6, b'/'));
    }

    #[test]
    fn records_that_cannot_be_are_errors() {
        let raw = record().encode().unwrap();
        let with = |change: fn(&mut RawRecord)| {
            let mut raw = raw;
            change(&mut raw);
            Record::decode(raw.as_bytes())
        };
        assert_eq!(with(|raw| raw.version = 2.into()), Err(RecordError::Version(2)));
        assert_eq!(with(|raw| raw.content = 0), Err(RecordError::Field("content")));
        assert_eq!(with(|raw| raw.base = 3), Err(RecordError::Field("kind of base")));
        assert_eq!(with(|raw| raw.sectors = 0.into()), Err(RecordError::Field("geometry")));
        assert_eq!(with(|raw| raw.chunk_len = 5.into()), Err(RecordError::Field("geometry")));
        assert_eq!(with(|raw| raw.folded = 8.into()), Err(RecordError::Field("folded epoch")));
        assert_eq!(with(|raw| raw.name_len = 257.into()), Err(RecordError::Field("name")));
        assert_eq!(with(|raw| raw.name[0] = 0xff), Err(RecordError::Field("name")));
        let empty = with(|raw| raw.content = 1);
        assert_eq!(empty, Err(RecordError::Field("last durable epoch")));
        assert_eq!(Record::decode(&raw.as_bytes()[1..]), Err(RecordError::Version(768)));
        assert_eq!(Record::decode(&raw.as_bytes()[..383]), Err(RecordError::Length(383)));
        assert_eq!(Record::decode(&[]), Err(RecordError::Length(0)));
    }
}
