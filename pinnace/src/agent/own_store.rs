//! Is the disk the one that a target of this very host keeps its store on?
//!
//! A running target names its store in a file under [`MARKERS`], which goes with the boot. From
//! the store's directory the way leads down: file system, partition, disk, and on through loop
//! devices and device-mapper tables to what they lie on.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ebpf::device::{Device, DeviceNumber};

use crate::identity::hex;

/// Where running targets name their stores; one file each.
const MARKERS: &str = "/run/pinnace/stores";
/// Devices stacked deeper than this are a loop in what sysfs says.
const DEPTH_MAX: usize = 16;

/// The store that lies on `disk`, if one does.
pub(super) fn on_disk(disk: &Device) -> Result<Option<PathBuf>> {
    let entries = match fs::read_dir(MARKERS) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(format!("reading {MARKERS}")),
    };
    for entry in entries {
        let store = fs::read_to_string(entry?.path()).context("reading the name of a store")?;
        let store = PathBuf::from(store);
        let Ok(metadata) = fs::metadata(&store) else { continue };
        if lies_on(metadata.dev(), disk.number, DEPTH_MAX) {
            return Ok(Some(store));
        }
    }
    Ok(None)
}

/// Names a running target's store, until the guard is dropped.
pub(crate) fn announce(store: &Path) -> Result<StoreMarker> {
    let store = fs::canonicalize(store).with_context(|| format!("finding {}", store.display()))?;
    fs::create_dir_all(MARKERS).with_context(|| format!("creating {MARKERS}"))?;
    let name = hex(&crate::identity::random_bytes::<8>()?);
    let marker = Path::new(MARKERS).join(name);
    fs::write(&marker, store.as_os_str().as_encoded_bytes())
        .with_context(|| format!("writing {}", marker.display()))?;
    Ok(StoreMarker(marker))
}

/// See [`announce`]. A marker left by a killed target names a store that is still one.
pub(crate) struct StoreMarker(PathBuf);

impl Drop for StoreMarker {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

fn lies_on(device: u64, disk: DeviceNumber, depth: usize) -> bool {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let sysfs = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // tmpfs and network file systems lie on no device.
    let Ok(sysfs) = fs::canonicalize(sysfs) else { return false };
    if device == disk.dev_t() {
        return true;
    }
    if depth == 0 {
        return false;
    }
    let below = below(&sysfs);
    below.into_iter().any(|device| lies_on(device, disk, depth - 1))
}

/// The devices that a device lies on.
fn below(sysfs: &Path) -> Vec<u64> {
    let mut devices = Vec::new();
    if sysfs.join("partition").exists() {
        devices.extend(sysfs.parent().and_then(number));
    }
    if let Ok(file) = fs::read_to_string(sysfs.join("loop/backing_file")) {
        devices.extend(fs::metadata(file.trim_end()).map(|metadata| metadata.dev()));
    }
    let slaves = fs::read_dir(sysfs.join("slaves")).into_iter().flatten().flatten();
    devices.extend(slaves.filter_map(|slave| number(&slave.path())));
    devices
}

fn number(sysfs: &Path) -> Option<u64> {
    let text = fs::read_to_string(sysfs.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(nix::sys::stat::makedev(major.parse().ok()?, minor.parse().ok()?))
}
