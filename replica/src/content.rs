//! From a checked frame to the content of a disk: open, decode, apply.

use std::sync::Arc;

use blocks::Geometry;
use bytes::BytesMut;
use storage::StorageError;
use wire::{CheckedFrame, Codec, Content, OpenError, Opener, frame::DATA_LEN_MAX};

use crate::{
    base::Base,
    error::FailureClass,
    leaves::{LeafTable, Written},
};

/// What every frame of a disk is taken in with.
#[derive(Debug)]
pub(crate) struct FrameTaker {
    pub(crate) opener: Arc<Opener>,
    pub(crate) geometry: Geometry,
    pub(crate) base: Base,
    /// The hashes of the base's leaves.
    pub(crate) leaves: LeafTable,
}

/// What is done with a frame once it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Its content goes to the base.
    Apply,
    /// Nothing: it is known to be whole, so that it can be applied later.
    Check,
}

/// The buffers of one worker.
pub(crate) struct Scratch {
    /// For the frame as it lies in a file.
    pub(crate) sealed: BytesMut,
    coded: Vec<u8>,
    plain: Vec<u8>,
    zstd: zstd::bulk::Decompressor<'static>,
}

/// A frame whose content can't be taken in.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// It is not authentic.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It does not decompress to what it says.
    #[error("the frame does not decompress to the {0} bytes it states")]
    Coding(u32),
    /// It goes past the end of the disk.
    #[error("the frame goes past the end of the disk")]
    PastEnd,
    /// Writing it failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A worker thread ended in the middle of it.
    #[error("the thread that took the frame in has failed")]
    WorkerFailed,
}

impl ContentError {
    /// Its class, for a frame that a peer has just sent.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Open(_) | Self::Coding(_) | Self::PastEnd => FailureClass::Refused,
            Self::Storage(error) => FailureClass::of_storage(error),
            Self::WorkerFailed => FailureClass::StoreFailed,
        }
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scratch(..)")
    }
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let (coded, plain) = (Vec::new(), Vec::new());
        Self { sealed: BytesMut::new(), coded, plain, zstd: zstd::bulk::Decompressor::default() }
    }
}

impl FrameTaker {
    /// Whether every extent of the frame lies within the disk.
    pub(crate) fn holds(&self, frame: &CheckedFrame) -> bool {
        frame.extents().last().is_none_or(|last| self.geometry.holds(last.extent()))
    }

    /// Opens and decodes a content frame, and does with it what `treatment` says.
    pub(crate) fn take(
        &self,
        frame: &CheckedFrame,
        treatment: Treatment,
        scratch: &mut Scratch,
    ) -> Result<(), ContentError> {
        if !self.holds(frame) {
            return Err(ContentError::PastEnd);
        }
        let data = open_and_decode(&self.opener, frame, scratch)?;
        match treatment {
            Treatment::Apply => self.apply(frame, data),
            Treatment::Check => Ok(()),
        }
    }

    /// Makes durable what was applied, with the hashes of all leaves it touched.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.leaves.settle(&self.base)?;
        self.base.sync()?;
        self.leaves.sync_if_needed()
    }

    fn apply(&self, frame: &CheckedFrame, data: &[u8]) -> Result<(), ContentError> {
        let mut rest = data;
        for extent in frame.extents() {
            match extent.content {
                Content::Zeroes => {
                    if self.base.zero(extent.extent())? {
                        self.leaves.note(extent.extent(), Written::Zeroes)?;
                    }
                }
                Content::Data => {
                    let len = usize::try_from(extent.data_len()).ok();
                    let content = len.and_then(|len| rest.split_off(..len));
                    let content = content.expect("a checked frame's extents add up to its data");
                    self.base.write(extent.extent(), content)?;
                    self.leaves.note(extent.extent(), Written::Data(content))?;
                }
            }
        }
        Ok(())
    }
}

/// The authentic data of a frame.
pub(crate) fn open_and_decode<'a>(
    opener: &Opener,
    frame: &CheckedFrame,
    scratch: &'a mut Scratch,
) -> Result<&'a [u8], ContentError> {
    opener.open_into(frame, &mut scratch.coded)?;
    decode(frame, scratch)
}

/// The data of a frame whose payload was opened into `scratch.coded`.
///
/// The output is bounded by the length the frame states, and that by [`DATA_LEN_MAX`], whatever
/// the compressed data would expand to.
fn decode<'a>(frame: &CheckedFrame, scratch: &'a mut Scratch) -> Result<&'a [u8], ContentError> {
    let plain_len = frame.header().plain_len;
    match frame.header().codec {
        Codec::Raw => Ok(&scratch.coded),
        Codec::Zstd => {
            scratch.plain.resize(DATA_LEN_MAX as usize, 0);
            let plain = &mut scratch.plain[..plain_len as usize];
            match scratch.zstd.decompress_to_buffer(&scratch.coded, plain) {
                Ok(len) if len == plain_len as usize => Ok(&scratch.plain[..len]),
                Ok(_) | Err(_) => Err(ContentError::Coding(plain_len)),
            }
        }
    }
}
