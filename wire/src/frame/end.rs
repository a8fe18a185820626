//! What the end frame of an epoch says: what came before it, and the recovery point that it makes.

use blocks::PointRecord;

use super::EpochSummary;
use super::point::{POINT_RECORD_LEN, decode_point, encode_point};
use super::summary::SummaryError;

/// The end of an epoch: the data of its end frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpochEnd {
    /// The sum of the frames before.
    pub summary: EpochSummary,
    /// The point that the replica holds once this epoch is applied; most epochs make none.
    pub point: Option<PointRecord>,
}

impl EpochEnd {
    /// Its length in bytes if it makes a point; the length of a summary otherwise.
    pub const LEN_MAX: usize = EpochSummary::LEN + POINT_RECORD_LEN;

    /// The end as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.summary.encode().to_vec();
        if let Some(point) = &self.point {
            bytes.extend_from_slice(&encode_point(point));
        }
        bytes
    }

    /// An end from the opened data of an end frame.
    pub fn decode(bytes: &[u8]) -> Result<Self, SummaryError> {
        let (summary, rest) = bytes.split_at_checked(EpochSummary::LEN).ok_or(SummaryError)?;
        let summary = EpochSummary::decode(summary)?;
        if rest.is_empty() {
            return Ok(Self { summary, point: None });
        }
        let record = rest.try_into().map_err(|_| SummaryError)?;
        let point = decode_point(record).ok_or(SummaryError)?;
        Ok(Self { summary, point: Some(point) })
    }
}

impl From<&EpochSummary> for EpochEnd {
    fn from(summary: &EpochSummary) -> Self {
        Self { summary: *summary, point: None }
    }
}

impl From<&Self> for EpochEnd {
    fn from(end: &Self) -> Self {
        *end
    }
}
