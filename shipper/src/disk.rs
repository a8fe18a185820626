//! Disks that an engine reads from.

use std::{io, path::PathBuf};

use blocks::{DiskId, Geometry};

/// A disk to read from.
#[derive(Clone, Debug)]
pub struct DiskSource {
    /// Its identity.
    pub id: DiskId,
    /// Where to open it: a block device or a regular file, on a file system with direct I/O.
    ///
    /// Direct reads of a block device first write back what its own page cache holds dirty in that
    /// range. Reading through a node that nobody writes to through the cache (the whole disk where
    /// file systems are on partitions) keeps the reader from causing writes.
    pub path: PathBuf,
    /// Its shape.
    pub geometry: Geometry,
}

/// A disk of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskHandle {
    pub(crate) id: DiskId,
    pub(crate) geometry: Geometry,
    /// Its place in the table of files.
    pub(crate) slot: u32,
    /// Tells it from others that had the place before.
    pub(crate) serial: u64,
}

impl DiskHandle {
    /// The disk's identity.
    pub fn id(&self) -> DiskId {
        self.id
    }

    /// The disk's shape.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }
}

/// Why a disk can't be added.
#[derive(Debug, thiserror::Error)]
pub enum AddDiskError {
    /// It could not be opened.
    #[error("{path} can't be opened for direct reading", path = .path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It could not be registered with the ring.
    #[error("the disk could not be registered with io_uring")]
    Register(#[source] io::Error),
    /// There are too many.
    #[error("an engine reads from at most {0} disks")]
    TooMany(u32),
    /// The engine's reader has died.
    #[error("the pipeline was stopped")]
    Stopped,
}
