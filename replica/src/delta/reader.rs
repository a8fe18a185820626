//! Reads a delta file that may be damaged.

use std::{mem, sync::Arc};

use blocks::{ByteLen, PointRecord};
use bytes::BytesMut;
use storage::{OpenMode, Storage, StorageError, StorageFile, StorePath};
use wire::{
    CheckedFrame, EpochChain, EpochEnd, FrameError, FrameExtent, OpenError, Opener, SessionSalt,
    frame::{ChainError, FRAME_LEN_MAX, decode_point},
};

use super::format::{DeltaName, TRAILER_LEN, Trailer, Version};
use super::index::{FrameAt, Index};
use super::link_of;
use crate::error::FailureClass;

/// A delta file whose trailer and index hold. Its frames were not looked at.
#[derive(Debug)]
pub(crate) struct DeltaFile {
    file: Arc<dyn StorageFile>,
    trailer: Trailer,
    index: Index,
    point: Option<PointRecord>,
}

/// A frame that an extent is in: its place among the content frames of its delta.
pub(crate) type FrameNumber = u32;

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

        // Bounded by the length of the file: index, point and trailer end with it.
        let covered_len = usize::try_from(trailer_offset - trailer.index_offset).ok();
        let mut covered = vec![0; covered_len.ok_or(DeltaError::Index)?];
        file.read_exact_at(trailer.index_offset, &mut covered)?;
        if crc32c::crc32c(&covered) != trailer.index_crc {
            return Err(DeltaError::Index);
        }
        let point_len = usize::try_from(trailer.point_len()).expect("64 or none");
        let (index, point) = covered.split_at(covered.len() - point_len);
        let index = match trailer.version {
            Version::Bounds => Index::decode_bounds(index, trailer.index_offset),
            Version::Exact { end_len, .. } => trailer
                .index_offset
                .checked_sub(end_len.into())
                .and_then(|end| Index::decode_exact(index, &trailer.summary, end)),
        };
        let point = match point.first_chunk() {
            Some(record) => Some(decode_point(record).ok_or(DeltaError::Trailer)?),
            None => None,
        };
        Ok(Self { file, trailer, index: index.ok_or(DeltaError::Index)?, point })
    }

    /// What it holds.
    pub(crate) fn name(&self) -> &DeltaName {
        &self.trailer.name
    }

    /// The point that the disk holds once it is applied, if it makes one.
    pub(crate) fn point(&self) -> Option<&PointRecord> {
        self.point.as_ref()
    }

    /// Whether nothing is outstanding once it is applied.
    pub(crate) fn completes(&self) -> bool {
        self.trailer.summary.completes
    }

    /// Its length.
    pub(crate) fn len(&self) -> ByteLen {
        let index_len = self.trailer.index_len().expect("checked when it was opened");
        let tail = index_len + self.trailer.point_len() + TRAILER_LEN as u64;
        ByteLen(self.trailer.index_offset + tail)
    }

    /// Its content frames, in order of the file.
    pub(crate) fn frames(&self) -> &[FrameAt] {
        &self.index.frames
    }

    /// The extents of a content frame, if the index lists them.
    pub(crate) fn extents_of(&self, frame: FrameNumber) -> Option<&[FrameExtent]> {
        let frame = usize::try_from(frame).ok()?;
        let before = self.index.frames.get(..frame)?.iter();
        let begin: usize = before.map(|at| usize::from(at.extents)).sum();
        let count = usize::from(self.index.frames.get(frame)?.extents);
        self.index.extents.get(begin..begin + count).filter(|extents| !extents.is_empty())
    }

    /// Every extent, with the frame it is in, for once: they are not kept. Reads the frames of a
    /// delta of version 1.
    pub(crate) fn take_extents(&mut self) -> Result<Vec<(FrameExtent, FrameNumber)>, DeltaError> {
        let extents = mem::take(&mut self.index.extents);
        let mut all = Vec::with_capacity(extents.len());
        let mut listed = extents.as_slice();
        for (number, at) in (0..).zip(&self.index.frames) {
            match listed.split_off(..usize::from(at.extents)) {
                Some(extents) if at.extents > 0 => {
                    all.extend(extents.iter().map(|extent| (*extent, number)));
                }
                _ => {
                    let frame = self.read_frame(at.offset, at.len as usize)?;
                    all.extend(frame.extents().iter().map(|extent| (*extent, number)));
                }
            }
        }
        Ok(all)
    }

    /// Reads every content frame in order and gives it to `take`; then checks that they are one
    /// whole epoch, as far as that can be told without the key. Returns the end frame.
    pub(crate) fn read_frames(
        &self,
        mut take: impl FnMut(CheckedFrame),
    ) -> Result<CheckedFrame, DeltaError> {
        let mut chain = None;
        for at in &self.index.frames {
            let frame = self.read_content(at)?;
            follow(&mut chain, &frame)?;
            take(frame);
        }
        let end = self.read_end()?;
        follow(&mut chain, &end)?;
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
    ) -> Result<(), DeltaError> {
        let end = self.read_frames(take)?;
        self.check_end(opener, &end)
    }

    /// Checks the end frame alone; returns the salt that all frames of the epoch must have.
    pub(crate) fn authentic_salt(&self, opener: &Opener) -> Result<SessionSalt, DeltaError> {
        let end = self.read_end()?;
        self.check_end(opener, &end)?;
        Ok(end.header().salt)
    }

    /// A content frame, of this epoch by what its header says.
    pub(crate) fn read_content(&self, at: &FrameAt) -> Result<CheckedFrame, DeltaError> {
        self.read_content_into(at, BytesMut::new())
    }

    /// As [`Self::read_content`], into memory that the frame has from now on.
    pub(crate) fn read_content_into(
        &self,
        at: &FrameAt,
        memory: BytesMut,
    ) -> Result<CheckedFrame, DeltaError> {
        let frame = self.read_frame_into(at.offset, at.len as usize, memory)?;
        if frame.header().is_end() { Err(DeltaError::Index) } else { Ok(frame) }
    }

    fn read_end(&self) -> Result<CheckedFrame, DeltaError> {
        let offset = self.index.end();
        let len = usize::try_from(self.trailer.index_offset - offset).ok();
        let len = len.filter(|len| *len <= FRAME_LEN_MAX).ok_or(DeltaError::Index)?;
        self.read_frame(offset, len)
    }

    fn check_end(&self, opener: &Opener, end: &CheckedFrame) -> Result<(), DeltaError> {
        let stated = EpochEnd { summary: self.trailer.summary, point: self.point };
        if opener.open_end(end)? == stated { Ok(()) } else { Err(DeltaError::Trailer) }
    }

    fn read_frame(&self, offset: u64, len: usize) -> Result<CheckedFrame, DeltaError> {
        self.read_frame_into(offset, len, BytesMut::new())
    }

    fn read_frame_into(
        &self,
        offset: u64,
        len: usize,
        mut bytes: BytesMut,
    ) -> Result<CheckedFrame, DeltaError> {
        bytes.resize(len, 0);
        self.file.read_exact_at(offset, &mut bytes)?;
        let frame = CheckedFrame::parse(bytes.freeze())?;
        let header = frame.header();
        let DeltaName { disk, generation, link } = self.trailer.name;
        if (header.disk, header.generation, link_of(header)) != (disk, generation, link) {
            return Err(DeltaError::Foreign);
        }
        Ok(frame)
    }
}

fn follow(chain: &mut Option<EpochChain>, frame: &CheckedFrame) -> Result<(), ChainError> {
    match chain {
        Some(chain) => chain.push(frame)?,
        None => *chain = Some(EpochChain::begin(frame)),
    }
    Ok(())
}
