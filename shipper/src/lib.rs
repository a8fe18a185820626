//! From a sealed epoch to sealed frames: plan, read, compress, seal.
//!
//! - [`plan`]: what to read and what of it to ship; pure, and a value that can be printed.
//! - [`Engine`]: the threads that execute plans. [`Engine::ship`] takes a [`Job`], frames come out
//!   of its sink in order.
//! - [`WindowReader`]: reads of a cut into an image in memory, which is then shipped from there.
//! - [`Packing`]: the same parts on the caller's thread, without I/O: for the simulator.
//! - [`LevelController`], [`TokenBucket`]: the decisions about compression and limits, pure.
//!
//! What holds throughout: memory is bounded by [`EngineConfig::pool`] whatever the disks and
//! receivers do; a receiver that is slow or gone holds up nobody else; an error of one shipment
//! ends that one; frames of an epoch that was not shipped whole never have an end frame.
//!
//! Sending frames, acknowledgements, and when to ship what are not done here.

mod ahead;
mod compare;
mod compress;
mod content;
mod disk;
mod engine;
mod image;
mod io;
mod latency;
mod level;
mod limit;
mod order;
mod packing;
pub mod plan;
mod progress;
mod shared;
mod shipment;
mod start;
mod zero_run;
mod zeroes;

pub use compare::{
    BlockHash, BlockRange, HASHES_PER_REQUEST, HashSource, HashSourceError, LeafSource,
    LeavesOfBlock, ReplicaHashes,
};
pub use disk::{AddDiskError, DiskHandle, DiskSource};
pub use engine::{Compression, Engine, EngineConfig, EngineStatus};
pub use image::DiskImage;
pub use io::{
    priority::RealTime,
    window::{Window, WindowDisk, WindowError, WindowReader},
};
pub use latency::Stage;
pub use level::{Bottleneck, LevelController, LevelRange, LevelRangeError, Load};
pub use limit::{IoPriority, Limits, TokenBucket};
pub use packing::Packing;
pub use plan::{Plan, PlanLimits};
pub use progress::ProgressSnapshot;
pub use shipment::{Content, Job, ShipError, ShipOutput, ShipRefused, ShipReport, Shipment};
pub use start::StartError;
