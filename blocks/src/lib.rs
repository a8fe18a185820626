//! The vocabulary of replication and its arithmetic.
//!
//! Every other room speaks these words: sectors and chunks, extents, dirty bitmaps, epochs and
//! their coverage, identities. There is no I/O and no clock here, and no other room is imported.
//!
//! The one rule that lives here rather than in a stage: an epoch whose coverage has a gap can not
//! become a delta ([`SealedEpoch::seal`]).

mod bitmap;
mod coverage;
mod epoch;
mod extent;
mod geometry;
mod identity;
mod lineage;
mod mark;
mod mutant;
mod point;
mod sealed;
mod ticket;
mod unit;

pub use bitmap::Bitmap;
pub use coverage::{Coverage, GapReason, Taint, TaintSet};
pub use epoch::{Epoch, EpochKind};
pub use extent::{ChunkRange, Extent};
pub use geometry::{Geometry, GeometryError};
pub use identity::{DiskId, Generation, MachineId, ParseIdentityError, PointId};
pub use lineage::{ANCESTORS_MAX, Ancestor, Common, Lineage, LineageError};
pub use mark::{Mark, MarkKind, Slot};
pub use mutant::Mutant;
pub use point::{Consistency, CutMethod, CutTime, PointRecord, RetractReason};
pub use sealed::{CompareEpoch, DeltaEpoch, SealedEpoch, SeedEpoch};
pub use ticket::{Claim, Shown, Ticket, Tickets};
pub use unit::{ByteLen, ChunkIndex, ChunkSize, ChunkSizeError, MonotonicNs, SECTOR_SIZE, Sector};
