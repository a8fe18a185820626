//! Virtual machines: Debian's kernels, with a first file system made for the test, under QEMU.
//!
//! Everything comes from Debian's archive by apt, is unpacked into a cache and run from there:
//! [`Vm`] is that cache. A [`Guest`] is a machine at work; its disks are files, so that it can be
//! killed at any time and booted again with the same disks. Needs root, as rigs do, and no network
//! once the cache is filled.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

mod accelerator;
mod cpio;
mod debian;
mod guest;
mod initramfs;
mod kernel;
mod machine;
pub mod protocol;
mod userland;

pub use guest::Guest;
pub use initramfs::Initramfs;
pub use kernel::{Kernel, Series};
pub use machine::{Accelerator, Attachment, MachineSpec, VmDisk};
pub use userland::Userland;

use crate::Rig;

/// The cache, if not `vm` in the directory that cargo builds in.
const CACHE_VARIABLE: &str = "PINNACE_VM_CACHE";

/// A guest that is translated may take so long to come up on a machine under load.
const BOOT: Duration = Duration::from_secs(180);

/// Kernels and programs for guests, fetched as they are asked for.
pub struct Vm {
    cache: PathBuf,
    userland: Userland,
    rig: Rig,
}

impl Vm {
    /// Opens the cache, and fetches the guests' programs if they are not there.
    pub fn open(rig: &Rig) -> Result<Self> {
        let cache = cache_directory();
        fs::create_dir_all(&cache).context("making the cache of virtual machines")?;
        let userland = Userland::open(&cache)?;
        Ok(Self { cache, userland, rig: rig.clone() })
    }

    /// A kernel of Debian's.
    pub fn kernel(&self, series: Series) -> Result<Kernel> {
        Kernel::open(&self.cache, &self.userland, series)
            .with_context(|| format!("the kernel of series {series}"))
    }

    /// The guests' programs.
    pub fn userland(&self) -> &Userland {
        &self.userland
    }

    /// A machine that boots a kernel with an image, without disks yet.
    pub fn machine(&self, kernel: &Kernel, image: &Initramfs) -> Result<MachineSpec> {
        let path = self.rig.fresh("initramfs");
        image.write(&path)?;
        Ok(MachineSpec::new(kernel.image(), path))
    }

    /// What runs guests fastest here; boots `kernel` for a moment to find out.
    pub fn accelerator(&self, kernel: &Kernel) -> Result<Accelerator> {
        accelerator::find(&self.cache, &self.userland, &self.rig, kernel)
    }

    /// Boots a machine, and waits until its guest is up.
    pub fn boot(&self, accelerator: Accelerator, spec: &MachineSpec) -> Result<Guest> {
        self.boot_within(accelerator, spec, BOOT)
    }

    /// The same, with a limit of its own; a guest that is not up by then is ended.
    pub fn boot_within(
        &self,
        accelerator: Accelerator,
        spec: &MachineSpec,
        limit: Duration,
    ) -> Result<Guest> {
        Guest::boot(&self.rig, &self.userland, accelerator, spec, limit)
    }
}

/// A new disk of zeroes in a file of the rig.
pub fn blank(rig: &Rig, len: blocks::ByteLen) -> Result<PathBuf> {
    let path = rig.fresh("vm-disk");
    let file = File::create_new(&path).context("making a disk for a guest")?;
    file.set_len(len.0).context("sizing a disk for a guest")?;
    Ok(path)
}

/// Makes what a file in the cache stands for, unless it is complete: by one process at a time, and
/// from the beginning if another was killed over it.
fn complete(cache: &Path, marker: &Path, make: impl FnOnce() -> Result<String>) -> Result<String> {
    if !marker.exists() {
        let lock = File::create(cache.join("lock")).context("locking the cache")?;
        lock.lock().context("locking the cache")?;
        if !marker.exists() {
            let made = make()?;
            fs::write(marker, made).context("noting that something is in the cache")?;
        }
    }
    fs::read_to_string(marker).with_context(|| format!("reading {}", marker.display()))
}

fn cache_directory() -> PathBuf {
    if let Some(path) = std::env::var_os(CACHE_VARIABLE) {
        return path.into();
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a room lies in it");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    repository.join(target).join("vm")
}
