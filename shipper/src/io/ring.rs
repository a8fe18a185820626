//! The io_uring instance: its set-up, and reads into registered buffers.
//!
//! Owns the ring, the registration of buffers and files, and the watch on the wake-up pipe. It
//! does not know what a read is for: a read has a number, and completes under it.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use io_uring::{
    IoUring, opcode,
    types::{Fd, Fixed, SubmitArgs, Timespec},
};
use nix::libc::{self, iovec};

use super::{
    pool::{BUFFER_BYTES, Pool, PoolBuffer},
    wake::Sleeper,
};
use crate::{limit::IoPriority, start::StartError};

/// Disks an engine can have at a time.
pub(crate) const DISKS_MAX: u32 = 256;

/// The number of the watch on the wake-up pipe; reads have smaller ones.
const WAKE: u64 = u64::MAX;

/// The ring.
pub(crate) struct Ring {
    uring: IoUring,
    sleeper: Sleeper,
    watching: bool,
}

/// One read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadOp {
    /// The number it completes under.
    pub(crate) number: u64,
    /// The disk's place in the table of files.
    pub(crate) slot: u32,
    /// Where on the disk, in bytes.
    pub(crate) offset: u64,
    /// Where in the buffer.
    pub(crate) at: usize,
    /// How many bytes.
    pub(crate) len: u32,
    pub(crate) priority: Option<IoPriority>,
}

/// A read that has come to its end.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) number: u64,
    /// How many bytes were read, which may be fewer than asked for.
    pub(crate) result: io::Result<usize>,
}

impl Ring {
    /// A ring for up to `depth` reads at a time into the buffers of `pool`. To be called on the
    /// thread that will use it.
    pub(crate) fn new(depth: u32, pool: &Pool, sleeper: Sleeper) -> Result<Self, StartError> {
        // One more for the watch on the pipe.
        let uring = set_up(depth + 1).map_err(StartError::ring)?;
        if !uring.params().is_feature_ext_arg() {
            return Err(StartError::KernelTooOld);
        }
        let buffers: Vec<iovec> = pool
            .addresses()
            .map(|base| iovec { iov_base: base.as_ptr().cast(), iov_len: BUFFER_BYTES })
            .collect();
        // SAFETY: each iovec is a buffer of the pool. The kernel pins its pages, so that they are
        // there for as long as the ring may write to them, even if the pool is unmapped before.
        let registered = unsafe { uring.submitter().register_buffers(&buffers) };
        registered.map_err(StartError::buffers)?;
        let empty = [-1; DISKS_MAX as usize];
        uring.submitter().register_files(&empty).map_err(StartError::ring)?;
        Ok(Self { uring, sleeper, watching: false })
    }

    /// Puts a disk in the table of files, or takes it out. Reads under way are not disturbed.
    pub(crate) fn set_file(&self, slot: u32, file: Option<&File>) -> io::Result<()> {
        let descriptor = file.map_or(-1, AsRawFd::as_raw_fd);
        self.uring.submitter().register_files_update(slot, &[descriptor]).map(drop)
    }

    /// Queues a read. It is submitted by [`wait`](Self::wait).
    ///
    /// # Safety
    /// The buffer must neither be dropped nor its bytes touched until the read has completed.
    ///
    /// # Panics
    /// If more reads are outstanding than the ring was made for, or the read leaves the buffer.
    pub(crate) unsafe fn push(&mut self, read: ReadOp, buffer: &PoolBuffer) {
        assert!(read.at + read.len as usize <= BUFFER_BYTES, "a read within its buffer");
        // SAFETY: `at` is within the buffer, as was just asserted.
        let target = unsafe { buffer.as_ptr().add(read.at) };
        let priority = read.priority.map_or(0, IoPriority::bits);
        let entry =
            opcode::ReadFixed::new(Fixed(read.slot), target.as_ptr(), read.len, buffer.index())
                .offset(read.offset)
                .ioprio(priority)
                .build()
                .user_data(read.number);
        // SAFETY: the caller keeps the buffer alone until completion; it is registered under its
        // index.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        pushed.expect("no more reads than the ring has entries");
    }

    /// Submits what is queued, then sleeps until so many reads have completed, or the time is up.
    /// Returns at once if somebody has woken the reader since [`begin_round`](Self::begin_round).
    /// Being woken later counts as one read.
    pub(crate) fn wait(&mut self, reads: usize, timeout: Option<Duration>) -> io::Result<()> {
        self.watch();
        let may_sleep = self.sleeper.may_sleep();
        let time = Timespec::from(timeout.unwrap_or(Duration::ZERO));
        let args = match timeout {
            Some(_) => SubmitArgs::new().timespec(&time),
            None => SubmitArgs::new(),
        };
        let wanted = if may_sleep { reads } else { 0 };
        let waited = self.uring.submitter().submit_with_args(wanted, &args);
        self.sleeper.awake();
        match waited.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => Ok(()),
            // The time is up, or a signal came; or completions have to be taken, or memory to be
            // freed, before more can be submitted.
            Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => Ok(()),
            Err((_, error)) => Err(error),
        }
    }

    /// Begins a round: wake-ups from here on keep the next [`wait`](Self::wait) from sleeping.
    pub(crate) fn begin_round(&self) {
        self.sleeper.begin_round();
    }

    /// Wants to be woken for batches, permits and buffers that are given from here on, in this round.
    pub(crate) fn want(&self) {
        self.sleeper.want();
    }

    /// The reads that have completed since the last call, appended to `list`.
    pub(crate) fn completions(&mut self, list: &mut Vec<Completion>) {
        let mut woken = false;
        for entry in self.uring.completion() {
            if entry.user_data() == WAKE {
                woken = true;
                continue;
            }
            let result = usize::try_from(entry.result())
                .map_err(|_| io::Error::from_raw_os_error(-entry.result()));
            list.push(Completion { number: entry.user_data(), result });
        }
        if woken {
            self.watching = false;
            // It never blocks; a failure is the pipe itself broken, which nothing mends.
            let _ = self.sleeper.drain();
        }
    }

    /// Sees to it that the ring watches the wake-up pipe.
    fn watch(&mut self) {
        if self.watching {
            return;
        }
        let pipe = Fd(self.sleeper.as_fd().as_raw_fd());
        let entry = opcode::PollAdd::new(pipe, poll_in()).build().user_data(WAKE);
        // SAFETY: the pipe is open for as long as the ring: both are of `self`.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        self.watching = pushed.is_ok();
    }
}

fn poll_in() -> u32 {
    u32::from(libc::POLLIN.unsigned_abs())
}

/// The cheapest set-up that the kernel knows: completions are handled only when we ask for them
/// (6.1), or at least don't interrupt us (5.19).
fn set_up(entries: u32) -> io::Result<IoUring> {
    let deferred = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .dontfork()
        .build(entries);
    match deferred {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().dontfork().build(entries)
        }
        other => other,
    }
}
