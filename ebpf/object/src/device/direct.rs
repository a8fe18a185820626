//! A disk read and written past the page cache.
//!
//! A disk and its partitions each have a page cache of their own, and file systems use the
//! partition's: only what passes all of them by is what is on the disk.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use memmap2::MmapMut;
use nix::fcntl::OFlag;

/// The most that is read or written at once, in bytes.
pub(super) const PIECE: usize = 1 << 20;

/// A disk, or a partition, opened for direct I/O. Offsets and lengths are whole logical blocks.
#[derive(Debug)]
pub struct Direct {
    file: File,
    /// Whole pages, as drivers want memory to be.
    memory: MmapMut,
}

impl Direct {
    /// Opens it to be read.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn to_read(path: &Path) -> io::Result<Self> {
        Self::open(File::options().read(true), path)
    }

    /// Opens it to be read and written.
    ///
    /// # Errors
    /// If the system refuses: some kernels don't let a disk be written that is mounted.
    pub fn to_write(path: &Path) -> io::Result<Self> {
        Self::open(File::options().read(true).write(true), path)
    }

    fn open(options: &mut std::fs::OpenOptions, path: &Path) -> io::Result<Self> {
        let file = options.custom_flags(OFlag::O_DIRECT.bits()).open(path)?;
        Ok(Self { file, memory: MmapMut::map_anon(PIECE)? })
    }

    /// Reads `len` bytes, at most 1 MiB.
    ///
    /// # Errors
    /// If the system fails, or there is less.
    pub fn read(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let memory = self.memory.get_mut(..len).ok_or(io::ErrorKind::InvalidInput)?;
        self.file.read_exact_at(memory, at)?;
        Ok(memory)
    }

    /// Writes bytes of any number. They are durable after [`Self::sync`].
    ///
    /// # Errors
    /// If the system fails.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        for (index, piece) in (0..).zip(bytes.chunks(PIECE)) {
            let memory = &mut self.memory[..piece.len()];
            memory.copy_from_slice(piece);
            self.file.write_all_at(memory, at + index * PIECE as u64)?;
        }
        Ok(())
    }

    /// Makes everything that was written to the disk durable, by whomever.
    ///
    /// # Errors
    /// If the system fails.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}
