//! The index and the trailer of a delta file. `docs/replica-store.md` has the tables.

use blocks::{DiskId, Epoch, EpochKind, Generation};
use wire::{EpochLink, EpochSummary, frame::FRAME_LEN_MAX};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use super::FRAMES_PER_EPOCH_MAX;

#[cfg(test)]
mod tests;

const MAGIC: [u8; 8] = *b"PNDELTA\0";
const VERSION: u16 = 1;

pub(super) const ENTRY_LEN: usize = size_of::<RawEntry>();
pub(super) const TRAILER_LEN: usize = size_of::<RawTrailer>();

/// Which epoch of which disk a delta holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeltaName {
    pub(crate) disk: DiskId,
    pub(crate) generation: Generation,
    pub(crate) link: EpochLink,
}

/// Where a content frame is, and what of the disk it lies within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// From the start of the file.
    pub(crate) offset: u64,
    pub(crate) len: u32,
    /// The first sector of its first extent.
    pub(crate) first: u64,
    /// The first sector after its last extent.
    pub(crate) end: u64,
}

/// A checked trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) name: DeltaName,
    /// Where the frames end and the index begins.
    pub(crate) index_offset: u64,
    pub(crate) index_crc: u32,
    /// What the end frame says too: here it can be read without the key.
    pub(crate) summary: EpochSummary,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    offset: U64,
    first: U64,
    end: U64,
    len: U32,
    reserved: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawTrailer {
    magic: [u8; 8],
    version: U16,
    kind: u8,
    completes: u8,
    reserved: U32,
    disk: [u8; 16],
    generation: [u8; 16],
    epoch: U64,
    follows: U64,
    index_offset: U64,
    frames: U64,
    data_bytes: U64,
    zero_bytes: U64,
    spare: [u8; 24],
    index_crc: U32,
    trailer_crc: U32,
}

const _: () = assert!(ENTRY_LEN == 32 && TRAILER_LEN == 128);

impl IndexEntry {
    pub(super) fn encode(&self) -> [u8; ENTRY_LEN] {
        let raw = RawEntry {
            offset: self.offset.into(),
            first: self.first.into(),
            end: self.end.into(),
            len: self.len.into(),
            reserved: U32::ZERO,
        };
        zerocopy::transmute!(raw)
    }

    fn decode(raw: &RawEntry) -> Self {
        Self {
            offset: raw.offset.get(),
            len: raw.len.get(),
            first: raw.first.get(),
            end: raw.end.get(),
        }
    }
}

/// The entries of an index of which the checksum holds: frames from the start of the file, one
/// after the other, none longer than a frame can be, all before `frames_end`.
pub(super) fn decode_index(bytes: &[u8], frames_end: u64) -> Option<Vec<IndexEntry>> {
    let (entries, rest) = <[RawEntry]>::ref_from_prefix(bytes).ok()?;
    let entries: Vec<IndexEntry> = entries.iter().map(IndexEntry::decode).collect();
    let mut expected = 0;
    for entry in &entries {
        let fits = entry.len as usize <= FRAME_LEN_MAX && entry.len > 0;
        if entry.offset != expected || !fits || entry.first >= entry.end {
            return None;
        }
        expected += u64::from(entry.len);
    }
    // The end frame lies between the last content frame and the index.
    (rest.is_empty() && expected < frames_end).then_some(entries)
}

impl Trailer {
    pub(super) fn encode(&self) -> [u8; TRAILER_LEN] {
        let Self { name, summary, .. } = self;
        let mut raw = RawTrailer {
            magic: MAGIC,
            version: VERSION.into(),
            kind: name.link.kind as u8,
            completes: summary.completes.into(),
            reserved: U32::ZERO,
            disk: name.disk.0,
            generation: name.generation.0,
            epoch: name.link.epoch.0.into(),
            follows: name.link.follows.0.into(),
            index_offset: self.index_offset.into(),
            frames: summary.frames.into(),
            data_bytes: summary.data_bytes.into(),
            zero_bytes: summary.zero_bytes.into(),
            spare: [0; 24],
            index_crc: self.index_crc.into(),
            trailer_crc: U32::ZERO,
        };
        raw.trailer_crc = raw.checksum().into();
        zerocopy::transmute!(raw)
    }

    /// The trailer of a file of `file_len` bytes, or nothing if it is not one.
    pub(super) fn decode(bytes: &[u8; TRAILER_LEN], file_len: u64) -> Option<Self> {
        let raw: &RawTrailer = zerocopy::transmute_ref!(bytes);
        let is_ours = raw.magic == MAGIC && raw.version.get() == VERSION;
        if !is_ours || raw.trailer_crc.get() != raw.checksum() || raw.completes > 1 {
            return None;
        }
        let trailer = Self {
            name: DeltaName {
                disk: DiskId(raw.disk),
                generation: Generation(raw.generation),
                link: EpochLink {
                    kind: EpochKind::from_u8(raw.kind)?,
                    epoch: Epoch(raw.epoch.get()),
                    follows: Epoch(raw.follows.get()),
                },
            },
            index_offset: raw.index_offset.get(),
            index_crc: raw.index_crc.get(),
            summary: EpochSummary {
                frames: raw.frames.get(),
                data_bytes: raw.data_bytes.get(),
                zero_bytes: raw.zero_bytes.get(),
                completes: raw.completes == 1,
            },
        };
        let index_len = trailer.index_len()?;
        let end = trailer.index_offset.checked_add(index_len + TRAILER_LEN as u64);
        (end == Some(file_len)).then_some(trailer)
    }

    /// Bytes of the index; nothing if there are more frames than may be.
    pub(super) fn index_len(&self) -> Option<u64> {
        let frames = self.summary.frames;
        (frames <= FRAMES_PER_EPOCH_MAX).then(|| frames * ENTRY_LEN as u64)
    }
}

impl RawTrailer {
    fn checksum(&self) -> u32 {
        crc32c::crc32c(&self.as_bytes()[..TRAILER_LEN - size_of::<U32>()])
    }
}
