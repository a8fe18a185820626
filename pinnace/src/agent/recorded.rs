//! Finding a disk on record again, whatever name it has now.
//!
//! The kernel gives out names in the order in which disks appear, so after a restart of the
//! machine, or a change of cables, another disk may have the name. Taking that one up would make
//! the replica of the first a copy of the second.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use ebpf::device::{Device, probe, whole_disks};

use super::state::DiskRecord;

/// A disk on record that was not taken up.
#[derive(Clone, Debug)]
pub(super) struct AbsentDisk {
    pub(super) record: DiskRecord,
    /// Why, in words.
    pub(super) problem: String,
}

/// The disk that `record` was made of, under its name or another.
///
/// Hardware that says who it is decides. A disk that says nothing is known by the kernel's
/// sequence number within one boot; after that its name has to do.
pub(super) fn find(record: &DiskRecord, boot_id: &str) -> Result<Device> {
    let named = probe(&record.path);
    if !record.says_who_it_is() {
        let device = named?;
        let other = record.boot_id == boot_id && record.disk_sequence != device.sequence;
        if other {
            bail!("another disk has its name now, and its replica is kept as it is");
        }
        return Ok(device);
    }
    if let Ok(device) = named
        && is_of(&device, record)
    {
        return Ok(device);
    }
    let probed = whole_disks()?.into_iter().map(|name| probe(&Path::new("/dev").join(name)));
    let mut found = probed.flatten().filter(|device| is_of(device, record));
    match (found.next(), found.next()) {
        (Some(device), None) => Ok(device),
        (Some(one), Some(other)) => {
            Err(anyhow!("{} and {} both say that they are it", one.name, other.name))
        }
        (None, _) => Err(anyhow!("no disk of this machine says that it is it")),
    }
}

fn is_of(device: &Device, record: &DiskRecord) -> bool {
    device.identity.serial == record.serial && device.identity.wwn == record.wwn
}
