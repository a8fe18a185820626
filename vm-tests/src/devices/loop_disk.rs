//! Loop disks over a file in the rig.

use std::{
    fs::{self, File},
    ops::Deref,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use blocks::ByteLen;
use nix::{errno::Errno, libc};

use super::{BlockDevice, ioctl, whole_sectors};
use crate::Rig;

/// How often a free loop device is asked for: others may take it between question and use.
const ATTEMPTS: usize = 100;

/// What kind of loop disk.
#[derive(Clone, Copy, Debug)]
pub struct LoopSpec {
    /// Its length, a multiple of the logical block.
    pub len: ByteLen,
    /// Its logical block in bytes: 512 to 4096.
    pub logical_block: u32,
    /// Whether its file is read and written past the page cache. Not on every file system.
    pub direct: bool,
}

impl LoopSpec {
    /// A disk of this length with logical blocks of 512 bytes.
    pub const fn new(len: ByteLen) -> Self {
        Self { len, logical_block: 512, direct: false }
    }
}

/// A loop disk over a sparse file, unbound when dropped.
///
/// The kernel unbinds it too when its last opener is gone, so a killed process leaves none.
pub struct LoopDisk {
    device: BlockDevice,
    backing: PathBuf,
    handle: File,
    _rig: Rig,
}

impl LoopDisk {
    /// A new disk over a new sparse file in `rig`.
    pub fn create(rig: &Rig, spec: LoopSpec) -> Result<Self> {
        Self::create_at(rig, &rig.fresh("loop"), spec)
    }

    /// A new disk over a new sparse file at `backing`, wherever that is.
    pub fn create_at(rig: &Rig, backing: &Path, spec: LoopSpec) -> Result<Self> {
        let backing = backing.to_owned();
        // The driver does to its file what the file was opened for.
        let flags = if spec.direct { libc::O_DIRECT } else { 0 };
        let mut options = File::options();
        options.read(true).write(true).create_new(true).custom_flags(flags);
        let file = options.open(&backing);
        let file = file.with_context(|| format!("making {}", backing.display()))?;
        file.set_len(whole_sectors(spec.len)? * blocks::SECTOR_SIZE).context("sizing a disk")?;
        Self::bind(rig, backing, &file, spec.logical_block)
    }

    /// A disk over an image that is there, which goes with the disk.
    pub fn over(rig: &Rig, image: PathBuf, logical_block: u32) -> Result<Self> {
        let file = File::options().read(true).write(true).open(&image);
        let file = file.with_context(|| format!("opening {}", image.display()))?;
        Self::bind(rig, image, &file, logical_block)
    }

    fn bind(rig: &Rig, backing: PathBuf, file: &File, logical_block: u32) -> Result<Self> {
        let (name, handle) = bind(file, logical_block)?;
        let device = BlockDevice::open_whole(&name)?;
        Ok(Self { device, backing, handle, _rig: rig.clone() })
    }

    /// Whether the loop device at `path` has a file behind it now.
    pub fn is_bound(path: &Path) -> Result<bool> {
        Ok(backing_files()?.iter().any(|(device, _)| device == path))
    }

    /// The file that holds its content.
    pub fn backing(&self) -> &Path {
        &self.backing
    }
}

impl Deref for LoopDisk {
    type Target = BlockDevice;

    fn deref(&self) -> &BlockDevice {
        &self.device
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // Fails only if it is unbound already. With other openers it goes with the last of them.
        let _ = ioctl::loop_clear(&self.handle);
        let _ = fs::remove_file(&self.backing);
    }
}

fn bind(backing: &File, logical_block: u32) -> Result<(String, File)> {
    let control = open_control()?;
    for _ in 0..ATTEMPTS {
        let name = format!("loop{}", ioctl::loop_get_free(&control).context("a free loop disk")?);
        let device = match File::options().read(true).write(true).open(format!("/dev/{name}")) {
            Ok(device) => device,
            Err(_) => {
                // Its node may take a moment to appear.
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
        };
        match ioctl::loop_configure(&device, backing, logical_block) {
            Ok(()) => return Ok((name, device)),
            Err(Errno::EBUSY | Errno::ENXIO) => {}
            Err(error) => return Err(error).with_context(|| format!("binding {name}")),
        }
    }
    bail!("no loop disk stayed free in {ATTEMPTS} attempts")
}

fn open_control() -> Result<File> {
    let open = || File::options().read(true).write(true).open("/dev/loop-control");
    open()
        .or_else(|_| super::zram::load_module("loop").and_then(|()| Ok(open()?)))
        .context("opening /dev/loop-control: does this kernel have loop devices?")
}

/// Every bound loop device and its backing file.
pub(crate) fn backing_files() -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").context("listing block devices")? {
        let entry = entry?;
        // Only bound loop devices have this file.
        if let Ok(backing) = fs::read_to_string(entry.path().join("loop/backing_file")) {
            let backing = backing.trim_end().trim_end_matches(" (deleted)");
            found.push((Path::new("/dev").join(entry.file_name()), PathBuf::from(backing)));
        }
    }
    Ok(found)
}

/// Unbinds a loop device.
pub(crate) fn detach(device: &Path) -> Result<()> {
    let handle = File::open(device).with_context(|| format!("opening {}", device.display()))?;
    match ioctl::loop_clear(&handle) {
        Ok(()) | Err(Errno::ENXIO) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("unbinding {}", device.display())),
    }
}
