//! What shows that a disk was written, without reading all of it.
//!
//! Who mounts a file system for writing changes its superblock (mount count, time of the last
//! write, generation, or position of its log), and who changes partitions changes their table. Both
//! lie at the beginning of a disk or a partition, or at a disk's end. So a digest of these places
//! tells whether another system had the disk. It does not tell of who writes elsewhere and leaves
//! the superblock alone, as `dd` does.

use std::io;

use blocks::{Extent, SECTOR_SIZE, Sector};
use sha2::{Digest, Sha256};

use super::{Device, Direct};

/// How much of each place is looked at, in sectors: 1 MiB.
const LOOKED_AT: u64 = super::direct::PIECE as u64 / SECTOR_SIZE;

/// A digest of the places that change.
pub type Fingerprint = [u8; 32];

impl Device {
    /// The places of the disk that its fingerprint is of.
    pub fn fingerprinted(&self) -> Vec<Extent> {
        let place = |start: u64, end: u64| Extent {
            start: Sector(start),
            sectors: end.min(self.sectors).saturating_sub(start).min(LOOKED_AT),
        };
        let parts = self.partitions.iter().map(|part| place(part.start, part.start + part.sectors));
        let ends =
            [place(0, self.sectors), place(self.sectors.saturating_sub(LOOKED_AT), u64::MAX)];
        ends.into_iter().chain(parts).filter(|extent| extent.sectors > 0).collect()
    }

    /// Reads them past the page cache: its fingerprint, which also holds where they are.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn fingerprint(&self) -> io::Result<Fingerprint> {
        let mut disk = Direct::to_read(&self.path)?;
        let mut digest = Sha256::new();
        for place in self.fingerprinted() {
            digest.update(place.start.0.to_le_bytes());
            digest.update(place.sectors.to_le_bytes());
            let len = usize::try_from(place.len().0).map_err(io::Error::other)?;
            digest.update(disk.read(place.start.0 * SECTOR_SIZE, len)?);
        }
        Ok(digest.finalize().into())
    }

    /// A digest of what its hardware says of itself and of how long it is; the same for two disks
    /// whose hardware says nothing.
    pub fn hardware(&self) -> Fingerprint {
        let mut digest = Sha256::new();
        for text in [&self.identity.serial, &self.identity.wwn] {
            let text = text.as_deref().unwrap_or_default();
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        }
        digest.update(self.sectors.to_le_bytes());
        digest.update(self.logical_block.to_le_bytes());
        digest.finalize().into()
    }

    /// Whether something lies over the disk or a partition of it: the device mapper, md, bcache.
    /// They may write by themselves, at any time.
    ///
    /// # Errors
    /// If sysfs can't be read.
    pub fn has_holders(&self) -> io::Result<bool> {
        let disk = super::sysfs::directory(self.number);
        let places = self.partitions.iter().map(|part| disk.join(&part.name));
        for place in std::iter::once(disk.clone()).chain(places) {
            if std::fs::read_dir(place.join("holders"))?.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Accounting, DeviceNumber, DiskClass, HardwareIdentity, Partition};

    fn device(sectors: u64, parts: &[(u64, u64)]) -> Device {
        let partition = |(index, (start, sectors)): (u32, &(u64, u64))| Partition {
            name: format!("vdx{index}"),
            index,
            start: *start,
            sectors: *sectors,
        };
        Device {
            name: "vdx".into(),
            path: "/dev/vdx".into(),
            number: DeviceNumber::new(254, 16).unwrap(),
            sectors,
            logical_block: 512,
            class: DiskClass::RequestBased,
            sequence: 1,
            identity: HardwareIdentity::default(),
            partitions: (1..).zip(parts).map(partition).collect(),
            accounting: Accounting::of("vdx"),
        }
    }

    #[test]
    fn places_are_the_ends_of_the_disk_and_the_beginnings_of_partitions() {
        let places = |device: &Device| -> Vec<(u64, u64)> {
            device.fingerprinted().iter().map(|place| (place.start.0, place.sectors)).collect()
        };
        let disk = device(100_000, &[(2048, 4096), (6144, 8)]);
        assert_eq!(places(&disk), [(0, 2048), (97_952, 2048), (2048, 2048), (6144, 8)]);
        assert_eq!(places(&device(8, &[])), [(0, 8), (0, 8)], "a small disk has one place, twice");
        // A table that says nonsense is not believed.
        assert_eq!(places(&device(4096, &[(4000, 5000)]))[2], (4000, 96));
        assert_eq!(places(&device(4096, &[(5000, 5000)])).len(), 2);
    }

    #[test]
    fn what_hardware_says_of_itself_is_told_apart() {
        let named = |serial: &str, wwn: &str| {
            let text = |text: &str| Some(text.to_owned());
            let identity = HardwareIdentity { serial: text(serial), wwn: text(wwn) };
            Device { identity, ..device(8, &[]) }.hardware()
        };
        assert_ne!(named("ab", "c"), named("a", "bc"));
        assert_eq!(named("a", "b"), named("a", "b"));
        assert_ne!(device(8, &[]).hardware(), device(16, &[]).hardware());
    }
}
