//! What can go wrong with an operation on storage, and how it is classed.

use std::{fmt, io, path::PathBuf};

/// An operation of the seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opening or creating a file.
    Open,
    /// Reading a file or its attributes.
    Read,
    /// Writing, zeroing or resizing a file.
    Write,
    /// Making a file or a directory durable.
    Sync,
    /// Renaming a file.
    Rename,
    /// Removing a file or a directory.
    Remove,
    /// Listing a directory, or asking for its free space.
    List,
    /// Creating a directory.
    CreateDir,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "opening",
            Self::Read => "reading",
            Self::Write => "writing",
            Self::Sync => "syncing",
            Self::Rename => "renaming",
            Self::Remove => "removing",
            Self::List => "listing",
            Self::CreateDir => "creating directory",
        })
    }
}

/// An operation on storage that failed.
///
/// After a failed [`Operation::Sync`] nobody knows what is durable: the kernel has marked the
/// pages clean. Repeating the sync proves nothing; write again, or give up and re-open.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {source}", path.display())]
pub struct StorageError {
    /// What was attempted.
    pub operation: Operation,
    /// On what.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

/// The classes of [`StorageError`] that callers treat apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such file or directory.
    Missing,
    /// No space, no quota, or a file size limit: an operator can mend it.
    Full,
    /// Anything else.
    Broken,
}

impl StorageError {
    /// Its class.
    pub fn failure(&self) -> Failure {
        match self.source.kind() {
            io::ErrorKind::NotFound => Failure::Missing,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Failure::Full,
            _ => Failure::Broken,
        }
    }

    /// Whether it says that there is no such file or directory.
    pub fn is_missing(&self) -> bool {
        self.failure() == Failure::Missing
    }
}
