//! Reading and writing the fields of a message, in order, little-endian.
//!
//! A reader never reads past its bytes, and nothing is allocated for a length it has not seen
//! bytes for.

use blocks::Epoch;

use crate::text::{Text, TextError};

/// Why the bytes of a message are none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError {
    /// The bytes end within a field.
    #[error("it ends within a field")]
    Short,
    /// There are bytes after the last field.
    #[error("it goes on for {0} bytes after its last field")]
    Long(usize),
    /// A field holds a number without a meaning.
    #[error("its {field} can't be {value}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it held.
        value: u64,
    },
    /// A text that is none.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// Reads fields off the front of a message's body.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], LayoutError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(LayoutError::Short)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, LayoutError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, LayoutError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, LayoutError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, LayoutError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn epoch(&mut self) -> Result<Epoch, LayoutError> {
        let epoch = Epoch(self.u64()?);
        if epoch > Epoch::MAX {
            return Err(LayoutError::Field { field: "epoch", value: epoch.0 });
        }
        Ok(epoch)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], LayoutError> {
        let (field, rest) = self.0.split_at_checked(len).ok_or(LayoutError::Short)?;
        self.0 = rest;
        Ok(field)
    }

    /// Bytes with their length before them, as a `u16`, of at most `max`.
    pub(crate) fn sized(
        &mut self,
        field: &'static str,
        max: usize,
    ) -> Result<&'a [u8], LayoutError> {
        let len = self.u16()?;
        if usize::from(len) > max {
            return Err(LayoutError::Field { field, value: len.into() });
        }
        self.bytes(len.into())
    }

    pub(crate) fn text<const MAX: usize>(&mut self) -> Result<Text<MAX>, LayoutError> {
        Ok(Text::from_bytes(self.sized("length of a text", MAX)?)?)
    }

    /// Checks that nothing is left.
    pub(crate) fn end(self) -> Result<(), LayoutError> {
        if self.0.is_empty() { Ok(()) } else { Err(LayoutError::Long(self.0.len())) }
    }
}

/// Appends fields to a message's body.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn array<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.array(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.array(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.array(&value.to_le_bytes());
    }

    /// Bytes with their length before them, as a `u16`.
    pub(crate) fn sized(&mut self, bytes: &[u8]) {
        self.u16(u16::try_from(bytes.len()).expect("types bound every sized field below 64 KiB"));
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn text<const MAX: usize>(&mut self, text: &Text<MAX>) {
        self.sized(text.as_str().as_bytes());
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}
