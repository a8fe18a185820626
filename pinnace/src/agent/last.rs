//! The file of a disk's last log: made while there is time, written when there is none, believed once.
//!
//! `tracker::last` has what is in it, `docs/boot.md` why. The agent makes the file as long as the log
//! can become, and notes where it lies in a plan that the initramfs carries; `super::closing` writes
//! it in place at the end of the machine's life.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use blocks::{ByteLen, DiskId, Generation, Geometry, SECTOR_SIZE};
use ebpf::device::{Device, DiskClass, probe};
use storage::{FileExtent, StorePath, extents_of};
use tracker::hrl::Log;
use tracker::last::{self, Boot, Plan, PlannedRecord, RECORD_LEN};

use super::state::AgentState;
use crate::pki::write_private;

/// A log that is longer is not carried over a stop of the machine: so much is read at each start.
const LEN_MAX: usize = RECORD_LEN + (16 << 20);

/// Where the file of a last log lies.
#[derive(Debug)]
pub(super) struct Place {
    /// The disk, or the partition of it, that its file system is on.
    pub(super) device: PathBuf,
    /// The whole disk.
    pub(super) disk: Device,
    /// Where the device begins on the disk, in bytes.
    base: u64,
    /// Where its bytes lie on the device, in order.
    pub(super) pieces: Vec<FileExtent>,
}

impl Place {
    /// Finds out where the file at `path` lies, if it can be written there without its file system.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let pieces = extents_of(&file).context("asking where the log of a stop lies")?;
        let pieces = pieces.context("the log of a stop does not lie on its disk as it is")?;
        let (device, disk) = device_of(&file)?;
        ensure!(
            disk.class != DiskClass::BioBased,
            "the state directory is on {}, which the initramfs has to put together first",
            disk.name
        );
        let name = device.file_name().unwrap_or_default().to_string_lossy();
        let part = disk.partitions.iter().find(|part| part.name == name);
        let base = part.map_or(0, |part| part.start * SECTOR_SIZE);
        let place = Self { device, disk, base, pieces };
        ensure!(
            place.pieces.first().is_some_and(|piece| piece.len >= RECORD_LEN as u64),
            "the log of a stop lies in too many pieces"
        );
        place.keep_clear_of_fingerprint()?;
        Ok(place)
    }

    /// Where the record begins on the whole disk, in bytes.
    pub(super) fn record_at(&self) -> u64 {
        self.base + self.pieces.first().map_or(0, |piece| piece.on_device)
    }

    /// What the log's own bytes change must not be a part of what shows that others wrote.
    fn keep_clear_of_fingerprint(&self) -> Result<()> {
        let looked_at = self.disk.fingerprinted();
        let overlaps = |piece: &FileExtent| {
            let (start, end) =
                (self.base + piece.on_device, self.base + piece.on_device + piece.len);
            let apart = |place: &blocks::Extent| {
                let from = place.start.0 * SECTOR_SIZE;
                end <= from || start >= from + place.len().0
            };
            !looked_at.iter().all(apart)
        };
        ensure!(!self.pieces.iter().any(overlaps), "the log of a stop lies among superblocks");
        Ok(())
    }
}

/// The device that the file system of a file is on, and the whole disk.
fn device_of(file: &File) -> Result<(PathBuf, Device)> {
    let number = file.metadata()?.dev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    if major == 0 {
        bail!("the state directory is on a file system that has no device of its own");
    }
    let sysfs = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))
        .context("finding the disk of the state directory")?;
    let name = sysfs.file_name().unwrap_or_default().to_string_lossy().replace('!', "/");
    let device = Path::new("/dev").join(name);
    let disk = probe(&device)?;
    Ok((device, disk))
}

/// How long the file of a disk's last log is.
pub(super) fn file_len(geometry: Geometry) -> usize {
    last::file_len(geometry).min(LEN_MAX)
}

/// Makes the file of a disk's last log, unless it is there.
pub(super) fn prepare(state: &AgentState, id: DiskId, geometry: Geometry) -> Result<Place> {
    let path = state.last_log(id);
    let len = file_len(geometry);
    let made = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == len as u64);
    if !made {
        // Zeroes that are written: a hole has no place, and what is merely allocated reads as zeroes
        // whatever is written where it lies.
        write_private(&path, &vec![0; len]).context("making room for the log of a stop")?;
    }
    Place::of(&path)
}

/// Notes where the records of all last logs lie, for the initramfs. Returns whether anything has
/// changed: then the initramfs has to be made anew.
pub(super) fn write_plan(state: &AgentState) -> Result<bool> {
    let mut plan = Plan::default();
    for record in state.disks()? {
        let disk = record.disk_id()?;
        if let Ok(place) = Place::of(&state.last_log(disk)) {
            plan.0.push(PlannedRecord { disk, at: place.record_at() });
        }
    }
    let plan = format!(
        "# Where early-attach finds the logs of protected disks. Written by the agent; make the\n\
         # initramfs anew when it changes.\n{plan}"
    );
    let path = state.plan();
    if fs::read_to_string(&path).is_ok_and(|written| written == plan) {
        return Ok(false);
    }
    let mut file = File::create(&path).with_context(|| format!("writing {}", path.display()))?;
    file.write_all(plan.as_bytes()).and_then(|()| file.sync_all()).context("writing the plan")?;
    Ok(true)
}

/// The log that the machine wrote last, if this boot took it as `taken`.
pub(super) fn believed(
    state: &AgentState,
    boot: Boot,
    (id, generation, geometry): (DiskId, Generation, Geometry),
) -> Option<Log> {
    let path = state.last_log(id);
    let len = fs::metadata(&path).ok()?.len();
    if ByteLen(len).0 > LEN_MAX as u64 {
        return None;
    }
    let bytes = fs::read(&path).ok()?;
    last::believed(&bytes, &StorePath::root(), boot, (id, generation, geometry))
}
