//! Undoing what a rig left: processes, mounts, loop disks, zram disks, files, in this order.
//!
//! What is undone is proven to be the rig's: a process by its start time, a mount by its mount
//! point, a loop disk by its backing file, a zram disk by the kernel's sequence number of it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::Thing;
use crate::{
    daemon::process_started,
    devices::{loop_backing_files, loop_detach, zram_remove, zram_sequence},
};

/// Cleans every rig under `root` whose process is gone. The caller holds the birth lock.
pub(super) fn sweep(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root).context("listing rigs")? {
        let path = entry?.path();
        if path.is_dir() && is_abandoned(&path) {
            clean(&path).with_context(|| format!("sweeping {}", path.display()))?;
        }
    }
    Ok(())
}

/// Undoes everything that the rig at `path` owns, and removes it.
pub(super) fn clean(path: &Path) -> Result<()> {
    let things = things(path)?;
    for thing in &things {
        if let Thing::Process { id, started } = *thing {
            kill_process(id, started);
        }
    }
    for mount in mounts_below(path)? {
        umount2(&mount, MntFlags::MNT_DETACH)
            .with_context(|| format!("unmounting {}", mount.display()))?;
    }
    for (device, backing) in loop_backing_files()? {
        if backing.starts_with(path) {
            loop_detach(&device)?;
        }
    }
    for thing in &things {
        if let Thing::Zram { number, sequence } = *thing
            && zram_sequence(number) == Some(sequence)
        {
            zram_remove(number)?;
        }
    }
    fs::remove_dir_all(path).with_context(|| format!("removing {}", path.display()))
}

fn is_abandoned(path: &Path) -> bool {
    // A rig without a lock file died between its birth and its lock: nobody holds it.
    match fs::File::open(path.join("lock")) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn things(path: &Path) -> Result<Vec<Thing>> {
    let mut things = Vec::new();
    for entry in fs::read_dir(path).context("listing a rig")? {
        things.extend(entry?.file_name().to_str().and_then(Thing::from_name));
    }
    Ok(things)
}

/// Kills the process if it is still the one that was recorded, and waits until it is gone.
fn kill_process(id: u32, started: u64) {
    let Ok(raw) = i32::try_from(id) else { return };
    for _ in 0..100 {
        if process_started(id) != Some(started) {
            return;
        }
        // It may end between the check and the signal, which is what is wanted.
        let _ = kill(Pid::from_raw(raw), Signal::SIGKILL);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The mount points in `path`, the last mounted first.
fn mounts_below(path: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(path)).collect();
    points.reverse();
    Ok(points)
}
