//! What a source's session tells, and what it refuses to do.

use blocks::{DiskId, Epoch, MachineId};

use crate::close::{CloseCode, Detail};
use crate::message::{
    BuildName, DiskOpened, DiskRefused, EpochFailed, Features, Hashes, Leaves, VersionRange,
    Welcome,
};
use crate::session::{DISKS_MAX, EPOCHS_IN_FLIGHT_MAX, HASH_REQUESTS_MAX};

/// Who the source is.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// The machine, the same as in its certificate.
    pub machine: MachineId,
    /// The build of the agent.
    pub build: BuildName,
    /// The versions it speaks, usually [`VersionRange::SUPPORTED`].
    pub versions: VersionRange,
    /// What it is able to do beyond its version.
    pub features: Features,
}

/// What the target said, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceEvent {
    /// The session is ready: disks may be opened.
    Welcomed(Welcome),
    /// A disk is open: its epochs go on after `last_durable`.
    Opened(DiskOpened),
    /// A disk can't be replicated, or no longer. All its epochs in flight are lost.
    Refused(DiskRefused),
    /// An epoch is durable.
    Durable {
        /// Its disk.
        disk: DiskId,
        /// The epoch.
        epoch: Epoch,
    },
    /// An epoch is lost.
    Failed(EpochFailed),
    /// Hashes that were asked for.
    Hashes(Hashes),
    /// Hashes of leaves that were asked for.
    Leaves(Leaves),
    /// More of a disk's frames may be sent; see
    /// [`SourceSession::room`](super::SourceSession::room).
    Credited {
        /// The disk.
        disk: DiskId,
    },
    /// A disk is closed as asked.
    DiskClosed {
        /// The disk.
        disk: DiskId,
    },
    /// The answer to the ping of this number.
    Pong(u64),
    /// The session is over; nothing follows. Unless the target closed it, close the connection
    /// with this code.
    Closed {
        /// The reason.
        code: CloseCode,
        /// A few words more.
        detail: Detail,
    },
}

/// What the caller asked for can't be done now.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SourceError {
    /// The target has not welcomed us, or the session is over.
    #[error("the session is not ready")]
    NotReady,
    /// The disk was opened before in this session.
    #[error("disk {0} was opened before in this session")]
    OpenedBefore(DiskId),
    /// The session has as many disks as it may.
    #[error("a session has at most {DISKS_MAX} disks")]
    TooManyDisks,
    /// The disk is not open.
    #[error("disk {0} is not open")]
    NotOpen(DiskId),
    /// The epoch's number was used before.
    #[error("epoch {epoch} is not after epoch {newest}")]
    EpochNotRising {
        /// The number asked for.
        epoch: Epoch,
        /// The newest one used.
        newest: Epoch,
    },
    /// The target has not said that the epoch is durable.
    #[error("epoch {epoch} is not durable; {durable} is the newest that is")]
    NotDurable {
        /// The epoch.
        epoch: Epoch,
        /// The newest one that is.
        durable: Epoch,
    },
    /// As many epochs are in flight as may be.
    #[error("{EPOCHS_IN_FLIGHT_MAX} epochs of the disk are in flight")]
    TooManyEpochs,
    /// An epoch was given up, and the target has not said yet what became of it.
    #[error("the end of epoch {0}, which was given up, is not known yet")]
    AbortPending(Epoch),
    /// The epoch was sealed on one that the next epoch does not build on.
    #[error("the epoch was sealed on epoch {follows}, but the next one builds on {newest}")]
    SealedOnAnother {
        /// What it was sealed on.
        follows: Epoch,
        /// What the session would build on.
        newest: Epoch,
    },
    /// Blocks past the end of the disk, none, or too many at once.
    #[error("the blocks lie past the end of the disk, or are none or too many at once")]
    Blocks,
    /// The target does not know of leaves.
    #[error("the target has no hashes of leaves")]
    NoLeaves,
    /// As many requests for hashes are open as may be.
    #[error("{HASH_REQUESTS_MAX} requests for hashes of the disk are open")]
    TooManyRequests,
}
