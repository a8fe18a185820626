//! The last log: the dirty set as a machine stops, for the boot after. `docs/boot.md` argues it.
//!
//! It is written where it lies, past the file system, when no file system can be written any more.
//! Its first block, the [`LastRecord`], says whether it was closed, and under which number. At the
//! next boot whoever attaches the programs, before anything can be written, *takes* it: looks that
//! nothing was written since, overwrites the record, and keeps the number in the kernel. So a log is
//! believed once, and only by who finds that number there.
//!
//! Invariant: a log that is closed holds every chunk that no acknowledged epoch holds, those of its
//! own blocks among them.

use blocks::{ChunkSize, DiskId, Generation, Geometry};
use storage::StorePath;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use crate::hrl::{self, Log};

mod plan;
#[cfg(test)]
mod tests;

pub use plan::{Plan, PlanError, PlannedRecord};

/// How long the record is; the log follows it.
pub const RECORD_LEN: usize = 4096;

const MAGIC: [u8; 8] = *b"PINLAST\n";
const VERSION: u32 = 1;

/// A number that names one closing, drawn at random.
pub type Closing = [u8; 16];

/// What a last log is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastState {
    /// Nothing: it is being written.
    Open,
    /// Nothing was written after it.
    Closed,
    /// Nothing any more, but for who took it: a boot of the machine.
    Taken {
        /// The identity of that boot.
        boot: [u8; 16],
    },
}

/// The first block of a last log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRecord {
    /// The disk whose log it is.
    pub disk: DiskId,
    /// Its line of history.
    pub generation: Generation,
    /// Its shape.
    pub geometry: Geometry,
    /// What names the closing.
    pub closing: Closing,
    /// The boot that it ended.
    pub closed_in: [u8; 16],
    /// A digest of what the disk's hardware says of itself.
    pub hardware: [u8; 32],
    /// A digest of the places of the disk that change when another system writes to it.
    pub fingerprint: [u8; 32],
    /// How long the log is, in bytes.
    pub log_len: u64,
    /// Its CRC-32C.
    pub log_crc: u32,
    /// What it is good for.
    pub state: LastState,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U32,
    state: u8,
    reserved: [u8; 3],
    disk: [u8; 16],
    generation: [u8; 16],
    closing: [u8; 16],
    closed_in: [u8; 16],
    taken_in: [u8; 16],
    sectors: U64,
    logical_block: U32,
    chunk: U32,
    hardware: [u8; 32],
    fingerprint: [u8; 32],
    log_len: U64,
    log_crc: U32,
    crc: U32,
}

impl LastRecord {
    /// The block.
    pub fn encode(&self) -> [u8; RECORD_LEN] {
        let (state, taken_in) = match self.state {
            LastState::Open => (0, [0; 16]),
            LastState::Closed => (1, [0; 16]),
            LastState::Taken { boot } => (2, boot),
        };
        let mut raw = Raw {
            magic: MAGIC,
            version: VERSION.into(),
            state,
            reserved: [0; 3],
            disk: self.disk.0,
            generation: self.generation.0,
            closing: self.closing,
            closed_in: self.closed_in,
            taken_in,
            sectors: self.geometry.sectors().into(),
            logical_block: self.geometry.logical_block().into(),
            chunk: u32::try_from(self.geometry.chunk().bytes()).expect("at most 1 MiB").into(),
            hardware: self.hardware,
            fingerprint: self.fingerprint,
            log_len: self.log_len.into(),
            log_crc: self.log_crc.into(),
            crc: 0.into(),
        };
        raw.crc = crc_of(&raw).into();
        let mut block = [0; RECORD_LEN];
        block[..size_of::<Raw>()].copy_from_slice(raw.as_bytes());
        block
    }

    /// The record in a block; nothing if there is none, or a damaged one.
    pub fn decode(block: &[u8]) -> Option<Self> {
        let (raw, _) = Raw::ref_from_prefix(block).ok()?;
        let sound = raw.magic == MAGIC && raw.version == VERSION && raw.crc.get() == crc_of(raw);
        let chunk = ChunkSize::from_bytes(raw.chunk.get().into()).ok().filter(|_| sound)?;
        Some(Self {
            disk: DiskId(raw.disk),
            generation: Generation(raw.generation),
            geometry: Geometry::new(raw.sectors.get(), raw.logical_block.get(), chunk).ok()?,
            closing: raw.closing,
            closed_in: raw.closed_in,
            hardware: raw.hardware,
            fingerprint: raw.fingerprint,
            log_len: raw.log_len.get(),
            log_crc: raw.log_crc.get(),
            state: match raw.state {
                0 => LastState::Open,
                1 => LastState::Closed,
                2 => LastState::Taken { boot: raw.taken_in },
                _ => return None,
            },
        })
    }

    /// The same record, for the log that it stands before.
    #[must_use]
    pub fn of_log(mut self, log: &[u8]) -> Self {
        (self.log_len, self.log_crc) = (log.len() as u64, crc32c::crc32c(log));
        self
    }

    /// The same record in another state.
    #[must_use]
    pub fn in_state(self, state: LastState) -> Self {
        Self { state, ..self }
    }
}

/// What a starting agent knows of the beginning of this boot.
#[derive(Clone, Copy, Debug)]
pub struct Boot {
    /// The boot.
    pub boot: [u8; 16],
    /// The closing whose record was taken in it, as the kernel has it.
    pub taken: Closing,
}

/// How long the file of a last log of a disk of `geometry` has to be: whole blocks.
pub fn file_len(geometry: Geometry) -> usize {
    RECORD_LEN + hrl::len_max(geometry).next_multiple_of(RECORD_LEN)
}

/// The log in a file of a last log, if it holds all that was dirty when this boot began: it was
/// taken in this boot, under the number that the kernel has, and is of this disk.
pub fn believed(
    file: &[u8],
    path: &StorePath,
    boot: Boot,
    (disk, generation, geometry): (DiskId, Generation, Geometry),
) -> Option<Log> {
    let (block, rest) = file.split_at_checked(RECORD_LEN)?;
    let record = LastRecord::decode(block)?;
    let taken = record.state == LastState::Taken { boot: boot.boot };
    let ours = (record.disk, record.generation, record.geometry) == (disk, generation, geometry);
    if !taken || record.closing != boot.taken || record.closed_in == boot.boot || !ours {
        return None;
    }
    let bytes = rest.get(..usize::try_from(record.log_len).ok()?)?;
    if crc32c::crc32c(bytes) != record.log_crc {
        return None;
    }
    let log = hrl::decode(bytes, path, geometry.chunks()).ok()?;
    let header = &log.header;
    let ours = (header.disk, header.generation, header.geometry) == (disk, generation, geometry);
    ours.then_some(log)
}

fn crc_of(raw: &Raw) -> u32 {
    let bytes = raw.as_bytes();
    crc32c::crc32c(&bytes[..bytes.len() - size_of::<U32>()])
}
