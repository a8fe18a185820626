//! Why an engine does not start.

use std::io;

use nix::libc;

/// Why an engine does not start. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel has no io_uring, or an old one.
    #[error("this kernel's io_uring is missing or too old: Linux 5.15 or later is needed")]
    KernelTooOld,
    /// The kernel has io_uring, but not for this process.
    #[error(
        "io_uring is forbidden to this process: check `sysctl kernel.io_uring_disabled` (0 allows \
         it), and the seccomp filter of the container or unit (SystemCallFilter must allow \
         io_uring_setup, io_uring_enter and io_uring_register)"
    )]
    Forbidden(#[source] io::Error),
    /// The buffers could not be pinned.
    #[error(
        "the buffers could not be pinned in memory: raise the limit on locked memory \
         (LimitMEMLOCK, `ulimit -l`) or make the pool smaller"
    )]
    LockedMemory(#[source] io::Error),
    /// Setting io_uring up failed in another way.
    #[error("io_uring could not be set up")]
    Ring(#[source] io::Error),
    /// A thread, a pipe or the memory of the pool could not be had.
    #[error("no resources for the pipeline")]
    Resources(#[source] io::Error),
    /// The pool is too small for a single buffer and frame, or larger than can be registered.
    #[error("a pool of {0}: from 2 MiB to 2 GiB is possible")]
    PoolSize(blocks::ByteLen),
}

impl StartError {
    pub(crate) fn ring(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => Self::KernelTooOld,
            Some(libc::EPERM | libc::EACCES) => Self::Forbidden(error),
            Some(libc::ENOMEM) => Self::LockedMemory(error),
            _ => Self::Ring(error),
        }
    }

    pub(crate) fn buffers(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOMEM | libc::EAGAIN | libc::EPERM) => Self::LockedMemory(error),
            _ => Self::Ring(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_told_apart() {
        let of = |errno| StartError::ring(io::Error::from_raw_os_error(errno));
        assert!(matches!(of(libc::ENOSYS), StartError::KernelTooOld));
        assert!(matches!(of(libc::EPERM), StartError::Forbidden(_)));
        assert!(matches!(of(libc::ENOMEM), StartError::LockedMemory(_)));
        assert!(matches!(of(libc::EIO), StartError::Ring(_)));
    }
}
