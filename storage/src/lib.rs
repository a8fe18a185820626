//! Durable bytes, written once for every room that keeps state on a disk.
//!
//! [`Storage`] is the seam: a directory tree of files, with exactly the operations whose order
//! decides what a crash leaves. [`FileStorage`] is the real one; [`BlockDevice`] gives a whole
//! block device the same face as a file; [`FaultyStorage`] keeps what a program sees apart from
//! what a crash would leave, and fails on command, for tests.
//!
//! On the seam stand the two ways a durable change is made: [`publish`] and [`write_whole`] (write
//! elsewhere, sync, rename, sync the directory) and [`SlotFile`] (two checksummed slots, of which
//! the newer valid one counts).
//!
//! Nothing here knows what the bytes mean.

mod durable;
mod error;
pub mod faulty;
mod io;
mod path;
mod seam;
mod slots;

pub use durable::{create_dirs, publish, read_whole, write_whole};
pub use error::{Failure, Operation, StorageError};
pub use faulty::FaultyStorage;
pub use io::{
    BlockDevice, BlockDeviceError, FileExtent, FileStorage, LockError, extents_of,
    flush_filesystem, freeze_filesystem, thaw_filesystem,
};
pub use path::{StorePath, StorePathError};
pub use seam::{OpenMode, Space, Storage, StorageFile};
pub use slots::{SLOT_PAYLOAD_MAX, SlotError, SlotFile, SlotTag};
