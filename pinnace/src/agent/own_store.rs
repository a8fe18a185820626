//! Would the disk be replicated into itself, by a target of this very host?
//!
//! That is so if the target's store lies on it, or if it is, or will be, one of the target's replica
//! disks. The other way round, a target must not take a protected disk for a replica.
//!
//! A running target names its store in a file under [`MARKERS`], which goes with the boot. From
//! the store's directory the way leads down: file system, partition, disk, and on through loop
//! devices and device-mapper tables to what they lie on.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use blocks::DiskId;
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
        if layers_above(metadata.dev(), disk.number).is_some() || holds_replica_on(&store, disk) {
            return Ok(Some(store));
        }
    }
    Ok(None)
}

/// Whether a disk is, or is set aside to be, a replica disk of the target with this store.
fn holds_replica_on(store: &Path, disk: &Device) -> bool {
    let mut devices = crate::target::assigned_devices(store);
    let listed = replica::Store::inspect(&crate::target::replicas(store)).unwrap_or_default();
    devices.extend(listed.into_iter().filter_map(|disk| Some(disk.summary.ok()?.base_path)));
    let number = |path: PathBuf| fs::metadata(path).map(|metadata| metadata.rdev()).ok();
    devices.into_iter().filter_map(number).any(|device| device == disk.number.dev_t())
}

/// Where agents name the disks they protect, by the kernel's sequence number, which no other disk
/// of this boot has. One file each, kept while the agent is stopped, since tracking goes on.
const SOURCES: &str = "/run/pinnace/sources";

/// Names a protected disk.
pub(super) fn announce_source(id: DiskId, sequence: u64) -> Result<()> {
    fs::create_dir_all(SOURCES).with_context(|| format!("creating {SOURCES}"))?;
    let marker = Path::new(SOURCES).join(id.to_string());
    fs::write(&marker, sequence.to_string())
        .with_context(|| format!("writing {}", marker.display()))
}

/// A disk is no longer protected.
pub(super) fn withdraw_source(id: DiskId) {
    // A marker that is gone already is as good.
    drop(fs::remove_file(Path::new(SOURCES).join(id.to_string())));
}

/// Whether an agent of this host protects the disk at `path`.
pub(crate) fn is_protected_here(path: &Path) -> Result<bool> {
    let metadata = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?;
    let (major, minor) =
        (nix::sys::stat::major(metadata.rdev()), nix::sys::stat::minor(metadata.rdev()));
    // A partition has none; then the whole disk can't be told apart here, and O_EXCL has to do.
    let sequence = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/diskseq"));
    let Ok(sequence) = sequence else { return Ok(false) };
    let markers = fs::read_dir(SOURCES).into_iter().flatten().flatten();
    let mut marked = markers.filter_map(|marker| fs::read_to_string(marker.path()).ok());
    Ok(marked.any(|marked| marked == sequence.trim()))
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

/// How many layers a device is above a disk: none if it is the disk itself, one for a partition of
/// it; nothing if it does not lie on it.
pub(super) fn layers_above(device: u64, disk: DeviceNumber) -> Option<usize> {
    layers_within(device, disk, DEPTH_MAX)
}

fn layers_within(device: u64, disk: DeviceNumber, depth: usize) -> Option<usize> {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let sysfs = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // tmpfs and network file systems lie on no device.
    let sysfs = fs::canonicalize(sysfs).ok()?;
    if device == disk.dev_t() {
        return Some(0);
    }
    let depth = depth.checked_sub(1)?;
    let below = below(&sysfs).into_iter();
    below.filter_map(|device| layers_within(device, disk, depth)).max().map(|layers| layers + 1)
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
