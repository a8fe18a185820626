//! The seam between durable state and what keeps it.
//!
//! Only operations whose order matters to a crash are here. Two rules bind every implementation
//! and are all a caller may rely on:
//!
//! - Bytes are durable after [`StorageFile::sync_data`] of their file; before, any part of any
//!   write may survive a crash and any part may not.
//! - A name (created, renamed, removed) is durable after [`Storage::sync_dir`] of its directory,
//!   and each name changes as a whole. Syncing a file does not make its name durable.

use std::{fmt, io, ops::Range, sync::Arc};

use blocks::ByteLen;

use crate::{Operation, StorageError, StorePath};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading only; it must exist.
    Read,
    /// Reading and writing; it must exist.
    Write,
    /// Reading and writing; it is created empty, and emptied if it exists.
    Create,
}

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: ByteLen,
    /// What is left for this user.
    pub free: ByteLen,
}

/// A tree of directories and files.
pub trait Storage: fmt::Debug + Send + Sync {
    /// Opens a file. Missing files are reported as [`crate::Failure::Missing`].
    fn open(&self, path: &StorePath, mode: OpenMode) -> Result<Arc<dyn StorageFile>, StorageError>;

    /// Creates a directory; one that exists already is fine.
    fn create_dir(&self, path: &StorePath) -> Result<(), StorageError>;

    /// The names in a directory, in no particular order. Names that are no [`StorePath`] names
    /// are not this program's and are left out.
    fn list(&self, dir: &StorePath) -> Result<Vec<String>, StorageError>;

    /// Gives a file another name, replacing what has that name.
    fn rename(&self, from: &StorePath, to: &StorePath) -> Result<(), StorageError>;

    /// Removes a file.
    fn remove(&self, path: &StorePath) -> Result<(), StorageError>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &StorePath) -> Result<(), StorageError>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &StorePath) -> Result<(), StorageError>;

    /// How much room there is.
    fn space(&self) -> Result<Space, StorageError>;
}

/// An open file. Any number of threads may use it; writes that overlap in time and place leave
/// either.
pub trait StorageFile: fmt::Debug + Send + Sync {
    /// Its length.
    fn len(&self) -> Result<ByteLen, StorageError>;

    /// Whether it holds no byte.
    fn is_empty(&self) -> Result<bool, StorageError> {
        Ok(self.len()? == ByteLen(0))
    }

    /// How much room it takes, which is less than its length where it has holes.
    fn allocated(&self) -> Result<ByteLen, StorageError>;

    /// Reads from `offset` until `buffer` is full or the file ends; returns how much was read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError>;

    /// Writes all of `bytes`. After an error any part of them may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError>;

    /// Asks that a range be written to the medium soon, so that a sync finds less to do. A hint:
    /// nothing is durable by it, and whether it failed the sync will tell.
    fn start_writing(&self, _offset: u64, _len: u64) {}

    /// Makes a range within the file read as zeroes, giving its room back where that can be done.
    fn zero_range(&self, offset: u64, len: u64) -> Result<(), StorageError>;

    /// The first range at or after `offset` that may hold anything but zeroes; nothing if the rest
    /// of the file is a hole. A range that begins before `offset` is cut there. Who can't tell says
    /// that everything may.
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StorageError> {
        let end = self.len()?.0;
        Ok((offset < end).then_some(offset..end))
    }

    /// Cuts the file, or extends it with zeroes that take no room.
    fn set_len(&self, len: ByteLen) -> Result<(), StorageError>;

    /// Makes its bytes and its length durable.
    ///
    /// An error means that nobody knows what is durable. A later success of this call does not
    /// cover what was written before the error.
    fn sync_data(&self) -> Result<(), StorageError>;

    /// Forgets cached content, so that reads see what the medium holds. Unsynced writes of this
    /// program are not lost by it. Best effort.
    fn drop_cache(&self) -> Result<(), StorageError>;

    /// How its path reads in an error.
    fn path(&self) -> &std::path::Path;

    /// Fills `buffer` from `offset`; a file that ends earlier is an error.
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        if self.read_at(offset, buffer)? == buffer.len() {
            return Ok(());
        }
        Err(StorageError {
            operation: Operation::Read,
            path: self.path().to_owned(),
            source: io::ErrorKind::UnexpectedEof.into(),
        })
    }
}
