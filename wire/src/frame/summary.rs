//! What the end frame of an epoch says about the frames before it.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const FLAG_COMPLETES: u64 = 1;

/// The sum of an epoch's content frames: the data of its end frame.
///
/// It is sealed, so nothing that was left out of an epoch, or cut off its end, goes unnoticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpochSummary {
    /// How many content frames, the end frame not counted.
    pub frames: u64,
    /// Bytes of data, before it was coded.
    pub data_bytes: u64,
    /// Bytes of extents that read as zeroes.
    pub zero_bytes: u64,
    /// Whether the replica holds every write up to the seal once this epoch is applied.
    pub completes: bool,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawSummary {
    frames: U64,
    data_bytes: U64,
    zero_bytes: U64,
    flags: U64,
}

/// The sealed data of an end frame is no summary.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the data of the end frame is no summary of an epoch")]
pub struct SummaryError;

impl EpochSummary {
    /// Its length in bytes.
    pub const LEN: usize = size_of::<RawSummary>();

    /// The summary as bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let raw = RawSummary {
            frames: U64::new(self.frames),
            data_bytes: U64::new(self.data_bytes),
            zero_bytes: U64::new(self.zero_bytes),
            flags: U64::new(if self.completes { FLAG_COMPLETES } else { 0 }),
        };
        zerocopy::transmute!(raw)
    }

    /// A summary from the opened data of an end frame.
    pub fn decode(bytes: &[u8]) -> Result<Self, SummaryError> {
        let raw = RawSummary::ref_from_bytes(bytes).map_err(|_| SummaryError)?;
        if raw.flags.get() & !FLAG_COMPLETES != 0 {
            return Err(SummaryError);
        }
        Ok(Self {
            frames: raw.frames.get(),
            data_bytes: raw.data_bytes.get(),
            zero_bytes: raw.zero_bytes.get(),
            completes: raw.flags.get() == FLAG_COMPLETES,
        })
    }
}
