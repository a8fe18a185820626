//! A file or block device of the operating system behind the seam.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    ops::Range,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use blocks::ByteLen;
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise},
    libc,
    unistd::{Whence, lseek},
};

use crate::{Operation, StorageError, StorageFile};

static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// An open file and the path to name it by.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl OpenFile {
    fn failed(&self, operation: Operation) -> impl Fn(io::Error) -> StorageError + '_ {
        move |source| StorageError { operation, path: self.path.clone(), source }
    }

    /// Asks the file system or device to make a range zero without writing it.
    ///
    /// Punching comes first since it gives room back. A block device that can't punch may still
    /// have a command for zeroes, which is the second way.
    fn deallocate(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let offset = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let len = i64::try_from(len).map_err(|_| Errno::EFBIG)?;
        let keep_size = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep_size;
        fallocate(&self.file, punch, offset, len).or_else(|_| {
            let zero = FallocateFlags::FALLOC_FL_ZERO_RANGE | keep_size;
            fallocate(&self.file, zero, offset, len)
        })
    }
}

impl StorageFile for OpenFile {
    fn len(&self) -> Result<ByteLen, StorageError> {
        // The metadata of a block device gives no length; the end of it does.
        let end = (&self.file).seek(SeekFrom::End(0)).map_err(self.failed(Operation::Read))?;
        Ok(ByteLen(end))
    }

    fn allocated(&self) -> Result<ByteLen, StorageError> {
        let metadata = self.file.metadata().map_err(self.failed(Operation::Read))?;
        Ok(ByteLen(metadata.blocks() * 512))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(Operation::Read)(error)),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_all_at(bytes, offset).map_err(self.failed(Operation::Write))
    }

    fn start_writing(&self, offset: u64, len: u64) {
        let range = (i64::try_from(offset), i64::try_from(len));
        if let (Ok(offset), Ok(len)) = range {
            let flags = libc::SYNC_FILE_RANGE_WRITE;
            // SAFETY: the call takes numbers only, and the descriptor is open while `self` is. An
            // error is kept by the kernel for the next sync, since nothing is waited for here.
            unsafe { libc::sync_file_range(self.file.as_raw_fd(), offset, len, flags) };
        }
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        if len == 0 || self.deallocate(offset, len).is_ok() {
            return Ok(());
        }
        // Neither way exists here, or the range is not aligned to what the device can do; an
        // error of the medium shows again in the write.
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let part =
                usize::try_from(end - at).map_or(ZEROES.len(), |left| left.min(ZEROES.len()));
            self.write_at(at, &ZEROES[..part])?;
            at += part as u64;
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StorageError> {
        let seek = |from, whence| {
            lseek(&self.file, from, whence)
                .and_then(|at| u64::try_from(at).map_err(|_| Errno::EOVERFLOW))
        };
        let from = i64::try_from(offset).unwrap_or(i64::MAX);
        match seek(from, Whence::SeekData) {
            Ok(start) => {
                let from = i64::try_from(start).unwrap_or(i64::MAX);
                let end = seek(from, Whence::SeekHole)
                    .map_err(|errno| self.failed(Operation::Read)(errno.into()))?;
                Ok(Some(start..end))
            }
            // Nothing but a hole from there on, or the file has ended.
            Err(Errno::ENXIO) => Ok(None),
            // A block device, or a file system that does not know.
            Err(_) => {
                let end = self.len()?.0;
                Ok((offset < end).then_some(offset..end))
            }
        }
    }

    fn set_len(&self, len: ByteLen) -> Result<(), StorageError> {
        self.file.set_len(len.0).map_err(self.failed(Operation::Write))
    }

    fn sync_data(&self) -> Result<(), StorageError> {
        self.file.sync_data().map_err(self.failed(Operation::Sync))
    }

    fn drop_cache(&self) -> Result<(), StorageError> {
        let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        posix_fadvise(&self.file, 0, 0, advice)
            .map_err(|errno| self.failed(Operation::Read)(errno.into()))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
