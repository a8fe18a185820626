//! The trailer of a delta file, and the record of a point before it. `docs/replica-store.md` has
//! the tables.

use blocks::{DiskId, Epoch, EpochKind, Generation};
use wire::{
    EpochLink, EpochSummary,
    frame::{FRAME_LEN_MAX, POINT_RECORD_LEN},
};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use super::{EXTENTS_PER_EPOCH_MAX, FRAMES_PER_EPOCH_MAX, index};

#[cfg(test)]
mod tests;

const MAGIC: [u8; 8] = *b"PNDELTA\0";

pub(super) const TRAILER_LEN: usize = size_of::<RawTrailer>();

/// Which epoch of which disk a delta holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeltaName {
    pub(crate) disk: DiskId,
    pub(crate) generation: Generation,
    pub(crate) link: EpochLink,
}

/// How a delta file is laid out behind its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The index bounds what each frame touches.
    Bounds,
    /// The index lists every extent, and a point may follow it.
    Exact {
        /// Entries of the table of extents.
        extents: u64,
        /// Bytes of the end frame.
        end_len: u32,
        has_point: bool,
    },
}

/// A checked trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) name: DeltaName,
    /// Where the frames end and the index begins.
    pub(crate) index_offset: u64,
    /// Of the index and the point.
    pub(crate) index_crc: u32,
    /// What the end frame says too: here it can be read without the key.
    pub(crate) summary: EpochSummary,
    pub(crate) version: Version,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawTrailer {
    magic: [u8; 8],
    version: U16,
    kind: u8,
    completes: u8,
    /// Reserved in version 1, as is everything of the next line.
    end_len: U32,
    disk: [u8; 16],
    generation: [u8; 16],
    epoch: U64,
    follows: U64,
    index_offset: U64,
    frames: U64,
    data_bytes: U64,
    zero_bytes: U64,
    extents: U64,
    has_point: u8,
    spare: [u8; 15],
    index_crc: U32,
    trailer_crc: U32,
}

const _: () = assert!(TRAILER_LEN == 128);

impl Trailer {
    pub(super) fn encode(&self) -> [u8; TRAILER_LEN] {
        let Self { name, summary, .. } = self;
        let (version, extents, end_len, has_point) = match self.version {
            Version::Bounds => (1, 0, 0, false),
            Version::Exact { extents, end_len, has_point } => (2, extents, end_len, has_point),
        };
        let mut raw = RawTrailer {
            magic: MAGIC,
            version: U16::new(version),
            kind: name.link.kind as u8,
            completes: summary.completes.into(),
            end_len: end_len.into(),
            disk: name.disk.0,
            generation: name.generation.0,
            epoch: name.link.epoch.0.into(),
            follows: name.link.follows.0.into(),
            index_offset: self.index_offset.into(),
            frames: summary.frames.into(),
            data_bytes: summary.data_bytes.into(),
            zero_bytes: summary.zero_bytes.into(),
            extents: extents.into(),
            has_point: has_point.into(),
            spare: [0; 15],
            index_crc: self.index_crc.into(),
            trailer_crc: U32::ZERO,
        };
        raw.trailer_crc = raw.checksum().into();
        zerocopy::transmute!(raw)
    }

    /// The trailer of a file of `file_len` bytes, or nothing if it is not one.
    pub(super) fn decode(bytes: &[u8; TRAILER_LEN], file_len: u64) -> Option<Self> {
        let raw: &RawTrailer = zerocopy::transmute_ref!(bytes);
        if raw.magic != MAGIC || raw.trailer_crc.get() != raw.checksum() || raw.completes > 1 {
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
            version: raw.version()?,
        };
        let tail_len = trailer.index_len()? + trailer.point_len() + TRAILER_LEN as u64;
        (trailer.index_offset.checked_add(tail_len) == Some(file_len)).then_some(trailer)
    }

    /// Bytes of the index; nothing if there are more entries than may be.
    pub(super) fn index_len(&self) -> Option<u64> {
        let frames = self.summary.frames;
        if frames > FRAMES_PER_EPOCH_MAX {
            return None;
        }
        match self.version {
            Version::Bounds => Some(frames * index::BOUNDS_ENTRY_LEN),
            Version::Exact { extents, .. } if extents > EXTENTS_PER_EPOCH_MAX => None,
            Version::Exact { extents, .. } => Some(index::exact_len(frames, extents)),
        }
    }

    /// Bytes of the record of the point between index and trailer.
    pub(super) fn point_len(&self) -> u64 {
        match self.version {
            Version::Exact { has_point: true, .. } => POINT_RECORD_LEN as u64,
            _ => 0,
        }
    }
}

impl RawTrailer {
    fn version(&self) -> Option<Version> {
        match self.version.get() {
            1 => Some(Version::Bounds),
            2 if self.has_point <= 1 && self.end_len.get() as usize <= FRAME_LEN_MAX => {
                Some(Version::Exact {
                    extents: self.extents.get(),
                    end_len: self.end_len.get(),
                    has_point: self.has_point == 1,
                })
            }
            _ => None,
        }
    }

    fn checksum(&self) -> u32 {
        crc32c::crc32c(&self.as_bytes()[..TRAILER_LEN - size_of::<U32>()])
    }
}
