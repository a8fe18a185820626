//! A shipment: one sealed epoch on its way, as its caller and the threads see it.

use std::{io, sync::Arc, time::Duration};

use blocks::{Epoch, EpochKind, Extent, PointRecord, SealedEpoch};
use bytes::Bytes;
use crossbeam_channel::Sender;
use wire::{Class, SealError, Sealer};

use crate::{
    compare::{HashSourceError, ReplicaHashes},
    disk::DiskHandle,
    image::DiskImage,
    progress::{Progress, ProgressSnapshot},
};

/// One epoch to ship.
pub struct Job {
    /// The disk to read.
    pub disk: DiskHandle,
    /// What to ship of it, and as what kind.
    pub sealed: SealedEpoch,
    /// Where its content is.
    pub content: Content,
    /// The recovery point that the epoch makes, if it makes one.
    pub point: Option<PointRecord>,
    /// The epoch it is built on: the replica's newest when this one is applied.
    pub follows: Epoch,
    /// Makes the frames.
    pub sealer: Arc<Sealer>,
    /// Where the replica's hashes come from. Only a comparison leaves unchanged blocks out, and
    /// only if there is a source; seeds and deltas are always whole.
    pub replica_hashes: Option<ReplicaHashes>,
    /// Takes the frames. The shipment waits while it is full; dropping its receiver cancels.
    pub sink: Sender<ShipOutput>,
}

/// Where the content of an epoch is.
#[derive(Clone, Debug)]
pub enum Content {
    /// On the disk, as it is when it is read.
    Disk,
    /// In memory, where it was read at one instant. It must hold every chunk of the epoch.
    Image(DiskImage),
}

/// What a shipment yields: frames in order, then `Done` or `Failed`, after which nothing comes.
#[derive(Debug)]
pub enum ShipOutput {
    /// A whole frame. The last before `Done` is the epoch's end frame.
    Frame(Bytes),
    /// All frames are out.
    Done(ShipReport),
    /// No more frames come, and those that came are no epoch: they have no end.
    Failed(ShipError),
}

/// What a shipment amounted to, in bytes where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShipReport {
    /// The epoch.
    pub epoch: Epoch,
    /// Its kind.
    pub kind: EpochKind,
    /// How many content frames.
    pub frames: u64,
    /// What the epoch covers: the sum of data, zeroes and unchanged.
    pub covered_bytes: u64,
    /// Read from the disk, bridged gaps and the rest of compare blocks included.
    pub read_bytes: u64,
    /// Sent as data.
    pub data_bytes: u64,
    /// Sent as zeroes, which is to say not at all.
    pub zero_bytes: u64,
    /// Left out because the replica has it.
    pub unchanged_bytes: u64,
    /// The data after compression.
    pub packed_bytes: u64,
    /// All frames, the end frame included.
    pub wire_bytes: u64,
    /// From the call of `ship` until the last frame was taken.
    pub elapsed: Duration,
}

impl ShipReport {
    /// A report of nothing yet.
    pub(crate) fn begin(epoch: Epoch, kind: EpochKind) -> Self {
        Self {
            epoch,
            kind,
            frames: 0,
            covered_bytes: 0,
            read_bytes: 0,
            data_bytes: 0,
            zero_bytes: 0,
            unchanged_bytes: 0,
            packed_bytes: 0,
            wire_bytes: 0,
            elapsed: Duration::ZERO,
        }
    }
}

/// Why a shipment failed.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// The disk could not be read.
    #[error("reading {} sectors from sector {} failed", .extent.sectors, .extent.start.0)]
    Read {
        /// Which sectors were to be read.
        extent: Extent,
        /// What the kernel said.
        source: io::Error,
    },
    /// The disk is shorter than its geometry says.
    #[error("the disk ends before sector {}, shorter than it was", .0.start.0 + .0.sectors)]
    DiskTooShort(Extent),
    /// The image lacks a chunk of the epoch.
    #[error("the image does not hold sector {}", .0.start.0)]
    NotInImage(Extent),
    /// The replica's hashes could not be had.
    #[error("the replica's hashes could not be had")]
    Hashes(#[source] HashSourceError),
    /// Another number of hashes came than was asked for.
    #[error("{got} hashes came where {wanted} were asked for")]
    HashCount {
        /// How many were asked for.
        wanted: usize,
        /// How many came.
        got: usize,
    },
    /// A frame could not be sealed.
    #[error("a frame could not be sealed")]
    Seal(#[from] SealError),
    /// The disk was removed from the engine.
    #[error("the disk was removed")]
    DiskRemoved,
    /// The engine was dropped, or one of its threads died.
    #[error("the pipeline was stopped")]
    Stopped,
}

impl ShipError {
    /// Whether trying again, as things are, can be of use.
    pub fn class(&self) -> Class {
        match self {
            Self::Read { .. } | Self::Hashes(_) | Self::Seal(_) | Self::Stopped => {
                Class::Recoverable
            }
            Self::DiskTooShort(_)
            | Self::NotInImage(_)
            | Self::HashCount { .. }
            | Self::DiskRemoved => Class::Permanent,
        }
    }
}

/// Why a job was not begun.
#[derive(Debug, thiserror::Error)]
pub enum ShipRefused {
    /// The epoch's bitmap is of a disk of another length.
    #[error("an epoch over {epoch} chunks, of a disk of {disk}")]
    Length {
        /// Chunks of the epoch's bitmap.
        epoch: u64,
        /// Chunks of the disk.
        disk: u64,
    },
    /// No thread could be started.
    #[error("no thread could be started")]
    Thread(#[source] io::Error),
    /// The engine's reader has died.
    #[error("the pipeline was stopped")]
    Stopped,
}

/// A shipment under way. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Shipment {
    pub(crate) progress: Arc<Progress>,
}

impl Shipment {
    /// How far it has come.
    pub fn progress(&self) -> ProgressSnapshot {
        self.progress.snapshot()
    }
}
