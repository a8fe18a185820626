//! The priority of the thread that reads a cut.
//!
//! On a loaded machine the scheduler makes any other thread wait for milliseconds, and a window of
//! a tenth of one becomes a hundred times as long.

use std::{io, marker::PhantomData};

use nix::libc;

/// While it lives, its thread goes before all that is not real-time.
///
/// The thread must sleep in its waits, and end its work in a bounded time.
#[derive(Debug)]
pub struct RealTime {
    /// The nice value to return to, if real-time priority was not to be had.
    nice: Option<i32>,
    /// It is of one thread.
    _thread: PhantomData<*const ()>,
}

impl RealTime {
    /// Raises this thread: to `SCHED_FIFO`, or failing that to the best nice value.
    ///
    /// # Errors
    /// If neither is permitted.
    pub fn enter() -> io::Result<Self> {
        match schedule(libc::SCHED_FIFO, 1) {
            Ok(()) => Ok(Self { nice: None, _thread: PhantomData }),
            Err(_) => {
                let before = nice();
                set_nice(-20)?;
                Ok(Self { nice: Some(before), _thread: PhantomData })
            }
        }
    }

    /// Whether it is real-time priority, and not just a nice value.
    pub fn is_real(&self) -> bool {
        self.nice.is_none()
    }
}

impl Drop for RealTime {
    fn drop(&mut self) {
        // Lowering one's own priority is always permitted.
        let _ = match self.nice {
            None => schedule(libc::SCHED_OTHER, 0),
            Some(nice) => set_nice(nice),
        };
    }
}

fn schedule(policy: i32, priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the call only reads the parameters; 0 is this thread.
    checked(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) })
}

fn nice() -> i32 {
    // SAFETY: it takes numbers only; 0 is this thread.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: it takes numbers only; 0 is this thread.
    checked(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })
}

fn checked(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
