//! Disks that the rig makes, and what is put on them.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use blocks::{ByteLen, ChunkSize, Geometry, SECTOR_SIZE};

mod ioctl;
mod loop_disk;
mod mount;
mod partition;
mod statistics;
mod zram;

pub(crate) use ioctl::{discard, trim, zero_out};
pub use loop_disk::{LoopDisk, LoopSpec};
pub(crate) use loop_disk::{backing_files as loop_backing_files, detach as loop_detach};
pub use mount::{Filesystem, Mounted};
pub use partition::Partition;
pub use statistics::DiskStatistics;
pub use zram::ZramDisk;
pub(crate) use zram::{remove as zram_remove, sequence as zram_sequence};

/// A block device as the kernel shows it: a whole disk, or a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    path: PathBuf,
    name: String,
    number: (u32, u32),
    sectors: u64,
    logical_block: u32,
}

impl BlockDevice {
    /// The device behind `/dev/NAME`, a whole disk.
    pub fn open_whole(name: &str) -> Result<Self> {
        let path = Path::new("/dev").join(name);
        let found = path.metadata().with_context(|| format!("looking at {}", path.display()))?;
        let device = found.rdev();
        let attribute = |file: &str| -> Result<u64> {
            let path = format!("/sys/block/{name}/{file}");
            let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
            text.trim().parse().with_context(|| format!("{path} holds {text:?}"))
        };
        let logical_block = u32::try_from(attribute("queue/logical_block_size")?)?;
        let number =
            (to_u32(nix::sys::stat::major(device))?, to_u32(nix::sys::stat::minor(device))?);
        let sectors = attribute("size")?;
        Ok(Self { path, name: name.to_owned(), number, sectors, logical_block })
    }

    /// Its path in `/dev`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name in `/sys/block`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its major and minor number.
    pub fn number(&self) -> (u32, u32) {
        self.number
    }

    /// Its length in sectors.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Its logical block in bytes, the alignment of direct I/O.
    pub fn logical_block(&self) -> u32 {
        self.logical_block
    }

    /// Its shape, at a chunk size.
    pub fn geometry(&self, chunk: ChunkSize) -> Result<Geometry> {
        Ok(Geometry::new(self.sectors, self.logical_block, chunk)?)
    }

    /// What the kernel counted on it since it was made.
    pub fn statistics(&self) -> Result<DiskStatistics> {
        DiskStatistics::read(&self.name)
    }

    /// Whether it can discard.
    pub fn can_discard(&self) -> Result<bool> {
        let path = format!("/sys/block/{}/queue/discard_max_bytes", self.name);
        let most = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        Ok(most.trim() != "0")
    }

    /// Waits until nothing is in flight, for at most five seconds.
    pub fn wait_idle(&self) -> Result<()> {
        for _ in 0..500 {
            if self.statistics()?.in_flight == 0 {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        bail!("{} does not become idle", self.name)
    }
}

fn to_u32(number: u64) -> Result<u32> {
    u32::try_from(number).context("a device number of 32 bits")
}

/// A length of whole sectors, for devices that are made by it.
fn whole_sectors(len: ByteLen) -> Result<u64> {
    if len.0 == 0 || !len.0.is_multiple_of(SECTOR_SIZE) {
        bail!("a disk of {} bytes is not a whole number of sectors", len.0);
    }
    Ok(len.0 / SECTOR_SIZE)
}
