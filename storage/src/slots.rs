//! A/B slots: one small record that changes in place, and survives a crash during the change.
//!
//! The file is two slots of 4096 bytes, at 0 and 4096. Writing record number `n` goes to slot
//! `n % 2`, so that the slot of record `n - 1` is not touched; reading takes the valid slot with
//! the higher number. A slot, little-endian:
//!
//! | at | bytes | what |
//! |---:|---:|---|
//! | 0 | 8 | magic `PINSLOT1` |
//! | 8 | 8 | tag: what the record is, chosen by its owner |
//! | 16 | 8 | sequence number of the record, from 1 |
//! | 24 | 4 | length of the record, at most 4060 |
//! | 28 | 4 | CRC-32C of the record |
//! | 32 | 4 | CRC-32C of the bytes 0 to 31 |
//! | 36 | | the record, then zeroes |
//!
//! Invariants: the newest record that [`SlotFile::write`] returned `Ok` for is durable, and what
//! [`SlotFile::open`] returns is durable when it returns. Assumption about the medium: writing one
//! slot damages nothing outside its 4096 bytes.

use std::sync::Arc;

use blocks::Mutant;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use crate::{OpenMode, Storage, StorageError, StorageFile, StorePath, publish};

#[cfg(test)]
mod tests;

const MAGIC: [u8; 8] = *b"PINSLOT1";
const SLOT_LEN: usize = 4096;
const HEADER_LEN: usize = size_of::<SlotHeader>();

/// The longest record of a slot, in bytes.
pub const SLOT_PAYLOAD_MAX: usize = SLOT_LEN - HEADER_LEN;

/// What a record is: a constant of its owner, so that one kind is not taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotTag(pub [u8; 8]);

/// A slot file that can't be created, opened or written.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Neither slot holds a valid record.
    #[error("{0}: no valid slot")]
    NoValidSlot(StorePath),
    /// A record longer than a slot takes.
    #[error("a record of {0} bytes does not fit a slot")]
    TooLong(usize),
    /// An earlier write failed, so that nobody knows which record is durable.
    #[error("an earlier write of this slot file failed; it must be opened again")]
    WriteFailedEarlier,
}

/// An open slot file.
#[derive(Debug)]
pub struct SlotFile {
    file: Arc<dyn StorageFile>,
    tag: SlotTag,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Written { sequence: u64 },
    Failed,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SlotHeader {
    magic: [u8; 8],
    tag: [u8; 8],
    sequence: U64,
    record_len: U32,
    record_crc: U32,
    header_crc: U32,
}

struct Record {
    sequence: u64,
    bytes: Vec<u8>,
}

impl SlotFile {
    /// Durably creates the file with its first record. A file of that name is replaced.
    pub fn create(
        storage: &dyn Storage,
        path: &StorePath,
        tag: SlotTag,
        record: &[u8],
    ) -> Result<Self, SlotError> {
        let new = path.parent().join(&format!("{}.new", path.name()));
        let file = storage.open(&new, OpenMode::Create)?;
        let slot = encode(tag, 1, record)?;
        // Both slots are written, so that later changes need no room of the file system.
        file.write_at(slot_offset(0), &[0; SLOT_LEN])?;
        file.write_at(slot_offset(1), &slot)?;
        publish(storage, file.as_ref(), &new, path)?;
        Ok(Self { file, tag, state: State::Written { sequence: 1 } })
    }

    /// Opens the file, and makes its newest record durable.
    ///
    /// The record is written once more, to the other slot: after a failed sync in an earlier
    /// process the page cache may show a record that the medium never got.
    pub fn open(
        storage: &dyn Storage,
        path: &StorePath,
        tag: SlotTag,
    ) -> Result<(Self, Vec<u8>), SlotError> {
        let file = storage.open(path, OpenMode::Write)?;
        let newest = read_newest(file.as_ref(), tag)?;
        let Some(Record { sequence, bytes }) = newest else {
            return Err(SlotError::NoValidSlot(path.clone()));
        };
        let mut slots = Self { file, tag, state: State::Written { sequence } };
        slots.write(&bytes)?;
        Ok((slots, bytes))
    }

    /// The newest record of a file that another process may have open for writing. It is not
    /// known to be durable.
    pub fn peek(
        storage: &dyn Storage,
        path: &StorePath,
        tag: SlotTag,
    ) -> Result<Vec<u8>, SlotError> {
        let file = storage.open(path, OpenMode::Read)?;
        let newest = read_newest(file.as_ref(), tag)?;
        newest.map(|record| record.bytes).ok_or_else(|| SlotError::NoValidSlot(path.clone()))
    }

    /// Durably replaces the record. After an error either record may be the durable one, and the
    /// file takes no more writes until it is opened again.
    pub fn write(&mut self, record: &[u8]) -> Result<(), SlotError> {
        let State::Written { sequence } = self.state else {
            return Err(SlotError::WriteFailedEarlier);
        };
        let next = sequence + 1;
        let slot = encode(self.tag, next, record)?;
        self.state = State::Failed;
        self.file.write_at(slot_offset(next), &slot)?;
        if !Mutant::FlipNotSynced.is_on() {
            self.file.sync_data()?;
        }
        self.state = State::Written { sequence: next };
        Ok(())
    }
}

fn slot_offset(sequence: u64) -> u64 {
    sequence % 2 * SLOT_LEN as u64
}

fn encode(tag: SlotTag, sequence: u64, record: &[u8]) -> Result<Vec<u8>, SlotError> {
    let too_long = || SlotError::TooLong(record.len());
    let record_len = u32::try_from(record.len()).map_err(|_| too_long())?;
    if record.len() > SLOT_PAYLOAD_MAX {
        return Err(too_long());
    }
    let mut header = SlotHeader {
        magic: MAGIC,
        tag: tag.0,
        sequence: sequence.into(),
        record_len: record_len.into(),
        record_crc: crc32c::crc32c(record).into(),
        header_crc: 0.into(),
    };
    header.header_crc = header.checksum().into();
    let mut slot = vec![0; SLOT_LEN];
    slot[..HEADER_LEN].copy_from_slice(header.as_bytes());
    slot[HEADER_LEN..][..record.len()].copy_from_slice(record);
    Ok(slot)
}

impl SlotHeader {
    fn checksum(&self) -> u32 {
        crc32c::crc32c(&self.as_bytes()[..HEADER_LEN - size_of::<U32>()])
    }
}

fn read_newest(file: &dyn StorageFile, tag: SlotTag) -> Result<Option<Record>, StorageError> {
    let mut bytes = vec![0; 2 * SLOT_LEN];
    let len = file.read_at(0, &mut bytes)?;
    let slots = bytes[..len].chunks_exact(SLOT_LEN).zip([0, SLOT_LEN as u64]);
    let valid = slots.filter_map(|(slot, offset)| {
        decode(slot, tag).filter(|record| slot_offset(record.sequence) == offset)
    });
    Ok(valid.max_by_key(|record| record.sequence))
}

/// The record of a slot, or nothing if the slot is not valid.
fn decode(slot: &[u8], tag: SlotTag) -> Option<Record> {
    let (header, rest) = SlotHeader::ref_from_prefix(slot).ok()?;
    if header.magic != MAGIC || header.tag != tag.0 || header.header_crc != header.checksum() {
        return None;
    }
    let record = rest.get(..usize::try_from(header.record_len.get()).ok()?)?;
    // There is always a next record.
    let sequence = Some(header.sequence.get()).filter(|sequence| *sequence < u64::MAX)?;
    (header.record_crc == crc32c::crc32c(record))
        .then(|| Record { sequence, bytes: record.to_vec() })
}
