//! Writes an epoch as it arrives.
//!
//! Small frames are gathered into one write; a large one goes from the buffer it was received in
//! straight to the file. What was written is on its way to the medium while more comes, so that the
//! sync of a commit is short.

use std::{mem, sync::Arc};

use blocks::{ByteLen, Mutant};
use storage::{OpenMode, Storage, StorageError, StorageFile, StorePath};
use wire::{CheckedFrame, EpochEnd, frame::encode_point};

use super::format::{DeltaName, Trailer, Version};
use super::{EXTENTS_PER_EPOCH_MAX, index::Index};
use crate::layout::DiskPaths;

/// Frames from this length on are not gathered.
const WRITTEN_ALONE: usize = 128 * 1024;
const GATHERED_MAX: usize = 512 * 1024;

/// The medium is given so many bytes at a time.
const STARTED_AT_ONCE: u64 = 8 << 20;

/// The file of an epoch that is being received, or made by a merge.
#[derive(Debug)]
pub(crate) struct PartWriter {
    file: Arc<dyn StorageFile>,
    path: StorePath,
    name: DeltaName,
    gathered: Vec<u8>,
    /// Bytes written to the file; what is gathered comes after them.
    written: u64,
    /// Bytes that the medium was asked to write.
    started: u64,
    index: Index,
    end_len: u32,
}

impl PartWriter {
    /// Creates the file under `path`, outside of `deltas/`.
    pub(crate) fn create(
        storage: &dyn Storage,
        path: StorePath,
        name: DeltaName,
    ) -> Result<Self, StorageError> {
        let file = storage.open(&path, OpenMode::Create)?;
        let index = Index::default();
        Ok(Self {
            file,
            path,
            name,
            gathered: Vec::new(),
            written: 0,
            started: 0,
            index,
            end_len: 0,
        })
    }

    /// Whether the index has room for the extents of another frame.
    pub(crate) fn has_room(&self, frame: &CheckedFrame) -> bool {
        (self.index.extents.len() + frame.extents().len()) as u64 <= EXTENTS_PER_EPOCH_MAX
    }

    /// How much was written so far, or was to be.
    pub(crate) fn written(&self) -> ByteLen {
        ByteLen(self.written + self.gathered.len() as u64)
    }

    /// Takes the next frame, content or end.
    pub(crate) fn append(&mut self, frame: &CheckedFrame) -> Result<(), StorageError> {
        let bytes = frame.bytes();
        let len = u32::try_from(bytes.len()).expect("frames are limited to about 1 MiB");
        if frame.header().is_end() {
            self.end_len = len;
        } else {
            self.index.push(len, frame.extents());
        }
        if bytes.len() >= WRITTEN_ALONE {
            self.flush()?;
            return self.write(bytes);
        }
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHERED_MAX { self.flush() } else { Ok(()) }
    }

    /// Adds index, point and trailer, and makes the bytes durable. The file is now a delta but for
    /// its name. Returns its length.
    pub(crate) fn finish(&mut self, end: &EpochEnd) -> Result<ByteLen, StorageError> {
        let index_offset = self.written + self.gathered.len() as u64;
        let mut covered = self.index.encode();
        covered.extend(end.point.iter().flat_map(encode_point));
        let version = Version::Exact {
            extents: self.index.extents.len() as u64,
            end_len: self.end_len,
            has_point: end.point.is_some(),
        };
        let index_crc = crc32c::crc32c(&covered);
        let (name, summary) = (self.name, end.summary);
        let trailer = Trailer { name, index_offset, index_crc, summary, version };
        self.gathered.extend_from_slice(&covered);
        self.gathered.extend_from_slice(&trailer.encode());
        self.flush()?;
        if !Mutant::AckBeforeSync.is_on() {
            self.file.sync_data()?;
        }
        Ok(ByteLen(self.written))
    }

    /// Gives the file, which was finished, its name among the deltas, durably.
    pub(crate) fn publish(
        &self,
        storage: &dyn Storage,
        paths: &DiskPaths,
    ) -> Result<(), StorageError> {
        storage.rename(&self.path, &paths.delta(self.name.link.epoch))?;
        if Mutant::FlipBeforeName.is_on() {
            return Ok(());
        }
        storage.sync_dir(&paths.deltas())
    }

    /// Removes the file of an epoch that comes to nothing. What can't be removed now is removed
    /// when the disk is opened next.
    pub(crate) fn give_up(&self, storage: &dyn Storage) {
        let _ = storage.remove(&self.path);
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let mut gathered = mem::take(&mut self.gathered);
        let written = self.write(&gathered);
        if written.is_ok() {
            gathered.clear();
        }
        self.gathered = gathered;
        written
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_at(self.written, bytes)?;
        self.written += bytes.len() as u64;
        if self.written - self.started >= STARTED_AT_ONCE {
            self.file.start_writing(self.started, self.written - self.started);
            self.started = self.written;
        }
        Ok(())
    }
}
