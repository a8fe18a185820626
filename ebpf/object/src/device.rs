//! What a path is, and whether the disk behind it can be tracked.
//!
//! Everything comes from sysfs. Nothing is changed but by [`Device::enable_statistics`].

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use blocks::{ChunkSize, Geometry};
use nix::sys::stat::{SFlag, major, makedev, minor, stat};

mod accounting;
mod direct;
mod fingerprint;
mod multipath;
mod refusal;
mod sysfs;

pub use accounting::{Accounting, DiskStatistics};
pub use direct::Direct;
pub use fingerprint::Fingerprint;
pub use refusal::Untrackable;

use sysfs::Attributes;

use crate::limits;

/// A device number, as `major:minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceNumber {
    major: u32,
    minor: u32,
}

impl DeviceNumber {
    const MINOR_BITS: u32 = 20;

    /// The number as the kernel holds it in one word: 12 bits of major, 20 of minor.
    pub const fn from_devt(devt: u32) -> Self {
        Self { major: devt >> Self::MINOR_BITS, minor: devt & ((1 << Self::MINOR_BITS) - 1) }
    }

    /// The number as the kernel holds it in one word.
    pub const fn devt(self) -> u32 {
        self.major << Self::MINOR_BITS | self.minor
    }

    /// From a major and a minor number; none if they don't fit 12 and 20 bits.
    pub const fn new(major: u32, minor: u32) -> Option<Self> {
        if major >> (32 - Self::MINOR_BITS) != 0 || minor >> Self::MINOR_BITS != 0 {
            return None;
        }
        Some(Self { major, minor })
    }

    /// As `stat` returns it.
    pub const fn dev_t(self) -> u64 {
        makedev(self.major as u64, self.minor as u64)
    }

    fn of_device(path: &Path) -> Result<Self, Untrackable> {
        let found = stat(path).map_err(|error| Untrackable::read(path, error.into()))?;
        if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFBLK {
            return Err(Untrackable::NotABlockDevice(path.to_owned()));
        }
        let halves = [major(found.st_rdev), minor(found.st_rdev)].map(u32::try_from);
        let number = match halves {
            [Ok(major), Ok(minor)] => Self::new(major, minor),
            _ => None,
        };
        number.ok_or_else(|| Untrackable::NotABlockDevice(path.to_owned()))
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// How a disk takes I/O, which decides by which hooks its writes are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskClass {
    /// Through the multi-queue layer: virtio, SCSI, NVMe, loop, nbd and others.
    RequestBased,
    /// Taking bios as they come: device mapper, md, zram, bcache and others.
    BioBased,
    /// Taking bios and handing each to one of several hidden disks, its paths, whose requests are
    /// what is seen: NVMe multipath.
    Multipath,
}

impl fmt::Display for DiskClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequestBased => "request-based",
            Self::BioBased => "bio-based",
            Self::Multipath => "multipath",
        })
    }
}

/// A partition of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its name, as in `/dev`.
    pub name: String,
    /// Its number in the partition table.
    pub index: u32,
    /// Its first sector on the disk.
    pub start: u64,
    /// Its length in sectors.
    pub sectors: u64,
}

/// What tells one disk from another, beyond its name. Either may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HardwareIdentity {
    /// The serial number.
    pub serial: Option<String>,
    /// The world-wide name, or what the kernel has in its place (a UUID of the device mapper).
    pub wwn: Option<String>,
}

/// A whole disk that can be tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name, as in `/dev`.
    pub name: String,
    /// Its node.
    pub path: PathBuf,
    /// Its number.
    pub number: DeviceNumber,
    /// Its length in sectors of 512 bytes.
    pub sectors: u64,
    /// Its logical block size in bytes.
    pub logical_block: u32,
    /// How it takes I/O.
    pub class: DiskClass,
    /// Grows with every disk that appears; 0 on kernels before 5.15.
    pub sequence: u64,
    /// What its hardware says of itself.
    pub identity: HardwareIdentity,
    /// Its partitions, by number.
    pub partitions: Vec<Partition>,
    /// What its statistics count.
    pub accounting: Accounting,
}

impl Device {
    /// Its shape, at this chunk size.
    ///
    /// # Errors
    /// If no disk of ours can have that shape.
    pub fn geometry(&self, chunk: ChunkSize) -> Result<Geometry, blocks::GeometryError> {
        Geometry::new(self.sectors, self.logical_block, chunk)
    }

    /// Its statistics now.
    ///
    /// # Errors
    /// If they can't be read, which is so when the disk is gone.
    pub fn statistics(&self) -> io::Result<DiskStatistics> {
        DiskStatistics::read(self.number)
    }

    /// Whether its statistics are kept.
    ///
    /// # Errors
    /// If that can't be read, which is so when the disk is gone.
    pub fn keeps_statistics(&self) -> io::Result<bool> {
        let on = fs::read_to_string(sysfs::directory(self.number).join("queue/iostats"))?;
        Ok(on.trim() != "0")
    }

