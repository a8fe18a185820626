//! What a target's session asks to be done.

use blocks::{ByteLen, DiskId, Epoch, EpochKind, MachineId, Ticket};

use crate::close::{CloseCode, Detail};
use crate::frame::CheckedFrame;
use crate::message::{
    Features, Forget, HashRequest, Hello, LeafRequest, OpenDisk, ReplicaState, RetractPoints,
    VersionRange,
};
use crate::session::StreamId;

/// Who the target is, and who it talks to.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// The target's machine.
    pub target: MachineId,
    /// The machine that the peer's certificate was made for.
    pub peer: MachineId,
    /// The versions the target speaks, usually [`VersionRange::SUPPORTED`].
    pub versions: VersionRange,
    /// What it is able to do beyond its version.
    pub features: Features,
    /// Bytes of frames of one disk that may be on the way; at least
    /// [`WINDOW_MIN`](crate::session::WINDOW_MIN).
    pub window: ByteLen,
}

/// What the target is to do, in order.
#[derive(Debug)]
pub enum TargetAction {
    /// A source said hello and was welcomed.
    Welcomed {
        /// What it said.
        hello: Hello,
        /// The version agreed on.
        version: u16,
    },
    /// Open a replica; then `handle_disk_opened` or `handle_disk_refused`.
    OpenDisk(OpenDisk),
    /// Make ready for the frames of an epoch.
    BeginEpoch {
        /// Its disk.
        disk: DiskId,
        /// The epoch.
        epoch: Epoch,
        /// Its kind.
        kind: EpochKind,
        /// The epoch it is built on.
        follows: Epoch,
    },
    /// Take a frame of an epoch, the end frame too; then `handle_consumed`.
    Append {
        /// Its disk.
        disk: DiskId,
        /// The epoch.
        epoch: Epoch,
        /// The frame.
        frame: Box<CheckedFrame>,
    },
    /// All frames of the epoch were appended, and the one it follows is durable: verify its
    /// summary and make it durable; then `handle_durable` or `handle_failed`.
    Commit {
        /// Its disk.
        disk: DiskId,
        /// The epoch.
        epoch: Epoch,
    },
    /// Throw away what was appended of an epoch. There is no answer to give.
    Abort {
        /// Its disk.
        disk: DiskId,
        /// The epoch.
        epoch: Epoch,
    },
    /// Hash blocks of the replica; then `handle_hashes`.
    Hash(HashRequest),
    /// Hash the leaves of blocks of the replica; then `handle_leaves`.
    HashLeaves(LeafRequest),
    /// Take it durably that points up to that of an epoch may be relied on. There is no answer to
    /// give; the next `DiskOpened` says what became of it.
    ConfirmPoints {
        /// The disk.
        disk: DiskId,
        /// The epoch; it is durable.
        through: Epoch,
    },
    /// Take it durably that points may lack writes, as above.
    RetractPoints(RetractPoints),
    /// Close a replica and keep or forget it; then `handle_disk_closed`. Its epochs were aborted
    /// before this, except one whose commit is under way.
    CloseDisk {
        /// The disk.
        disk: DiskId,
        /// What becomes of the replica.
        forget: Forget,
    },
    /// Stop reading a data stream.
    StopStream {
        /// The stream.
        stream: StreamId,
        /// The code to stop it with.
        code: CloseCode,
    },
    /// Close the connection. Nothing follows.
    Close {
        /// The code to close it with.
        code: CloseCode,
        /// A few words more.
        detail: Detail,
    },
}

/// How far an open replica has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaPosition {
    /// The newest epoch that it holds.
    pub last_durable: Epoch,
    /// The newest epoch whose points were confirmed: `confirmed <= last_durable`.
    pub confirmed: Epoch,
    /// What it holds.
    pub state: ReplicaState,
    /// What the source is to show at the next opening.
    pub ticket: Ticket,
}

/// How a data stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamEnd {
    /// In order, all of it read.
    Finished,
    /// Cut off by the source.
    Reset,
}
