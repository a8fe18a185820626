//! From a stream of bytes to checked frames.
//!
//! Room for a frame is made only after its header was checked, and never more than
//! [`FRAME_LEN_MAX`](super::FRAME_LEN_MAX). A reader that asks [`FrameDecoder::wanted`] before each
//! read fills every frame's own buffer, and the frame is handed out without a copy.

use bytes::BytesMut;

use super::{CheckedFrame, FrameError, FrameHeader, HEADER_LEN};

/// An incremental decoder of the frames of one stream or file.
///
/// After an error the stream is lost: there is no way to find the next frame.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
    header: Option<FrameHeader>,
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes of the stream, any number of them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer that [`push`](Self::push) appends to, for readers that can read into one. Only
    /// append to it, best no more than [`wanted`](Self::wanted).
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// How many more bytes make [`next_frame`](Self::next_frame) go on, at least 1.
    pub fn wanted(&self) -> usize {
        let needed = self.header.map_or(HEADER_LEN, |header| header.frame_len());
        needed.saturating_sub(self.buffer.len()).max(1)
    }

    /// The next frame, if all of it has arrived.
    pub fn next_frame(&mut self) -> Result<Option<CheckedFrame>, FrameError> {
        let header = match (self.header, self.buffer.first_chunk::<HEADER_LEN>()) {
            (Some(header), _) => header,
            (None, Some(bytes)) => *self.header.insert(FrameHeader::parse(bytes)?),
            (None, None) => return Ok(None),
        };
        let len = header.frame_len();
        if self.buffer.len() < len {
            self.buffer.reserve(len - self.buffer.len());
            return Ok(None);
        }
        self.header = None;
        CheckedFrame::with_header(header, self.buffer.split_to(len).freeze()).map(Some)
    }

    /// Whether the stream may end here: no frame is begun.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let present = self.buffer.len();
        Err(FrameError::Truncated { present, needed: present + self.wanted() })
    }
}
