//! The control stream: what agent and target say to each other beside the frames.
//!
//! A message is an envelope (length and type) around a body of explicit layout; `docs/wire.md`
//! has the tables. The two directions are two enums, so that neither end can be made to handle
//! what only the other may say. Decoding checks layout and limits; whether a message may be said
//! *now* is the sessions' to decide.

mod agent;
mod envelope;
mod leaves;
mod origin;
mod target;

#[cfg(test)]
mod tests;

pub use agent::{
    AgentMessage, BuildName, DiskName, Forget, HASH_COUNT_MAX, HashRequest, Hello, OpenDisk,
    RequestId, RetractPoints,
};
pub use envelope::{Envelope, MESSAGE_LEN_MAX, MessageDecoder, MessageError};
pub use leaves::{HashedFrom, LEAF_BLOCKS_MAX, LeafRequest, Leaves, LeavesOfBlock};
pub use origin::Origin;
pub use target::{
    DiskOpened, DiskRefused, EpochFailed, Hashes, ReplicaState, TargetMessage, Welcome,
};

pub(crate) use envelope::encode;

/// Optional abilities that both ends must have for them to be used. Unknown bits are ignored, so
/// that a later version can offer them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features(pub u64);

impl Features {
    /// Requests for the hashes of leaves, and answers to them.
    pub const LEAVES: Self = Self(1 << 0);

    /// What this version of the code is able to do.
    pub const SUPPORTED: Self = Self::LEAVES;

    /// Whether all of `others` are among them.
    pub const fn contain(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

/// The versions of the protocol that one end speaks: `min <= v <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VersionRange {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl VersionRange {
    /// What this version of the code speaks.
    pub const SUPPORTED: Self = Self { min: 1, max: 1 };

    /// The newest version in both ranges.
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}
