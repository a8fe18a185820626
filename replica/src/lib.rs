//! The target's store: what keeps the replicas of disks, whole at every crash.
//!
//! `docs/replica-store.md` describes every file of it, and argues crash by crash. In short: each
//! disk has a [base](Disk::base_path), a raw image; epochs arrive as sealed frames, become immutable
//! deltas in one flip of a catalogue, and are folded into the base afterwards. Only an initial
//! synchronisation goes straight to the base, since that holds no point yet.
//!
//! - [`Store`]: the directory. [`Disk`]: one open replica. [`Incoming`]: an epoch on its way.
//! - Every error tells its [`FailureClass`].
//!
//! Promises kept here: an epoch is visible whole or not at all (5); nothing that was received is
//! trusted before it was checked (6); what is acknowledged is durable and can be applied.
//! Not here: who may speak to the store (`wire`), and when an epoch is folded (the binary).

mod base;
mod catalog;
mod claim;
mod content;
mod delta;
mod device_record;
mod disk;
mod error;
mod fold;
mod hashes;
mod history;
mod incoming;
mod key_store;
mod layout;
mod leases;
mod leaves;
mod opening;
mod points;
mod retain;
mod scrub;
mod store;
mod view;
mod workers;

#[cfg(test)]
mod tests;

pub use base::BaseError;
pub use catalog::{
    BaseKind, CatalogError, Completeness, DiskState, NAME_LEN_MAX, PINS_MAX, RecordError,
    ReplicaRole,
};
pub use content::ContentError;
pub use delta::{DeltaError, EXTENTS_PER_EPOCH_MAX, FRAMES_PER_EPOCH_MAX};
pub use device_record::DeviceRecordError;
pub use disk::{BeginError, Disk, MustReopenError};
pub use error::FailureClass;
pub use fold::FoldError;
pub use hashes::{BlockHashes, BlockLeaves, HashError};
pub use history::{ChangeError, History};
pub use incoming::{Durable, Incoming, IncomingError};
pub use key_store::KeyError;
pub use opening::RecoverError;
pub use points::{DiskPoint, MachinePoint, PointStatus};
pub use retain::{RetainError, Step};
pub use scrub::{CursorError, Damaged, DamagedPart, ScrubCursor, Scrubbed};
pub use store::{
    Admission, AdmitError, Admitted, AtRest, AttachError, DiskListing, DiskSpec, DiskSummary,
    ForgetError, HistoryError, InitError, InspectError, OpenDiskError, OpenStoreError,
    PromoteError, ReplicaOrigin, SourceOrigin, Store, Usage, VerifyReport,
};
pub use view::{
    Allocated, Allocation, LayerError, LayerFault, ReadError, VIEW_CACHE_DEFAULT, View, ViewError,
};
pub use workers::Parallelism;
