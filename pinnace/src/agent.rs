//! The agent: tracks and ships the disks of this machine.
//!
//! ```text
//!  kernel maps ──> core (one thread, owns every disk) ──> shipper engine ──> frames
//!                    ▲          │ commands                                    │
//!                    │ events   ▼                                             ▼
//!                  admin      link (tokio: QUIC, owns the SourceSession) <── epoch streams
//! ```

mod clock;
mod closing;
mod content;
mod core;
mod cutter;
mod disk;
mod doctor;
mod enroll;
mod freeze;
mod hooks;
mod last;
mod link;
mod metrics;
pub(crate) mod own_store;
mod points;
mod probe;
mod protect;
mod recorded;
mod resync;
mod run;
mod state;
mod status;
mod trouble;
mod verify;

pub(crate) use closing::close;
pub(crate) use doctor::{Finding, Grade, examine};
pub(crate) use enroll::enroll;
pub(crate) use freeze::guard as freeze_guard;
pub(crate) use resync::{Difference, Estimate};
pub(crate) use run::run;
