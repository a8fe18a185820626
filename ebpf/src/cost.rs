//! What the programs cost, by the kernel's own measuring.
//!
//! While [`Measuring`] exists the kernel takes the time around each run of each program; see
//! [`crate::ProgramStatus`]. That costs tens of nanoseconds itself, which [`EmptyProgram`], run on
//! the same events, shows: the net cost of a program is its time a run less that of the empty one.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use libbpf_rs::{ObjectBuilder, libbpf_sys};

use crate::{device::DiskClass, sys};

/// The measuring of run times, machine-wide; ends when dropped.
#[derive(Debug)]
pub struct Measuring {
    _enabled: OwnedFd,
}

impl Measuring {
    /// Begins to measure.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn start() -> io::Result<Self> {
        sys::enable_statistics().map(|enabled| Self { _enabled: enabled })
    }
}

/// The empty program could not be used.
#[derive(Debug, thiserror::Error)]
pub enum EmptyProgramError {
    /// Not loaded.
    #[error("loading the empty program")]
    Load(#[from] libbpf_rs::Error),
    /// Not attached, or not readable.
    #[error("attaching or reading the empty program")]
    System(#[from] io::Error),
}

/// A program that does nothing, attached where writes to disks of a class complete; detached when
/// dropped.
#[derive(Debug)]
pub struct EmptyProgram {
    program: OwnedFd,
    _link: OwnedFd,
}

/// Time spent in a program, and how often it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunTime {
    /// In total.
    pub time: Duration,
    /// How often.
    pub runs: u64,
}

impl RunTime {
    pub(crate) fn of(info: &libbpf_sys::bpf_prog_info) -> Self {
        Self { time: Duration::from_nanos(info.run_time_ns), runs: info.run_cnt }
    }

    /// Nanoseconds a run; none if it never ran.
    pub fn nanoseconds_per_run(&self) -> Option<f64> {
        (self.runs > 0).then(|| self.time.as_nanos() as f64 / self.runs as f64)
    }
}

impl EmptyProgram {
    /// Loads and attaches it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attach(class: DiskClass) -> Result<Self, EmptyProgramError> {
        let object = ObjectBuilder::default().open_memory(crate::EMPTY_OBJECT)?.load()?;
        let name = match class {
            DiskClass::RequestBased | DiskClass::Multipath => "empty_rq",
            DiskClass::BioBased => "empty_bio",
        };
        let loaded = object.progs().find(|program| program.name() == name);
        let loaded = loaded.expect("the object is compiled with this crate and has it");
        let program = sys::duplicate(&loaded)?;
        let link = sys::attach(program.as_fd())?;
        Ok(Self { program, _link: link })
    }

    /// What it cost so far, while [`Measuring`] existed.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn run_time(&self) -> io::Result<RunTime> {
        Ok(RunTime::of(&sys::program_info(self.program.as_fd())?))
    }
}
