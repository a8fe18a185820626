//! Frames, their sealing, and the sans-I/O sessions of both ends.
//!
//! `docs/wire.md` is the description of every format and state machine here; this crate is its
//! only implementation. Nothing in it opens a socket, reads a clock or starts a thread: bytes and
//! frames go in through `handle_*`, messages and actions come out of `poll_*`.
//!
//! - [`frame`]: what carries disk content, its checks and its limits; [`EpochChain`] holds the
//!   frames of one epoch together.
//! - [`Sealer`], [`Opener`], [`DataKey`]: encryption of frames, the same in transit and at rest.
//! - [`message`]: the control stream. [`enroll`]: the messages that admit a new machine.
//! - [`leaf`]: the tree of hashes that comparisons go by.
//! - [`session`]: who may say what when, on either end.
//! - [`CloseCode`]: the registry of reasons.
//!
//! Nothing from a peer panics or is allocated for before its length was checked.

pub mod close;
pub mod enroll;
pub mod frame;
mod key;
mod layout;
pub mod leaf;
pub mod message;
mod open;
mod seal;
mod secret;
pub mod session;
mod text;
mod token;

pub use close::{Class, CloseCode, Reason};
pub use frame::{
    CheckedFrame, Codec, Content, EpochChain, EpochEnd, EpochSummary, FrameDecoder, FrameError,
    FrameExtent, FrameHeader, FrameRole, Sequence, SessionSalt,
};
pub use key::DataKey;
pub use message::{AgentMessage, MessageDecoder, MessageError, TargetMessage};
pub use open::{OpenError, OpenedFrame, Opener};
pub use seal::{EpochLink, FRAMES_PER_SEALER_MAX, FrameBuffer, FrameSpec, SealError, Sealer};
pub use secret::{RandomError, Secret};
pub use session::{SourceSession, TargetSession};
pub use text::{Text, TextError};
pub use token::{Token, TokenError, TokenId, TokenSecret};

/// The unit of comparison: a hash is taken of each block of this many bytes, the last one of a
/// disk possibly short.
pub const COMPARE_BLOCK: blocks::ByteLen = blocks::ByteLen(64 * 1024);

/// The protocol of the control and data streams, as TLS names it.
pub const ALPN_DATA: &[u8] = b"pinnace/1";

/// The protocol of enrolment, as TLS names it.
pub const ALPN_ENROLL: &[u8] = b"pinnace-enroll/1";
