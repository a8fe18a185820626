//! The real implementations: the only place of this room that touches the operating system.

mod block_device;
mod directory;
mod extents;
mod file;
mod freeze;
mod patience;

pub use block_device::{BlockDevice, BlockDeviceError};
pub use directory::{FileStorage, LockError};
pub use extents::{FileExtent, extents_of};
pub use freeze::{flush_filesystem, freeze_filesystem, thaw_filesystem};
