//! The agent: what a process of it holds, and what dies with it.
//!
//! The parts are the product's own: [`DiskTracker`], [`CrossCheck`], [`SourceSession`], [`Packing`].
//! How they are driven (in `world/agent.rs`, `world/link.rs`, `world/shipping.rs`) follows
//! `pinnace/src/agent`, whose threads, sockets and devices have no place here.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use blocks::{Coverage, Epoch, GapReason, PointRecord};
use bytes::Bytes;
use shipper::{BlockHash, Packing, plan::Batch};
use tracker::{CrossCheck, DiskTracker, cut::Heat};
use wire::{Sealer, SourceSession, message::RequestId};

use crate::{
    clock::{MS, S},
    content::Content,
    network::ConnectionId,
    world::Cutting,
};

/// The first pause before another connection is tried, and the longest.
pub(crate) const FIRST_PAUSE: u64 = 250 * MS;
pub(crate) const LONGEST_PAUSE: u64 = 30 * S;
/// How often the agent looks around when nothing happens.
pub(crate) const TICK: u64 = 20 * MS;
/// How often taints and statistics are looked at.
pub(crate) const CHECK_EVERY: u64 = 500 * MS;
/// How often the log is written.
pub(crate) const LOG_EVERY: u64 = 700 * MS;

/// One process of the agent.
pub(crate) struct Agent {
    pub(crate) life: u64,
    pub(crate) disks: Vec<AgentDisk>,
    pub(crate) link: Option<Link>,
    /// How long to wait before the next connection.
    pub(crate) pause: u64,
    pub(crate) next_check: u64,
    /// The cut under way.
    pub(crate) cutting: Option<Cutting>,
    pub(crate) next_point: u64,
}

/// What sectors held when they were read for a cut.
pub(crate) type Image = BTreeMap<usize, Content>;

/// A connection.
pub(crate) struct Link {
    pub(crate) id: ConnectionId,
    pub(crate) session: SourceSession,
    pub(crate) began: u64,
    pub(crate) is_welcome: bool,
    pub(crate) next_stream: u64,
}

/// One protected disk.
pub(crate) struct AgentDisk {
    pub(crate) tracker: DiskTracker,
    /// What cuts have learnt of the disk's chunks.
    pub(crate) heat: Heat,
    pub(crate) check: CrossCheck,
    pub(crate) standing: Standing,
    pub(crate) next_cycle: u64,
    pub(crate) next_log: u64,
    /// Nothing is sent until then.
    pub(crate) held_until: u64,
    pub(crate) failures: u32,
    pub(crate) ring_lost: u64,
    /// Epochs on their way to frames and to the connection, oldest first.
    pub(crate) shipments: BTreeMap<Epoch, Shipment>,
    /// Which epoch waits for which hashes.
    pub(crate) requests: BTreeMap<RequestId, Epoch>,
}

/// Where a disk stands with the target.
pub(crate) enum Standing {
    Closed,
    Opening,
    Open(Arc<Sealer>),
    Failed { until: u64, reconnects: bool },
}

/// An epoch on its way.
pub(crate) struct Shipment {
    /// Nothing once all is packed.
    pub(crate) packing: Option<Packing>,
    pub(crate) stream: u64,
    pub(crate) batch: Option<OpenBatch>,
    /// Frames that wait for room.
    pub(crate) frames: VecDeque<Bytes>,
    pub(crate) compares: bool,
    /// Where content comes from if not from the disk, and the point that it makes.
    pub(crate) image: Option<(Image, PointRecord)>,
}

/// A batch being read.
pub(crate) struct OpenBatch {
    pub(crate) batch: Batch,
    pub(crate) buffer: Vec<u8>,
    pub(crate) reads_done: usize,
    pub(crate) hashes: Hashes,
}

/// The replica's hashes of a batch.
pub(crate) enum Hashes {
    NotNeeded,
    Awaited,
    Known(Vec<BlockHash>),
}

impl AgentDisk {
    /// The gap that is open, if one is.
    pub(crate) fn gap(&self) -> Option<GapReason> {
        match self.tracker.coverage() {
            Coverage::Complete => None,
            Coverage::Gap(reason) => Some(reason),
        }
    }

    /// How long to leave the target alone after a failure: 1 s, doubling to 60 s.
    pub(crate) fn retry_delay(&self) -> u64 {
        (S << self.failures.min(6)).min(60 * S)
    }
}
