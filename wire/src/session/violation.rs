//! What a peer may not do, and what the connection is closed with when it does.

use blocks::{DiskId, Epoch, MachineId};

use crate::close::Reason;
use crate::frame::{ChainError, FrameError};
use crate::message::{MessageError, VersionRange};

/// Something the peer may not do.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Violation {
    /// Bytes on the control stream that are no message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Bytes on a data stream that are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame that does not belong where it is.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Anything before the hello, or a second hello.
    #[error("{0} out of order: a session begins with one hello and one welcome")]
    OutOfOrder(&'static str),
    /// The two ends have no version in common.
    #[error("the other side speaks versions {theirs:?}, this side {ours:?}")]
    Versions {
        /// What this end speaks.
        ours: VersionRange,
        /// What the peer speaks.
        theirs: VersionRange,
    },
    /// The welcome offers what was not asked for.
    #[error("the welcome's {0} is not acceptable")]
    Welcome(&'static str),
    /// The hello names another machine than the certificate.
    #[error("the hello names machine {named}, the certificate {certified}")]
    OtherMachine {
        /// The machine that the hello names.
        named: MachineId,
        /// The machine that the certificate was made for.
        certified: MachineId,
    },
    /// A disk is opened that was opened before.
    #[error("disk {0} was opened before in this session")]
    OpenedBefore(DiskId),
    /// More disks than a session may have.
    #[error("more than {max} disks in a session", max = super::DISKS_MAX)]
    TooManyDisks,
    /// A message or frame for a disk that is not open.
    #[error("disk {0} is not open in this session")]
    NotOpen(DiskId),
    /// A frame or answer of another line of the disk's history.
    #[error("another generation of disk {0} than the one that was opened")]
    Generation(DiskId),
    /// An epoch came again.
    #[error("epoch {0} came again")]
    EpochAgain(Epoch),
    /// More epochs in flight than a disk may have.
    #[error("more than {max} epochs of a disk in flight", max = super::EPOCHS_IN_FLIGHT_MAX)]
    TooManyEpochs,
    /// A frame beyond the window.
    #[error("more bytes of epoch {0} than the window allows")]
    Window(Epoch),
    /// An extent past the end of the disk.
    #[error("a frame of epoch {0} reaches past the end of the disk")]
    PastEnd(Epoch),
    /// A data stream ended in order, and its epoch did not.
    #[error("the stream of epoch {0} ended before the epoch")]
    StreamShort(Epoch),
    /// A request for hashes past the end of the disk, or one too many.
    #[error("a request for hashes past the end of the disk, or one too many")]
    HashRequest,
    /// What needs an ability that the two ends have not agreed on.
    #[error("{0}, which the two ends have not agreed on")]
    NotAgreed(&'static str),
    /// An answer to nothing that was asked.
    #[error("{0} for nothing that was asked")]
    Unasked(&'static str),
    /// Points are confirmed of an epoch that is not durable.
    #[error("points are confirmed up to epoch {0}, which is not durable")]
    ConfirmedEarly(Epoch),
    /// An epoch is said to be durable before the one it follows, or before all of it was sent.
    #[error("epoch {0} is said to be durable out of order, or before all of it was sent")]
    DurableOutOfOrder(Epoch),
}

impl Violation {
    /// What to close the connection with.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Message(error) => error.reason(),
            Self::Frame(error) => error.reason(),
            Self::Chain(ChainError::Sequence { .. }) | Self::EpochAgain(_) => Reason::Replay,
            Self::Versions { .. } => Reason::VersionMismatch,
            Self::OtherMachine { .. } => Reason::NotAuthenticated,
            Self::NotOpen(_) => Reason::UnknownDisk,
            Self::Generation(_) => Reason::GenerationMismatch,
            Self::Chain(_)
            | Self::OutOfOrder(_)
            | Self::Welcome(_)
            | Self::OpenedBefore(_)
            | Self::TooManyDisks
            | Self::TooManyEpochs
            | Self::Window(_)
            | Self::PastEnd(_)
            | Self::StreamShort(_)
            | Self::HashRequest
            | Self::NotAgreed(_)
            | Self::Unasked(_)
            | Self::ConfirmedEarly(_)
            | Self::DurableOutOfOrder(_) => Reason::ProtocolViolation,
        }
    }
}
