//! The paths of an NVMe multipath disk, which come and go with their controllers.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use vm_tests::{BlockDevice, wait_until};

/// How many controllers the machine has for its multipath disk.
const CONTROLLERS: usize = 2;

/// For a controller to be found, and its namespaces scanned.
const SOON: Duration = Duration::from_secs(30);

/// The names of the paths that a disk has now: `nvme0c1n1` of `nvme0n1`.
pub(crate) fn of(disk: &BlockDevice) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if controller(disk, &name).is_some() {
            paths.push(name);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Removes all paths but one.
pub(crate) fn leave_one(disk: &BlockDevice) -> Result<()> {
    find_all(disk)?;
    of(disk)?.iter().skip(1).try_for_each(|path| remove(disk, path))
}

/// Removes a path with its controller, as if that were unplugged.
pub(crate) fn remove(disk: &BlockDevice, path: &str) -> Result<()> {
    let controller = controller(disk, path).with_context(|| format!("{path} is no path"))?;
    let switch = PathBuf::from(format!("/sys/class/nvme/nvme{controller}/device/remove"));
    fs::write(&switch, "1").with_context(|| switch.display().to_string())?;
    let rest = of(disk)?;
    ensure!(!rest.is_empty() && !rest.iter().any(|left| left == path), "{path} of {rest:?}");
    Ok(())
}

/// Has all controllers found that are plugged in.
pub(crate) fn find_all(disk: &BlockDevice) -> Result<()> {
    fs::write("/sys/bus/pci/rescan", "1").context("looking for controllers")?;
    wait_until("both paths", SOON, || Ok((of(disk)?.len() == CONTROLLERS).then_some(())))
}

/// The number of the controller of a path, if it is one of this disk.
fn controller(disk: &BlockDevice, path: &str) -> Option<u32> {
    let (subsystem, namespace) = disk.name().strip_prefix("nvme")?.split_once('n')?;
    let rest = path.strip_prefix("nvme")?.strip_prefix(subsystem)?.strip_prefix('c')?;
    rest.strip_suffix(namespace)?.strip_suffix('n')?.parse().ok()
}
