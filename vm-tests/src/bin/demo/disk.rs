//! One disk of the demo: made, formatted, mounted, in use.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use serde_json::Value;
use vm_tests::{
    BlockDevice, Durable, FileWorkload, Filesystem, LoopDisk, LoopSpec, Mounted, Pace, Random, Rig,
    Site, WorkloadReport, ZramDisk,
};

/// An application, not a benchmark: some hundred files a second. What it deletes is discarded by
/// the file system as it goes; a trim of all free space would mark that as changed, and have a
/// disk this empty compared instead of followed.
const PACE: Pace = Pace { pause: Duration::from_millis(4), trim_every: u64::MAX };

/// What each disk holds before anything is protected.
const ARCHIVE_LEN: ByteLen = ByteLen(192 << 20);
const PADDING: &[u8] = b"the rest of the line is the same in every line, as it is in logs, tables and mail; the rest of the line is the same in every line, as it is in logs, tables and mail; the rest of the line is the same in every line, as it is in logs, tables and mail; all told";

/// A disk with a file system that an application uses.
pub(crate) struct DemoDisk {
    // In the order in which they must be undone.
    application: Option<FileWorkload>,
    mounted: Option<Mounted>,
    pub(crate) filesystem: Filesystem,
    device: Device,
}

enum Device {
    Loop(LoopDisk),
    Zram(ZramDisk),
}

impl DemoDisk {
    /// A loop disk over a file in memory.
    pub(crate) fn on_loop(rig: &Rig, len: ByteLen, filesystem: Filesystem) -> Result<Self> {
        Ok(Self::of(Device::Loop(LoopDisk::create(rig, LoopSpec::new(len))?), filesystem))
    }

    /// A zram disk.
    pub(crate) fn on_zram(rig: &Rig, len: ByteLen, filesystem: Filesystem) -> Result<Self> {
        Ok(Self::of(Device::Zram(ZramDisk::create(rig, len)?), filesystem))
    }

    fn of(device: Device, filesystem: Filesystem) -> Self {
        Self { application: None, mounted: None, filesystem, device }
    }

    pub(crate) fn device(&self) -> &BlockDevice {
        match &self.device {
            Device::Loop(disk) => disk,
            Device::Zram(disk) => disk,
        }
    }

    pub(crate) fn name(&self) -> String {
        self.device().name().to_string()
    }

    /// Makes the file system, mounts it and starts an application that never rests.
    pub(crate) fn put_to_use(&mut self, rig: &Rig, seed: u64) -> Result<()> {
        self.filesystem.make(self.device())?;
        let mounted = Mounted::mount(rig, self.device(), self.filesystem, "discard")?;
        fill(&mounted.path().join("archive"), seed).context("filling the disk")?;
        self.application = Some(FileWorkload::start_at(mounted.path(), seed, u64::MAX, PACE)?);
        self.mounted = Some(mounted);
        Ok(())
    }

    /// Stops the application and unmounts: from here on the disk is quiet.
    pub(crate) fn retire(&mut self) -> Result<(WorkloadReport, Durable)> {
        let application = self.application.take().context("the application was started")?;
        let result = application.stop().context("the application")?;
        self.mounted.take().context("the file system was mounted")?.unmount()?;
        Ok(result)
    }

    /// What must be whole in every point from now on.
    pub(crate) fn durable(&self) -> Result<Durable> {
        Ok(self.application.as_ref().context("the application was started")?.durable())
    }

    /// The agent's view of the disk.
    pub(crate) fn status(&self, site: &Site) -> Result<Value> {
        site.disk(&self.name())
    }
}

/// How an image is mounted.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    /// The file system was unmounted, and writes not a byte of it.
    Clean,
    /// It was in use, and replays its log, as after a crash.
    InUse,
}

/// Mounts an image, and unmounts it after the look.
pub(crate) fn with_image_mounted(
    rig: &Rig,
    image: &Path,
    access: Access,
    look: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let root = rig.fresh("image-root");
    fs::create_dir(&root)?;
    let options = match access {
        Access::Clean => "ro,loop",
        Access::InUse => "loop",
    };
    let mount = Command::new("mount").args(["-o", options]).arg(image).arg(&root).status();
    ensure!(mount.context("running mount")?.success(), "mounting {}", image.display());
    let looked = look(&root);
    let unmount = Command::new("umount").arg(&root).status().context("running umount")?;
    ensure!(unmount.success(), "unmounting {}", root.display());
    looked
}

/// Writes a file that is half text and half noise, as a disk in use would hold.
fn fill(path: &Path, seed: u64) -> std::io::Result<()> {
    let mut random = Random::new(seed);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for line in 0..ARCHIVE_LEN.0 / 256 {
        if line / 4096 % 2 == 0 {
            let text = format!(
                "line {line}: {:>8} units of {:>6} at {:>4}\n",
                random.below(1 << 20),
                random.below(1 << 16),
                random.below(1 << 10)
            );
            let padding = 256 - text.len();
            file.write_all(text.as_bytes())?;
            file.write_all(&PADDING[..padding])?;
        } else {
            for _ in 0..32 {
                file.write_all(&random.below(u64::MAX).to_le_bytes())?;
            }
        }
    }
    file.into_inner()?.sync_all()
}
