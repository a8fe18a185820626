//! Why a disk can't be tracked.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Device, DiskClass, sysfs::Attributes};
use crate::kernel::Release;

/// Why a disk can't be tracked, as a sentence for its owner.
#[derive(Debug, thiserror::Error)]
pub enum Untrackable {
    /// Something about it could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// What was asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a file, a directory, or another kind of device.
    #[error("{0} is not a block device")]
    NotABlockDevice(PathBuf),
    /// It holds nothing: no medium, or a loop device without a file.
    #[error("{0} is empty: it has no medium, or no file behind it")]
    Empty(String),
    /// It can't be written.
    #[error("{0} is read-only: nothing on it changes")]
    ReadOnly(String),
    /// Programs may write its memory directly.
    #[error("{0} can be written through memory (DAX), without any I/O that could be seen")]
    Dax(String),
    /// Its driver takes single pages past every hook on this kernel.
    #[error(
        "{name} takes pages past the block layer's tracepoints on kernels before 6.3 (this is \
         {release})"
    )]
    PagesPassBy {
        /// The disk.
        name: String,
        /// The kernel's release.
        release: String,
    },
    /// Its kernel counts the I/O of a multipath disk on its paths only, which come and go.
    #[error(
        "{name} is an NVMe multipath device, of which kernels before 6.2 keep no statistics (this is \
         {release}), so its tracking could not be checked"
    )]
    MultipathUncounted {
        /// The disk.
        name: String,
        /// The kernel's release.
        release: String,
    },
    /// It is a path of a multipath disk.
    #[error("{0} is a hidden path of another disk")]
    Hidden(String),
    /// It hands on the bios it is given, and their completion is not seen.
    #[error("{0} is a linear array, whose completions can't be seen: protect its members")]
    LinearArray(String),
    /// It has write pointers.
    #[error("{0} is a zoned disk, which can't be tracked")]
    Zoned(String),
    /// Its statistics can't be switched on.
    #[error("the I/O statistics of {0} can't be switched on, so its tracking could not be checked")]
    NoStatistics(String),
}

impl Untrackable {
    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }
}

/// The kernel from which no driver has a way for single pages.
const PAGES_DONT_PASS_BY: (u32, u32) = (6, 3);

/// The kernel from which the head of a multipath disk has statistics.
const MULTIPATH_COUNTED: (u32, u32) = (6, 2);

pub(super) fn check(device: &Device, attributes: &Attributes) -> Result<(), Untrackable> {
    let name = || device.name.clone();
    let is_set = |name: &str| attributes.number(name).is_ok_and(|value| value != 0);
    let is = |attribute: &str, value: &str| {
        attributes.text(attribute).is_ok_and(|text| text.trim() == value)
    };
    if is_set("hidden") {
        return Err(Untrackable::Hidden(name()));
    }
    if device.sectors == 0 {
        return Err(Untrackable::Empty(name()));
    }
    if is_set("ro") {
        return Err(Untrackable::ReadOnly(name()));
    }
    if is_set("queue/dax") {
        return Err(Untrackable::Dax(name()));
    }
    if attributes.has("queue/zoned") && !is("queue/zoned", "none") {
        return Err(Untrackable::Zoned(name()));
    }
    if is("md/level", "linear") {
        return Err(Untrackable::LinearArray(name()));
    }
    check_release(device)
}

/// What depends on how old the kernel is.
fn check_release(device: &Device) -> Result<(), Untrackable> {
    let name = || device.name.clone();
    if device.class == DiskClass::Multipath
        && let Some(release) = release_before(MULTIPATH_COUNTED)?
    {
        return Err(Untrackable::MultipathUncounted { name: name(), release });
    }
    if ["zram", "ram", "pmem", "ndblk"].iter().any(|driver| device.name.starts_with(driver))
        && let Some(release) = release_before(PAGES_DONT_PASS_BY)?
    {
        return Err(Untrackable::PagesPassBy { name: name(), release });
    }
    Ok(())
}

/// The running kernel's release, if it is older than a version.
fn release_before(version: (u32, u32)) -> Result<Option<String>, Untrackable> {
    let release = Release::running();
    let release = release.map_err(|source| Untrackable::read(Path::new("uname"), source))?;
    Ok(release.is_before(version).then(|| release.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a disk whose attributes are these, as in sysfs.
    fn verdict(attributes: &[(&str, &str)]) -> Option<String> {
        let dir = std::env::temp_dir().join(format!("pinnace-refusal-{}", std::process::id()));
        for (name, value) in attributes {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value).unwrap();
        }
        let device = Device {
            name: "vdx".into(),
            path: "/dev/vdx".into(),
            number: super::super::DeviceNumber::new(254, 16).unwrap(),
            sectors: 2048,
            logical_block: 512,
            class: DiskClass::RequestBased,
            sequence: 1,
            identity: super::super::HardwareIdentity::default(),
            partitions: Vec::new(),
            accounting: super::super::Accounting::of("vdx"),
        };
        let refusal = check(&device, &Attributes::at(dir.clone())).err();
        std::fs::remove_dir_all(dir).unwrap();
        refusal.map(|refusal| refusal.to_string())
    }

    #[test]
    fn what_no_hook_would_see_is_refused_in_words() {
        let said = |attributes| verdict(attributes).unwrap();
        assert_eq!(verdict(&[("queue/dax", "0"), ("queue/zoned", "none"), ("ro", "0")]), None);
        assert!(said(&[("queue/dax", "1\n")]).contains("through memory (DAX)"));
        assert!(said(&[("queue/zoned", "host-managed\n")]).contains("zoned"));
        assert!(said(&[("md/level", "linear\n")]).contains("protect its members"));
        assert!(said(&[("hidden", "1\n")]).contains("hidden path"));
        assert!(said(&[("ro", "1\n")]).contains("read-only"));
    }
}
