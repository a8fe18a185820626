//! The target: keeps the replica disks of other machines.
//!
//! ```text
//!  UDP ── endpoint ── connection (one task each, owns a TargetSession)
//!                        │ actions               ▲ results
//!                        ▼                       │
//!                     epoch writers (one thread an epoch), replica::Disk
//! ```

mod assignments;
mod connection;
mod enroll;
mod epoch;
mod init;
mod layout;
mod machines;
mod metrics;
mod opening;
mod points;
mod promotion;
mod requests;
mod retention;
mod run;
mod scrub;
mod status;
mod tokens;

pub(crate) use assignments::assigned_devices;
pub(crate) use init::init;
pub(crate) use run::run;

/// Where the replicas are in the store at `root`.
pub(crate) fn replicas(root: &std::path::Path) -> std::path::PathBuf {
    layout::Layout::new(root).replicas()
}
