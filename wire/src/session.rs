//! The two ends of a connection, without sockets, clocks or storage.
//!
//! A session takes what the peer said (`handle_control`, `handle_frame`) and what its own side did
//! (`handle_durable`, ...), and hands out messages to send (`poll_transmit`) and, in order, what
//! is to be done (`poll_action`, `poll_event`). Whatever the peer says out of turn is a
//! [`Violation`]: the session closes, and nothing of what came before it is undone.
//!
//! ```text
//! source                                            target
//!   Hello            ------------------------------>
//!                    <------------------------------  Welcome          (or close: VersionMismatch)
//!   OpenDisk         ------------------------------>
//!                    <------------------------------  DiskOpened       (or DiskRefused)
//!   HashRequest      ------------------------------>  Hashes
//!   frames, END      ==============================>                   (a stream an epoch)
//!                    <------------------------------  Credit, ...
//!                    <------------------------------  EpochDurable     (or EpochFailed)
//!   CloseDisk        ------------------------------>  DiskClosed
//! ```
//!
//! Every epoch that was begun is answered exactly once, durable or failed, unless its disk or the
//! session ends first. Every epoch names the one it follows, and becomes durable only on top of
//! it: `durable == follows` at the moment of its commit. So an epoch that was lost takes the
//! epochs built on it along.

mod source;
mod target;
mod violation;

#[cfg(test)]
mod tests;

pub use source::{SourceConfig, SourceError, SourceEvent, SourceSession};
pub use target::{ReplicaPosition, StreamEnd, TargetAction, TargetConfig, TargetSession};
pub use violation::Violation;

use blocks::ByteLen;

use crate::frame::FRAME_LEN_MAX;

/// Epochs of one disk that are begun and not answered, at most.
pub const EPOCHS_IN_FLIGHT_MAX: usize = 4;

/// Requests for hashes of one disk that are not answered, at most.
pub const HASH_REQUESTS_MAX: usize = 16;

/// Disks of one session at most, closed ones counted.
pub const DISKS_MAX: usize = 256;

/// The least window: credit is returned in eighths of it by each epoch in flight, so that half of
/// it may be on the way back, and the other half must hold a frame.
pub const WINDOW_MIN: ByteLen = ByteLen(4 << 20);

const _: () = assert!(WINDOW_MIN.0 / 2 >= FRAME_LEN_MAX as u64);

/// The number of a data stream, as QUIC has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);