    /// Makes the kernel keep its statistics, without which tracking could not be checked.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn enable_statistics(&self) -> Result<(), Untrackable> {
        let switch = sysfs::directory(self.number).join("queue/iostats");
        let enabled = || -> io::Result<bool> {
            if !self.keeps_statistics()? {
                fs::write(&switch, "1")?;
            }
            self.keeps_statistics()
        };
        match enabled() {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Untrackable::NoStatistics(self.name.clone())),
        }
    }
}

/// Finds the whole disk behind `path`, which may be a partition of it, and whether it can be
/// tracked.
///
/// # Errors
/// Why it can't be.
pub fn probe(path: &Path) -> Result<Device, Untrackable> {
    let attributes = Attributes::of_whole_disk(DeviceNumber::of_device(path)?)
        .map_err(|source| Untrackable::read(path, source))?;
    let device = describe(&attributes).map_err(|source| Untrackable::read(path, source))?;
    refusal::check(&device, &attributes).map(|()| device)
}

/// The names of all whole disks that hold something, as in `/dev`, in order.
///
/// # Errors
/// If sysfs can't be read.
pub fn whole_disks() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let attributes = Attributes::at(entry.path());
        let hidden = attributes.number("hidden").is_ok_and(|hidden| hidden != 0);
        let empty = attributes.number("size").is_ok_and(|sectors| sectors == 0);
        if !hidden && !empty {
            names.extend(entry.file_name().to_str().map(sysfs::device_name));
        }
    }
    names.sort();
    Ok(names)
}

/// How many writes to a disk are under way; none if it is not known.
pub fn writes_in_flight(number: DeviceNumber) -> Option<u64> {
    let reads_and_writes = Attributes::at(sysfs::directory(number)).text("inflight").ok()?;
    reads_and_writes.split_whitespace().nth(1)?.parse().ok()
}

/// The paths that a multipath disk has at the moment.
///
/// # Errors
/// If the disk is gone, or the kernel's statistics, which alone tell of paths, can't be read.
pub fn paths(head: DeviceNumber) -> io::Result<Vec<DeviceNumber>> {
    multipath::paths(&Attributes::of_whole_disk(head)?.device_name())
}

/// The habits of a disk's driver, as the programs know them.
///
/// NVMe has commands without data that write (write zeroes, write uncorrectable), and hardly others.
/// SCSI has some, but many more that only ask, and that monitors send all the time.
pub fn habits(number: DeviceNumber) -> u32 {
    let Ok(attributes) = Attributes::of_whole_disk(number) else { return 0 };
    let name = attributes.device_name();
    if name.starts_with("nvme") {
        limits::BARE_COMMANDS_WRITE
    } else if name.starts_with("md") {
        limits::TURNS_AWAY_UNCOUNTED
    } else {
        0
    }
}

fn describe(attributes: &Attributes) -> io::Result<Device> {
    let name = attributes.device_name();
    let logical_block = attributes.number("queue/logical_block_size")?;
    let class = if multipath::is_head(attributes.directory()) {
        DiskClass::Multipath
    } else if attributes.has("mq") {
        DiskClass::RequestBased
    } else {
        DiskClass::BioBased
    };
    Ok(Device {
        path: Path::new("/dev").join(&name),
        number: attributes.device_number()?,
        sectors: attributes.number("size")?,
        logical_block: u32::try_from(logical_block).map_err(io::Error::other)?,
        class,
        sequence: attributes.number("diskseq").unwrap_or(0),
        identity: identity(attributes),
        partitions: partitions(attributes)?,
        accounting: Accounting::of(&name),
        name,
    })
}

/// Drivers keep these under different names.
fn identity(attributes: &Attributes) -> HardwareIdentity {
    let first = |names: &[&str]| {
        let texts = names.iter().filter_map(|name| attributes.text(name).ok());
        texts.map(|text| text.trim().to_owned()).find(|text| !text.is_empty())
    };
    HardwareIdentity {
        serial: first(&["serial", "device/serial", "device/vpd_serial"]),
        wwn: first(&["wwid", "device/wwid", "dm/uuid", "md/uuid"]),
    }
}

fn partitions(attributes: &Attributes) -> io::Result<Vec<Partition>> {
    let mut partitions = Vec::new();
    for part in attributes.children()? {
        let Ok(index) = part.number("partition") else { continue };
        partitions.push(Partition {
            name: part.device_name(),
            index: u32::try_from(index).map_err(io::Error::other)?,
            start: part.number("start")?,
            sectors: part.number("size")?,
        });
    }
    partitions.sort_by_key(|part| part.index);
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_number_has_twelve_bits_of_major() {
        let number = DeviceNumber::new(254, 16).unwrap();
        assert_eq!(number.devt(), 254 << 20 | 16);
        assert_eq!(DeviceNumber::from_devt(number.devt()), number);
        assert_eq!(number.to_string(), "254:16");
        assert_eq!(DeviceNumber::new(1 << 12, 0), None);
        assert_eq!(DeviceNumber::new(0, 1 << 20), None);
    }

    #[test]
    fn what_is_no_block_device_is_refused_in_words() {
        let refused = probe(Path::new("/dev/null")).unwrap_err();
        assert_eq!(refused.to_string(), "/dev/null is not a block device");
        let refused = probe(Path::new("/dev/not-there")).unwrap_err();
        assert!(matches!(refused, Untrackable::Read { .. }));
    }
}
