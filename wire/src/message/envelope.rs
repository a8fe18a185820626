//! The envelope of a message: `u32` length of what follows it, `u16` type, body.
//!
//! There is no checksum: TLS carries the control stream, and nothing of it is kept.

use bytes::{Buf, Bytes, BytesMut};

use crate::close::Reason;
use crate::layout::{LayoutError, Writer};

/// Bytes of a message at most, its length field not counted: 1 MiB.
pub const MESSAGE_LEN_MAX: u32 = 1 << 20;

const LENGTH_LEN: usize = 4;
const TYPE_LEN: u32 = 2;

/// A whole message, of which only the length was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Its type.
    pub kind: u16,
    /// Its body.
    pub body: Bytes,
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MessageError {
    /// Longer than the limit.
    #[error("a message of {0} bytes is beyond the limit of {MESSAGE_LEN_MAX}")]
    TooLarge(u32),
    /// Too short to have a type.
    #[error("a message of {0} bytes has no type")]
    NoType(u32),
    /// A type that this direction does not have.
    #[error("a message of type {0:#06x} does not belong here")]
    Type(u16),
    /// The body is not laid out as its type says.
    #[error("a malformed message of type {kind:#06x}: {source}")]
    Layout {
        /// The message's type.
        kind: u16,
        /// What is wrong with it.
        source: LayoutError,
    },
}

impl MessageError {
    /// What to close the connection with.
    pub fn reason(&self) -> Reason {
        match self {
            Self::TooLarge(_) => Reason::TooLarge,
            Self::NoType(_) | Self::Type(_) | Self::Layout { .. } => Reason::ProtocolViolation,
        }
    }
}

/// Cuts the bytes of a control stream into messages. After an error the stream is lost.
#[derive(Debug, Default)]
pub struct MessageDecoder {
    buffer: BytesMut,
}

impl MessageDecoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes of the stream, any number of them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if all of it has arrived.
    pub fn next_message(&mut self) -> Result<Option<Envelope>, MessageError> {
        let Some(len) = self.buffer.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
        let len = u32::from_le_bytes(*len);
        if len > MESSAGE_LEN_MAX {
            return Err(MessageError::TooLarge(len));
        }
        if len < TYPE_LEN {
            return Err(MessageError::NoType(len));
        }
        let whole = LENGTH_LEN + len as usize;
        if self.buffer.len() < whole {
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        let mut message = self.buffer.split_to(whole).freeze();
        message.advance(LENGTH_LEN);
        let kind = message.get_u16_le();
        Ok(Some(Envelope { kind, body: message }))
    }

    /// Whether the stream may end here: no message is begun.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// A message as bytes: the type, and the body that `write` writes.
pub(crate) fn encode(kind: u16, write: impl FnOnce(&mut Writer)) -> Bytes {
    let mut body = Writer::default();
    body.u32(0);
    body.u16(kind);
    write(&mut body);
    let mut bytes = body.into_bytes();
    let len = u32::try_from(bytes.len() - LENGTH_LEN).expect("types bound messages below 1 MiB");
    debug_assert!(len <= MESSAGE_LEN_MAX, "types bound messages below 1 MiB");
    bytes[..LENGTH_LEN].copy_from_slice(&len.to_le_bytes());
    Bytes::from(bytes)
}
