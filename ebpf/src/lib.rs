//! The kernel side: BPF programs on block I/O, their loader, and access to what they record.
//!
//! The programs (`bpf/`) mark every completed write of a tracked disk in a bitmap before the
//! application is told. [`Tracking`] loads them, pins them so that they outlive the process, and
//! adds and removes disks; [`TrackedDisk`] reads one disk's record: [`TrackedDisk::harvest`] moves
//! dirty bits to a second pinned map, *pending*, which holds them until the replica acknowledged
//! them. [`ConflictTable`] tells what was written since an instant, for cuts. [`device`] finds out
//! what a path is and whether it can be tracked. [`cost`] measures.
//!
//! Invariants: a bit of a write is set in `dirty`, `coarse` or `pending` from before the write is
//! acknowledged until [`TrackedDisk::drop_pending`]; whatever the programs can't follow taints the
//! disk, and a taint stays until cleared.
//!
//! This crate decides nothing about epochs, gaps or shipping, and reads no block.

mod conflicts;
pub mod cost;
mod counters;
mod disk;
mod harvest;
mod in_flight;
mod load;
mod ring;
mod sys;
mod tracking;
mod upgrade;

use ebpf_object::{
    EMPTY_OBJECT, OBJECT, build, hooks, kernel, limits, mapped, meta, pins, shape, spec, table,
};

pub use conflicts::ConflictTable;
pub use counters::{Counters, ReadError};
pub use device::{DeviceNumber, DiskClass};
pub use disk::{DiskMapError, TrackedDisk};
pub use ebpf_object::device;
pub use ebpf_object::spec::DiskSpec;
pub use in_flight::Listed;
pub use limits::{DISKS, LAYOUT_VERSION};
pub use load::{LoadError, LoadOptions, Programs};
pub use meta::{Arrival, Baseline};
pub use pins::{DEFAULT_DIRECTORY, DirectoryError};
pub use tracking::{AddDiskError, Attached, ProgramStatus, RemoveDiskError, Tracking, UnloadError};
pub use upgrade::{Behind, UpgradeError};
