//! The disks of a run, and the unit in which their content is judged: the logical block, which a
//! disk writes whole or not at all.

use std::fmt;

use blocks::{Extent, Geometry, SECTOR_SIZE, Sector};

/// The disks of one run, in the order in which they were named.
///
/// Invariant: no disk is named twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    run: u64,
    disks: Vec<(u32, Geometry)>,
}

/// One logical block of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit {
    /// The disk, by the run's numbering.
    pub disk: u32,
    /// The block, from the start of the disk.
    pub block: u64,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} of disk {}", self.block, self.disk)
    }
}

/// A disk's place in the layout: an index, where [`Unit`] carries the run's number.
pub(crate) type Place = usize;

impl Layout {
    /// The disks of the run whose stamps carry `run`, by the run's numbering.
    ///
    /// # Panics
    /// If a disk is named twice.
    pub fn new(run: u64, disks: &[(u32, Geometry)]) -> Self {
        let twice = |at: usize| disks[..at].iter().any(|(disk, _)| *disk == disks[at].0);
        assert!(!(0..disks.len()).any(twice), "a disk is named twice");
        Self { run, disks: disks.to_vec() }
    }

    /// What stamps of this run carry.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// The disks and their shapes.
    pub fn disks(&self) -> &[(u32, Geometry)] {
        &self.disks
    }

    /// Every unit of every disk, in rising order of blocks on each disk.
    pub fn units(&self) -> impl Iterator<Item = Unit> {
        let of_disk =
            |(disk, geometry): &(u32, Geometry)| (*disk, geometry.sectors() / per_block(geometry));
        let disks = self.disks.iter().map(of_disk);
        disks.flat_map(|(disk, blocks)| (0..blocks).map(move |block| Unit { disk, block }))
    }

    /// The sectors of a unit.
    ///
    /// # Panics
    /// If its disk is not part of the run.
    pub fn extent_of(&self, unit: Unit) -> Extent {
        let place = self.place(unit.disk).expect("a unit of the run");
        let sectors = per_block(&self.disks[place].1);
        Extent { start: Sector(unit.block * sectors), sectors }
    }

    pub(crate) fn place(&self, disk: u32) -> Option<Place> {
        self.disks.iter().position(|(named, _)| *named == disk)
    }

    /// Sectors of a unit of the disk at `place`.
    pub(crate) fn block_sectors(&self, place: Place) -> u64 {
        per_block(&self.disks[place].1)
    }

    /// Units of the disk at `place`.
    pub(crate) fn blocks(&self, place: Place) -> usize {
        let blocks = self.disks[place].1.sectors() / self.block_sectors(place);
        usize::try_from(blocks).expect("64-bit")
    }

    pub(crate) fn unit(&self, place: Place, block: usize) -> Unit {
        Unit { disk: self.disks[place].0, block: block as u64 }
    }
}

fn per_block(geometry: &Geometry) -> u64 {
    u64::from(geometry.logical_block()) / SECTOR_SIZE
}
