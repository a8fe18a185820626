//! Reads a delta file that may be damaged.

use std::sync::Arc;

use blocks::ByteLen;
use storage::{OpenMode, Storage, StorageError, StorageFile, StorePath};
use wire::{
    CheckedFrame, EpochChain, EpochEnd, EpochSummary, FrameError, OpenError, Opener,
    frame::{ChainError, FRAME_LEN_MAX},
};

use super::format::{DeltaName, IndexEntry, TRAILER_LEN, Trailer, decode_index};
use super::link_of;
use crate::error::FailureClass;

/// A delta file whose trailer and index hold. Its frames were not looked at.
#[derive(Debug)]
pub(crate) struct DeltaFile {
    file: Arc<dyn StorageFile>,
    trailer: Trailer,
    index: Vec<IndexEntry>,
}

/// A delta that can't be read, or does not hold what it should.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The trailer is damaged, or the file was cut.
    #[error("the trailer of the delta is damaged, or the file is cut short")]
    Trailer,
    /// The index is damaged.
    #[error("the index of the delta is damaged")]
    Index,
    /// It holds another epoch than its name says, or is of another disk.
    #[error("the delta is one of another disk, generation or epoch")]
    Foreign,
    /// A frame is damaged.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The frames are not those of one whole epoch.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The end frame is not authentic.
    #[error(transparent)]
    End(#[from] OpenError),
}

impl DeltaError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Storage(error) => FailureClass::of_storage(error),
            _ => FailureClass::Corrupt,
        }
    }
}

impl DeltaFile {
    /// Opens the file and checks its trailer and index.
    pub(crate) fn open(storage: &dyn Storage, path: &StorePath) -> Result<Self, DeltaError> {
        let file = storage.open(path, OpenMode::Read)?;
        let len = file.len()?.0;
        let trailer_offset = len.checked_sub(TRAILER_LEN as u64).ok_or(DeltaError::Trailer)?;
        let mut trailer = [0; TRAILER_LEN];
        file.read_exact_at(trailer_offset, &mut trailer)?;
        let trailer = Trailer::decode(&trailer, len).ok_or(DeltaError::Trailer)?;

        let index_len = trailer.index_len().and_then(|len| usize::try_from(len).ok());
        let mut index = vec![0; index_len.ok_or(DeltaError::Index)?];
        file.read_exact_at(trailer.index_offset, &mut index)?;
        if crc32c::crc32c(&index) != trailer.index_crc {
            return Err(DeltaError::Index);
        }
        let index = decode_index(&index, trailer.index_offset).ok_or(DeltaError::Index)?;
        Ok(Self { file, trailer, index })
    }

    /// What it holds.
    pub(crate) fn name(&self) -> &DeltaName {
        &self.trailer.name
    }

    /// Its length.
    pub(crate) fn len(&self) -> ByteLen {
        let index_len = self.trailer.index_len().expect("checked when it was opened");
        ByteLen(self.trailer.index_offset + index_len + TRAILER_LEN as u64)
    }

    /// Reads every content frame in order and gives it to `take`; then checks that they are one
    /// whole epoch, as far as that can be told without the key. Returns the end frame.
    pub(crate) fn read_frames(
        &self,
        mut take: impl FnMut(CheckedFrame),
    ) -> Result<CheckedFrame, DeltaError> {
        let mut chain = None;
        for entry in &self.index {
            let frame = self.read_frame(entry.offset, entry.len as usize, &mut chain)?;
            if frame.header().is_end() {
                return Err(DeltaError::Index);
            }
            take(frame);
        }
        let end_offset = self.index.last().map_or(0, |last| last.offset + u64::from(last.len));
        let end_len = usize::try_from(self.trailer.index_offset - end_offset).ok();
        let end_len = end_len.filter(|len| *len <= FRAME_LEN_MAX).ok_or(DeltaError::Index)?;
        let end = self.read_frame(end_offset, end_len, &mut chain)?;
        if let Some(chain) = chain {
            chain.verify(&self.trailer.summary)?;
        }
        Ok(end)
    }

    /// As [`Self::read_frames`], and the end frame must be authentic and agree.
    pub(crate) fn read_authentic(
        &self,
        opener: &Opener,
        take: impl FnMut(CheckedFrame),
    ) -> Result<EpochSummary, DeltaError> {
        let end = self.read_frames(take)?;
        let EpochEnd { summary, .. } = opener.open_end(&end)?;
        if summary == self.trailer.summary { Ok(summary) } else { Err(DeltaError::Trailer) }
    }

    fn read_frame(
        &self,
        offset: u64,
        len: usize,
        chain: &mut Option<EpochChain>,
    ) -> Result<CheckedFrame, DeltaError> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(offset, &mut bytes)?;
        let frame = CheckedFrame::parse(bytes.into())?;
        let header = frame.header();
        let DeltaName { disk, generation, link } = self.trailer.name;
        if (header.disk, header.generation, link_of(header)) != (disk, generation, link) {
            return Err(DeltaError::Foreign);
        }
        match chain {
            Some(chain) => chain.push(&frame)?,
            None => *chain = Some(EpochChain::begin(&frame)),
        }
        Ok(frame)
    }
}
