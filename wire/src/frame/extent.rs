//! The extent table of a frame.
//!
//! Invariant of a checked table: no extent is empty, each starts at or after the end of the one
//! before, and none ends past the longest disk.

use blocks::{Extent, SECTOR_SIZE, Sector};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{EXTENT_LEN, FrameError};

/// No disk has more sectors; the limit of [`blocks::Geometry`].
const SECTORS_MAX: u64 = 1 << 45;

/// What a frame says of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Content {
    /// Its content is in the payload.
    Data = 0,
    /// It reads as zeroes; nothing is in the payload.
    Zeroes = 1,
}

/// An extent of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameExtent {
    /// Its first sector.
    pub start: Sector,
    /// How many sectors, at least one.
    pub sectors: u32,
    /// Where its content is.
    pub content: Content,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawExtent {
    start: U64,
    sectors: U32,
    content: U32,
}

const _: () = assert!(size_of::<RawExtent>() == EXTENT_LEN);

impl FrameExtent {
    /// The range of sectors.
    pub const fn extent(&self) -> Extent {
        Extent { start: self.start, sectors: self.sectors as u64 }
    }

    /// Bytes of the payload's data that belong to it.
    pub const fn data_len(&self) -> u64 {
        match self.content {
            Content::Data => self.sectors as u64 * SECTOR_SIZE,
            Content::Zeroes => 0,
        }
    }

    /// The entry as bytes.
    pub(crate) fn encode(&self) -> [u8; EXTENT_LEN] {
        let raw = RawExtent {
            start: U64::new(self.start.0),
            sectors: U32::new(self.sectors),
            content: U32::new(self.content as u32),
        };
        zerocopy::transmute!(raw)
    }

    fn decode(bytes: &[u8; EXTENT_LEN], index: usize) -> Result<Self, FrameError> {
        let raw: &RawExtent = zerocopy::transmute_ref!(bytes);
        let content = match raw.content.get() {
            0 => Content::Data,
            1 => Content::Zeroes,
            _ => return Err(FrameError::Extent { index }),
        };
        Ok(Self { start: Sector(raw.start.get()), sectors: raw.sectors.get(), content })
    }
}

/// Decodes and checks a table. The caller has bounded its length.
pub(crate) fn decode_table(bytes: &[u8]) -> Result<Vec<FrameExtent>, FrameError> {
    let (entries, rest) = bytes.as_chunks::<EXTENT_LEN>();
    debug_assert!(rest.is_empty(), "a table is a whole number of entries");
    let decode = |(index, entry)| FrameExtent::decode(entry, index);
    let extents = entries.iter().enumerate().map(decode).collect::<Result<Vec<_>, _>>()?;
    check_table(&extents)?;
    Ok(extents)
}

/// Checks the order of a table, and returns the bytes of data its extents need.
pub(crate) fn check_table(extents: &[FrameExtent]) -> Result<u64, FrameError> {
    let mut end = Sector(0);
    let mut data_len = 0;
    for (index, extent) in extents.iter().enumerate() {
        let next = extent.extent().end();
        if extent.sectors == 0 || extent.start < end || next.0 > SECTORS_MAX {
            return Err(FrameError::Extent { index });
        }
        end = next;
        data_len += extent.data_len();
    }
    Ok(data_len)
}
