//! Rigs of real devices and the tests that run on real kernels.
//!
//! A [`Rig`] is a directory in memory that owns loop and zram disks, partitions, mounts and
//! processes. Each is a guard that undoes itself when it is dropped, on a panic too; what a killed
//! run leaves behind, the next rig sweeps. Nothing that a rig did not make is ever touched.
//!
//! Two witnesses live here, both independent of the code under test: the [`WriteLog`], which the
//! writers keep outside the device, and whole images ([`Image`]). Images are compared, or given to
//! the [`PointChecker`], which asks the `oracle` whether they are one instant.
//!
//! Needs root, and neither clang nor BPF.

mod bursts;
mod compare;
mod daemon;
mod devices;
mod log;
mod point_checker;
mod relay;
mod rig;
mod scrape;
mod site;
pub mod vm;
mod workload;
mod writers;

pub use bursts::{Bursts, EVERY_METHOD, fill};
pub use compare::{ChangedSectors, Difference, Image, differing_chunks, first_difference};
pub use daemon::{Daemon, DaemonSpec, pinnace_binary, query_json, wait_until};
pub use devices::{
    BlockDevice, DiskStatistics, Filesystem, LoopDisk, LoopSpec, Mounted, Partition, ZramDisk,
};
pub use log::{Ticket, WriteLog, monotonic_now};
pub use oracle::{Fill, Issue, Outcome, Random, Record, Stamp, StampError, WriteKind};
pub use point_checker::{Judged, PointChecker, ReadAnywhere};
pub use relay::Relay;
pub use rig::{Rig, SKIP_VARIABLE, sweep};
pub use scrape::Scraped;
pub use site::{ANY_TIME, NO_POINTS, Site, SiteSpec, number};
pub use workload::{Durable, FileWorkload, Pace, WorkloadReport};
pub use writers::{
    After, Load, Method, PointLoad, PointLoadSpec, Rate, Target, Writer, WriterReport,
};
