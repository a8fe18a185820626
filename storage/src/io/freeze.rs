//! Holding a mounted file system still: nothing of it reaches its disk until it is thawed.
//!
//! The kernel keeps no deadline and no owner: a file system stays frozen when the process that
//! froze it dies. Whoever freezes must see to it that somebody thaws.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use nix::unistd::syncfs;

mod calls {
    // `linux/fs.h` declares both with an `int` that neither reads or writes.
    nix::ioctl_readwrite!(freeze, b'X', 119, i32);
    nix::ioctl_readwrite!(thaw, b'X', 120, i32);
}

/// Writes what the file system of this directory has in memory, so that a freeze after that has
/// little left to write.
///
/// # Errors
/// If it can't be written.
pub fn flush_filesystem(directory: &File) -> io::Result<()> {
    Ok(syncfs(directory.as_fd())?)
}

/// Freezes the file system of this directory: its writers wait from now on, and what they have
/// written is on the disk.
///
/// # Errors
/// If it is frozen already (`EBUSY`), can't be (`EOPNOTSUPP`), or that is not permitted.
pub fn freeze_filesystem(directory: &File) -> io::Result<()> {
    let descriptor: RawFd = directory.as_raw_fd();
    // SAFETY: the descriptor is open, and the kernel does not use the argument.
    Ok(unsafe { calls::freeze(descriptor, &mut 0) }.map(drop)?)
}

/// Thaws it; its writers go on.
///
/// # Errors
/// If it is not frozen (`EINVAL`), or that is not permitted.
pub fn thaw_filesystem(directory: &File) -> io::Result<()> {
    let descriptor: RawFd = directory.as_raw_fd();
    // SAFETY: the descriptor is open, and the kernel does not use the argument.
    Ok(unsafe { calls::thaw(descriptor, &mut 0) }.map(drop)?)
}
