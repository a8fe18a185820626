//! A frame whose checksums and shape were verified.

use bytes::Bytes;

use super::error::FramePart;
use super::extent::{check_table, decode_table};
use super::{CHECKSUM_LEN, Content, FrameError, FrameExtent, FrameHeader, HEADER_LEN, TAG_LEN};

/// A whole frame as received: checksums hold, lengths agree, extents are in order.
///
/// It was not decrypted, so it may still be a forgery; only an [`Opener`](crate::Opener) can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedFrame {
    header: FrameHeader,
    extents: Vec<FrameExtent>,
    bytes: Bytes,
}

impl CheckedFrame {
    /// Checks the bytes of exactly one frame.
    pub fn parse(bytes: Bytes) -> Result<Self, FrameError> {
        let truncated = |needed| FrameError::Truncated { present: bytes.len(), needed };
        let header = bytes.first_chunk::<HEADER_LEN>().ok_or_else(|| truncated(HEADER_LEN))?;
        let header = FrameHeader::parse(header)?;
        match bytes.len() {
            len if len < header.frame_len() => Err(truncated(header.frame_len())),
            len if len > header.frame_len() => Err(FrameError::Lengths("bytes after the frame")),
            _ => Self::with_header(header, bytes),
        }
    }

    /// Checks what follows a header; `bytes` is the whole frame.
    pub(super) fn with_header(header: FrameHeader, bytes: Bytes) -> Result<Self, FrameError> {
        debug_assert_eq!(bytes.len(), header.frame_len(), "the caller cut the frame to length");
        let (table_end, payload_start) = (header.table_end(), header.payload_start());
        check_sum(&bytes[HEADER_LEN..table_end], &bytes[table_end..], FramePart::Table)?;
        let payload_end = payload_start + header.payload_len as usize;
        check_sum(&bytes[payload_start..payload_end], &bytes[payload_end..], FramePart::Payload)?;
        let extents = decode_table(&bytes[HEADER_LEN..table_end])?;
        if !header.is_end() && check_table(&extents)? != u64::from(header.plain_len) {
            return Err(FrameError::Lengths("the extents don't add up to the data"));
        }
        Ok(Self { header, extents, bytes })
    }

    /// The checked header.
    pub fn header(&self) -> &FrameHeader {
        &self.header
    }

    /// The extents, ascending and disjoint; none at the end of an epoch.
    pub fn extents(&self) -> &[FrameExtent] {
        &self.extents
    }

    /// The whole frame as received, to be kept or sent on.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// As [`Self::bytes`], for whoever wants their memory back.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Bytes of the disk that the frame sets to zero.
    pub fn zero_bytes(&self) -> u64 {
        let zeroes = self.extents.iter().filter(|extent| extent.content == Content::Zeroes);
        zeroes.map(|extent| extent.extent().len().0).sum()
    }

    /// Header and extent table: what the payload's tag authenticates beside the payload.
    pub(crate) fn additional_data(&self) -> &[u8] {
        &self.bytes[..self.header.table_end()]
    }

    /// The encrypted data, without its tag.
    pub(crate) fn ciphertext(&self) -> &[u8] {
        let start = self.header.payload_start();
        &self.bytes[start..start + self.header.payload_len as usize - TAG_LEN]
    }

    /// The payload's tag.
    pub(crate) fn tag(&self) -> &[u8; TAG_LEN] {
        let end = self.header.payload_start() + self.header.payload_len as usize;
        self.bytes[..end].last_chunk().expect("a checked payload holds its tag")
    }
}

/// Compares the checksum of `part` with the one at the start of `rest`.
fn check_sum(part: &[u8], rest: &[u8], name: FramePart) -> Result<(), FrameError> {
    let stored = rest.first_chunk::<CHECKSUM_LEN>().map(|bytes| u32::from_le_bytes(*bytes));
    if stored == Some(crc32c::crc32c(part)) { Ok(()) } else { Err(FrameError::Checksum(name)) }
}
