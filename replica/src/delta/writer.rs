//! Writes an epoch as it arrives.
//!
//! Small frames are gathered into one write; a large one goes from the buffer it was received in
//! straight to the file.

use std::{mem, sync::Arc};

use blocks::Mutant;
use storage::{OpenMode, Storage, StorageError, StorageFile};
use wire::{CheckedFrame, EpochSummary};

use super::format::{DeltaName, IndexEntry, Trailer};
use crate::layout::DiskPaths;

/// Frames from this length on are not gathered.
const WRITTEN_ALONE: usize = 128 * 1024;
const GATHERED_MAX: usize = 512 * 1024;

/// The file of an epoch that is being received.
#[derive(Debug)]
pub(crate) struct PartWriter {
    file: Arc<dyn StorageFile>,
    name: DeltaName,
    gathered: Vec<u8>,
    /// Bytes written to the file; what is gathered comes after them.
    written: u64,
    index: Vec<IndexEntry>,
}

impl PartWriter {
    pub(crate) fn create(
        storage: &dyn Storage,
        paths: &DiskPaths,
        name: DeltaName,
    ) -> Result<Self, StorageError> {
        let file = storage.open(&paths.part(name.link.epoch), OpenMode::Create)?;
        Ok(Self { file, name, gathered: Vec::new(), written: 0, index: Vec::new() })
    }

    /// Takes the next frame, content or end.
    pub(crate) fn append(&mut self, frame: &CheckedFrame) -> Result<(), StorageError> {
        let bytes = frame.bytes();
        if let [first, .., last] | [first @ last] = frame.extents() {
            self.index.push(IndexEntry {
                offset: self.written + self.gathered.len() as u64,
                len: u32::try_from(bytes.len()).expect("frames are limited to about 1 MiB"),
                first: first.start.0,
                end: last.extent().end().0,
            });
        }
        if bytes.len() >= WRITTEN_ALONE {
            self.flush()?;
            return self.write(bytes);
        }
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHERED_MAX { self.flush() } else { Ok(()) }
    }

    /// Adds index and trailer, and makes the bytes durable. The file is now a delta but for its
    /// name.
    pub(crate) fn finish(&mut self, summary: EpochSummary) -> Result<(), StorageError> {
        let index_offset = self.written + self.gathered.len() as u64;
        let index: Vec<u8> = self.index.iter().flat_map(IndexEntry::encode).collect();
        let index_crc = crc32c::crc32c(&index);
        let trailer = Trailer { name: self.name, index_offset, index_crc, summary };
        self.gathered.extend_from_slice(&index);
        self.gathered.extend_from_slice(&trailer.encode());
        self.flush()?;
        if Mutant::AckBeforeSync.is_on() {
            return Ok(());
        }
        self.file.sync_data()
    }

    /// Gives the file, which was finished, its name among the deltas, durably.
    pub(crate) fn publish(
        &self,
        storage: &dyn Storage,
        paths: &DiskPaths,
    ) -> Result<(), StorageError> {
        let epoch = self.name.link.epoch;
        storage.rename(&paths.part(epoch), &paths.delta(epoch))?;
        if Mutant::FlipBeforeName.is_on() {
            return Ok(());
        }
        storage.sync_dir(&paths.deltas())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let mut gathered = mem::take(&mut self.gathered);
        self.write(&gathered)?;
        gathered.clear();
        self.gathered = gathered;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_at(self.written, bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}
