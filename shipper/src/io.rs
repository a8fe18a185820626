//! The threads that do the work, and what they share.
//!
//! - [`reader`]: one thread, owns the ring, the disks and every shipment's plan.
//! - [`worker`]: several, from a filled buffer to a sealed frame.
//! - [`collector`]: one for each shipment, hands frames to the receiver in order.
//! - [`hashes`]: one for each comparison, asks for the replica's hashes ahead of the reader.
//! - [`leaves`]: one for each comparison, finds out what differs in a block, and seals that.
//! - [`window`]: reads cuts, on a thread of its caller's.
//!
//! Data moves one way, reader to worker to collector. What comes back are buffers and permits,
//! each by being dropped, so that no error or cancellation can lose one.

pub(crate) mod collector;
pub(crate) mod flow;
pub(crate) mod hashes;
pub(crate) mod leaves;
pub(crate) mod parcel;
pub(crate) mod pool;
pub(crate) mod priority;
pub(crate) mod processor;
pub(crate) mod reader;
pub(crate) mod ring;
pub(crate) mod sealing;
pub(crate) mod wake;
pub(crate) mod window;
pub(crate) mod worker;
