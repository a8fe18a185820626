//! A delta: the frames of one epoch as they were received, with an index, in an immutable file.
//!
//! ```text
//! content frames | end frame | index of frames and extents | point, if it makes one | trailer
//! ```
//!
//! [`PartWriter`] writes one under its name in `incoming/`; it becomes a delta by being renamed.
//! [`DeltaFile`] reads one: its trailer and index were checked when it was opened, each frame is
//! checked as it is read. Checksums cover every byte, so it is verified without the key.

mod format;
mod index;
mod reader;
mod writer;

pub(crate) use format::DeltaName;
pub use reader::DeltaError;
pub(crate) use reader::{DeltaFile, FrameNumber};
use wire::{EpochLink, FrameHeader};
pub(crate) use writer::PartWriter;

/// The epoch of a frame, and what it is built on.
pub(crate) fn link_of(header: &FrameHeader) -> EpochLink {
    EpochLink { kind: header.kind, epoch: header.epoch, follows: header.follows }
}

/// Content frames of one epoch at most; bounds the memory that an index takes.
pub const FRAMES_PER_EPOCH_MAX: u64 = 1 << 22;

/// Extents of one epoch at most, for the same reason: 512 MiB, and 128 GiB of scattered blocks.
pub const EXTENTS_PER_EPOCH_MAX: u64 = 1 << 25;
