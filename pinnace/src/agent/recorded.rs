//! Finding a disk on record again, whatever name it has now.
//!
//! The kernel gives out names in the order in which disks appear, so after a restart of the
//! machine, or a change of cables, another disk may have the name. Taking that one up would make
//! the replica of the first a copy of the second. So a name decides nothing: what the hardware says
//! of itself does, or for hardware that says nothing, the identifier of the partition table or file
//! system on the disk. Two disks that say the same are both refused.

use std::path::Path;

use anyhow::{Result, anyhow};
use ebpf::device::{Device, probe, whole_disks};

use super::content;
use super::state::DiskRecord;

/// A disk on record that was not taken up.
#[derive(Clone, Debug)]
pub(super) struct AbsentDisk {
    pub(super) record: DiskRecord,
    /// Why, in words.
    pub(super) problem: String,
}

/// What tells a disk from others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Marks {
    serial: Option<String>,
    wwn: Option<String>,
    /// The identifier on the disk.
    content: Option<String>,
    /// The kernel's sequence number in this boot; of a record of another boot, none.
    sequence: Option<u64>,
}

/// Why a disk is not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotFound {
    /// No disk says that it is it.
    Missing,
    /// Nothing was ever known by which it could be told from others.
    Unmarked,
    /// Two say that they are it.
    Twice(usize, usize),
}

impl Marks {
    fn of_device(device: &Device) -> Self {
        let says_nothing = device.identity.serial.is_none() && device.identity.wwn.is_none();
        Self {
            serial: device.identity.serial.clone(),
            wwn: device.identity.wwn.clone(),
            content: says_nothing.then(|| content::identifier(&device.path)).flatten(),
            sequence: Some(device.sequence),
        }
    }

    fn of_record(record: &DiskRecord, boot_id: &str) -> Self {
        Self {
            serial: record.serial.clone(),
            wwn: record.wwn.clone(),
            content: record.content.clone(),
            sequence: (record.boot_id == boot_id).then_some(record.disk_sequence),
        }
    }

    /// Which of the disks there are this one is.
    fn choose(&self, disks: &[Self]) -> Result<usize, NotFound> {
        let hardware = self.serial.is_some() || self.wwn.is_some();
        let is_it = |disk: &&Self| match (hardware, self.sequence) {
            (true, _) => (&disk.serial, &disk.wwn) == (&self.serial, &self.wwn),
            // Within one boot a disk without marks keeps its number, whatever is written to it.
            (false, Some(sequence)) => disk.sequence == Some(sequence) && disk.says_nothing(),
            (false, None) => disk.says_nothing() && disk.content == self.content,
        };
        if !hardware && self.sequence.is_none() && self.content.is_none() {
            return Err(NotFound::Unmarked);
        }
        let mut found = disks.iter().enumerate().filter(|(_, disk)| is_it(disk));
        match (found.next(), found.next()) {
            (Some((one, _)), None) => Ok(one),
            (Some((one, _)), Some((other, _))) => Err(NotFound::Twice(one, other)),
            (None, _) => Err(NotFound::Missing),
        }
    }

    fn says_nothing(&self) -> bool {
        self.serial.is_none() && self.wwn.is_none()
    }
}

/// The disk that `record` was made of, under its name or another.
pub(super) fn find(record: &DiskRecord, boot_id: &str) -> Result<Device> {
    let mut devices = devices()?;
    let marks: Vec<Marks> = devices.iter().map(Marks::of_device).collect();
    match Marks::of_record(record, boot_id).choose(&marks) {
        Ok(index) => Ok(devices.swap_remove(index)),
        Err(NotFound::Twice(one, other)) => Err(anyhow!(
            "{} and {} both say that they are it; take one of them away",
            devices[one].name,
            devices[other].name
        )),
        Err(NotFound::Missing) => {
            let named = probe(&record.path).is_ok();
            let also = if named { ", and another has its name" } else { "" };
            Err(anyhow!(
                "no disk of this machine says that it is it{also}; its replica is kept as it is"
            ))
        }
        Err(NotFound::Unmarked) => Err(anyhow!(
            "nothing tells it from other disks after a restart of the machine: no serial number, no \
             partition table, no file system; `pinnace unprotect` and `pinnace protect` replicate it \
             anew"
        )),
    }
}

/// The name of another disk that says it is the same as this one, if there is one.
pub(super) fn double_of(device: &Device) -> Result<Option<String>> {
    let marks = Marks::of_device(device);
    let marked = !marks.says_nothing() || marks.content.is_some();
    let same = |other: &Device| {
        let others = Marks::of_device(other);
        other.number != device.number && Marks { sequence: marks.sequence, ..others } == marks
    };
    let found = devices()?.into_iter().find(|other| marked && same(other));
    Ok(found.map(|other| other.name))
}

fn devices() -> Result<Vec<Device>> {
    let probed = whole_disks()?.into_iter().map(|name| probe(&Path::new("/dev").join(name)));
    Ok(probed.flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hardware(serial: &str, wwn: &str) -> Marks {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Marks { serial: text(serial), wwn: text(wwn), ..Marks::default() }
    }

    fn unmarked(content: &str, sequence: u64) -> Marks {
        let content = (!content.is_empty()).then(|| content.to_owned());
        Marks { content, sequence: Some(sequence), ..Marks::default() }
    }

    #[test]
    fn hardware_that_says_who_it_is_decides_whatever_is_on_it() {
        let wanted = Marks { sequence: Some(3), ..hardware("s1", "w1") };
        let moved = Marks { sequence: Some(9), content: Some("u".into()), ..hardware("s1", "w1") };
        let exchanged = Marks { sequence: Some(3), ..hardware("s2", "w1") };
        assert_eq!(wanted.choose(&[exchanged.clone(), moved.clone()]), Ok(1));
        let alone = std::slice::from_ref(&exchanged);
        assert_eq!(wanted.choose(alone), Err(NotFound::Missing));
        assert_eq!(wanted.choose(&[moved.clone(), exchanged, moved]), Err(NotFound::Twice(0, 2)));
    }

    #[test]
    fn a_disk_that_says_nothing_is_known_by_its_number_or_by_what_is_on_it() {
        let same_boot = unmarked("u1", 3);
        // Made anew since, and another with the old content.
        assert_eq!(same_boot.choose(&[unmarked("u1", 8), unmarked("u2", 3)]), Ok(1));
        assert_eq!(same_boot.choose(&[unmarked("u1", 8)]), Err(NotFound::Missing));
        let other_boot = Marks { sequence: None, ..unmarked("u1", 3) };
        assert_eq!(other_boot.choose(&[unmarked("u2", 3), unmarked("u1", 1)]), Ok(1));
        let twice = other_boot.choose(&[unmarked("u1", 3), unmarked("u1", 1)]);
        assert_eq!(twice, Err(NotFound::Twice(0, 1)));
        let hardware = Marks { content: Some("u1".into()), ..hardware("s1", "") };
        assert_eq!(other_boot.choose(&[hardware]), Err(NotFound::Missing));
        let blank = Marks { sequence: None, ..unmarked("", 3) };
        assert_eq!(blank.choose(&[unmarked("", 3)]), Err(NotFound::Unmarked), "never by its name");
    }
}
