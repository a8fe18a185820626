//! From kernel marks to sealed epochs, and the persistent log of dirty chunks.
//!
//! [`DiskTracker`] is the pure core: it takes marks, harvests, losses and acknowledgements, and
//! answers with sealed epochs and with the chunks whose pending bits may be dropped. It reads no
//! clock and touches no kernel; the agent's loop drives it. [`CrossCheck`] compares what the
//! programs counted with the kernel's own statistics. [`start`] decides what a starting agent may
//! rely on. [`hrl`] is the file that keeps the dirty set while the machine lives; [`last`] is what
//! carries it over an orderly stop of the machine.

mod confirm;
mod crosscheck;
pub mod cut;
mod disk;
pub mod hrl;
pub mod last;
pub mod start;

pub use confirm::{Confirmation, Proof, Sample};
pub use crosscheck::{CrossCheck, Reading, Verdict};
pub use disk::{DiskTracker, Harvest, Replica, SealPolicy, TrackerStatus};
