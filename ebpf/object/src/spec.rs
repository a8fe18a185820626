//! A disk to track, described.

use blocks::{DiskId, Generation, Geometry};

use crate::device::{DeviceNumber, DiskClass};

/// A disk to track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// Its identity.
    pub id: DiskId,
    /// The line of its history.
    pub generation: Generation,
    /// Its number in the kernel; of the whole disk, not of a partition.
    pub number: DeviceNumber,
    /// Which hooks see it.
    pub class: DiskClass,
    /// Its shape.
    pub geometry: Geometry,
    /// Its disk sequence number, by which another disk under the same number is told apart.
    pub sequence: u64,
}
