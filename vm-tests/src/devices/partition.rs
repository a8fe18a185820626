//! Partitions of a disk, known to the kernel only: no table is written.

use std::{fs::File, ops::Deref, os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use blocks::Extent;

use super::{BlockDevice, ioctl, to_u32};

/// A partition, removed when dropped. Drop it before its disk.
pub struct Partition {
    device: BlockDevice,
    disk: File,
    number: i32,
    extent: Extent,
}

impl Partition {
    /// Partition `number`, 1 and up, over a range of `disk`.
    pub fn create(disk: &BlockDevice, number: i32, extent: Extent) -> Result<Self> {
        let handle = File::options().read(true).write(true).open(disk.path());
        let handle = handle.with_context(|| format!("opening {}", disk.name()))?;
        ioctl::partition_add(&handle, number, extent)
            .with_context(|| format!("making partition {number} of {}", disk.name()))?;
        // From here on the guard undoes it.
        let name = partition_name(disk.name(), number);
        let device = BlockDevice {
            path: PathBuf::from("/dev").join(&name),
            name,
            number: (0, 0),
            sectors: extent.sectors,
            logical_block: disk.logical_block(),
        };
        let mut partition = Self { device, disk: handle, number, extent };
        partition.device.number = partition.wait_for_node()?;
        Ok(partition)
    }

    /// Its range of the whole disk.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    fn wait_for_node(&self) -> Result<(u32, u32)> {
        for _ in 0..200 {
            if let Ok(found) = self.device.path.metadata() {
                let device = found.rdev();
                let major = to_u32(nix::sys::stat::major(device))?;
                return Ok((major, to_u32(nix::sys::stat::minor(device))?));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("{} does not appear", self.device.path.display())
    }
}

impl Deref for Partition {
    type Target = BlockDevice;

    fn deref(&self) -> &BlockDevice {
        &self.device
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        for _ in 0..250 {
            match ioctl::partition_delete(&self.disk, self.number) {
                Err(nix::errno::Errno::EBUSY) => std::thread::sleep(Duration::from_millis(20)),
                _ => return,
            }
        }
        eprintln!("{} stays in use", self.device.name);
    }
}

/// `loop0p1` and `nvme0n1p1`, but `sda1`: a digit at the end asks for a `p`.
fn partition_name(disk: &str, number: i32) -> String {
    let separator = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{separator}{number}")
}
