//! Frames: what carries the content of a disk, on a data stream and at rest.
//!
//! A frame is a header of fixed length, a table of extents, and a sealed payload, each with a
//! checksum of its own, so that a target can verify what it holds without the key. A run of
//! frames of one epoch ends with an end frame; see [`EpochChain`].
//!
//! Two types keep what was checked apart from what was not: bytes go into a [`FrameDecoder`], and
//! only a [`CheckedFrame`] comes out. Its checksums and shape hold; whether it is *authentic* only
//! an [`Opener`](crate::Opener) can say.

mod chain;
mod checked;
mod decoder;
mod end;
mod error;
mod extent;
mod header;
mod point;
mod span;
mod summary;

#[cfg(test)]
mod tests;

pub use chain::{ChainError, EpochChain};
pub use checked::CheckedFrame;
pub use decoder::FrameDecoder;
pub use end::EpochEnd;
pub use error::FrameError;
pub use error::FramePart;
pub use extent::{Content, FrameExtent};
pub use header::{Codec, FrameHeader, FrameRole, HEADER_LEN, Sequence, SessionSalt};
pub use point::{POINT_RECORD_LEN, decode_point, encode_point};
pub use span::should_end_before;
pub use summary::{EpochSummary, SummaryError};

pub(crate) use extent::check_table;

/// The version of the frame format written and read here.
pub const FRAME_VERSION: u16 = 1;

/// Bytes of disk content in a frame, before compression, at most: 1 MiB.
pub const DATA_LEN_MAX: u32 = 1 << 20;

/// Extents in a frame at most.
pub const EXTENTS_MAX: u16 = 1024;

/// Bytes of an entry of the extent table.
pub const EXTENT_LEN: usize = 16;

/// Bytes of the authentication tag at the end of a payload.
pub const TAG_LEN: usize = 16;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;

/// Bytes of a checksum.
pub const CHECKSUM_LEN: usize = 4;

/// Bytes of a whole frame at most: 1,065,088.
pub const FRAME_LEN_MAX: usize = HEADER_LEN
    + EXTENTS_MAX as usize * EXTENT_LEN
    + CHECKSUM_LEN
    + DATA_LEN_MAX as usize
    + TAG_LEN
    + CHECKSUM_LEN;
