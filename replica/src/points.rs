//! Recovery points as the store holds them.
//!
//! A point is on a disk from the commit of the epoch that makes it until the base goes past it or
//! it is merged into a later one. It is *there* for the machine when as many disks hold it as its
//! record says; that is derived from the disks and written nowhere, so no crash can tear it.

mod registry;

use blocks::{ByteLen, DiskId, Epoch, PointRecord};

pub use crate::catalog::PointStatus;
pub(crate) use registry::{DiskPoints, Registry};

/// A point on one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPoint {
    /// The epoch that makes it.
    pub epoch: Epoch,
    /// What its source says of it.
    pub record: PointRecord,
    /// What it is worth.
    pub status: PointStatus,
    /// Whether a person wants it kept.
    pub pinned: bool,
    /// Whether somebody is looking at it.
    pub viewed: bool,
    /// The room its delta takes; none if the base is the point.
    pub bytes: ByteLen,
}

/// A point over the disks of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachinePoint {
    /// What its source says of it.
    pub record: PointRecord,
    /// The disks that hold it.
    pub disks: Vec<(DiskId, DiskPoint)>,
}

impl MachinePoint {
    /// Whether every disk of the point holds it.
    pub fn is_there(&self) -> bool {
        self.disks.len() >= usize::from(self.record.disks)
    }

    /// What it is worth: retracted if it is on any disk, confirmed if it is there and is on all.
    pub fn status(&self) -> PointStatus {
        let statuses = || self.disks.iter().map(|(_, point)| point.status);
        let retracted = statuses().find(|status| matches!(status, PointStatus::Retracted(_)));
        let confirmed = self.is_there() && statuses().all(|s| s == PointStatus::Confirmed);
        match retracted {
            Some(retracted) => retracted,
            None if confirmed => PointStatus::Confirmed,
            None => PointStatus::Provisional,
        }
    }

    /// Whether it is pinned on every disk that holds it.
    pub fn is_pinned(&self) -> bool {
        self.disks.iter().all(|(_, point)| point.pinned)
    }

    /// Whether somebody looks at it, on any disk.
    pub fn is_viewed(&self) -> bool {
        self.disks.iter().any(|(_, point)| point.viewed)
    }
}
