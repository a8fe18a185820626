//! One disk of the demo: made, formatted, mounted, in use.

use anyhow::{Context, Result};
use blocks::ByteLen;
use serde_json::Value;
use vm_tests::{
    BlockDevice, Durable, FileWorkload, Filesystem, LoopDisk, LoopSpec, Mounted, Rig, Site,
    WorkloadReport, ZramDisk,
};

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
        self.application = Some(FileWorkload::start(mounted.path(), seed, u64::MAX)?);
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

    /// The agent's view of the disk.
    pub(crate) fn status(&self, site: &Site) -> Result<Value> {
        site.disk(&self.name())
    }
}

/// A number in a status.
pub(crate) fn number(status: &Value, path: &str) -> u64 {
    status.pointer(path).and_then(Value::as_u64).unwrap_or_default()
}
