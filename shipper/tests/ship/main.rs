//! Ships epochs of real files and devices, and receives them as a target would.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests, of small disks")]

mod disk;
mod receiver;
mod trouble;
mod whole;

use std::{num::NonZeroUsize, sync::Arc};

use blocks::{
    Bitmap, ByteLen, ChunkIndex, ChunkRange, Coverage, DiskId, Epoch, GapReason, Generation,
    SealedEpoch,
};
use crossbeam_channel::{Receiver, bounded};
use shipper::{
    Content, DiskHandle, Engine, EngineConfig, HashSource, Job, ReplicaHashes, ShipOutput,
};
use wire::{DataKey, Sealer};

use disk::Disk;

const DISK: DiskId = DiskId(*b"disk under test.");
const GENERATION: Generation = Generation(*b"first generation");

const DELTA: Coverage = Coverage::Complete;
const SEED: Coverage = Coverage::Gap(GapReason::NeverReplicated);
const COMPARE: Coverage = Coverage::Gap(GapReason::Requested);

/// An engine with as little as it can do with: two buffers, two frames.
fn small_engine() -> Engine {
    Engine::start(EngineConfig {
        pool: ByteLen(4 << 20),
        workers: NonZeroUsize::new(2).unwrap(),
        queue_depth: NonZeroUsize::new(4).unwrap(),
        ..EngineConfig::default()
    })
    .unwrap()
}

fn key() -> DataKey {
    DataKey::from_bytes([7; 32])
}

/// An epoch of the given chunks of a disk; runs are half-open.
fn epoch_of(disk: &Disk, number: u64, runs: &[(u64, u64)], coverage: Coverage) -> SealedEpoch {
    let mut chunks = Bitmap::new(disk.geometry.chunks());
    for (start, end) in runs {
        chunks.insert_range(ChunkRange { start: ChunkIndex(*start), end: ChunkIndex(*end) });
    }
    SealedEpoch::seal(Epoch(number), chunks, coverage, true)
}

fn whole(disk: &Disk, coverage: Coverage) -> SealedEpoch {
    epoch_of(disk, 1, &[(0, u64::MAX)], coverage)
}

/// A job and the end its frames come out of.
fn job(
    disk: DiskHandle,
    sealed: SealedEpoch,
    room: usize,
    hashes: Option<HashSource>,
) -> (Job, Receiver<ShipOutput>) {
    let replica_hashes = hashes.map(|blocks| ReplicaHashes { blocks, leaves: None });
    job_of_tree(disk, sealed, room, replica_hashes)
}

/// The same, of a replica that may tell more of itself.
fn job_of_tree(
    disk: DiskHandle,
    sealed: SealedEpoch,
    room: usize,
    replica_hashes: Option<ReplicaHashes>,
) -> (Job, Receiver<ShipOutput>) {
    let (sink, frames) = bounded(room);
    let follows = Epoch(sealed.epoch().0 - 1);
    let sealer = Arc::new(Sealer::new(&key(), DISK, GENERATION).unwrap());
    (
        Job {
            disk,
            sealed,
            content: Content::Disk,
            point: None,
            follows,
            sealer,
            replica_hashes,
            sink,
        },
        frames,
    )
}
