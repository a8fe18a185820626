//! zram disks: in memory, bio-based, completing in the writer's own context.

use std::{fs, ops::Deref, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use blocks::ByteLen;

use super::{BlockDevice, whole_sectors};
use crate::{
    Rig,
    rig::{Recorded, Thing},
};

const CONTROL: &str = "/sys/class/zram-control";

/// A zram disk, removed when dropped.
pub struct ZramDisk {
    device: BlockDevice,
    number: u32,
    record: Option<Recorded>,
}

impl ZramDisk {
    /// A new disk of `len`, a multiple of 4096 bytes; its logical block is 4096 bytes.
    pub fn create(rig: &Rig, len: ByteLen) -> Result<Self> {
        whole_sectors(len)?;
        if !Path::new(CONTROL).exists() {
            load_module("zram").context("this kernel has no zram")?;
        }
        let number = fs::read_to_string(format!("{CONTROL}/hot_add")).context("adding a zram")?;
        let number: u32 = number.trim().parse().context("the number of a new zram")?;
        let record = sequence(number)
            .with_context(|| format!("zram{number} has no sequence number"))
            .and_then(|sequence| rig.record(&Thing::Zram { number, sequence }));
        let sized = record.and_then(|record| {
            let path = format!("/sys/block/zram{number}/disksize");
            fs::write(&path, len.0.to_string()).with_context(|| format!("writing {path}"))?;
            let device = BlockDevice::open_whole(&format!("zram{number}"))?;
            Ok(Self { device, number, record: Some(record) })
        });
        if sized.is_err() {
            remove(number)?;
        }
        sized
    }
}

impl Deref for ZramDisk {
    type Target = BlockDevice;

    fn deref(&self) -> &BlockDevice {
        &self.device
    }
}

impl Drop for ZramDisk {
    fn drop(&mut self) {
        if let Err(error) = remove(self.number) {
            eprintln!("{error:#}");
            // The record stays, and with it the rig, for the sweep after this process.
            std::mem::forget(self.record.take());
        }
    }
}

/// The kernel's sequence number of a zram disk, never given twice in a boot.
pub(crate) fn sequence(number: u32) -> Option<u64> {
    fs::read_to_string(format!("/sys/block/zram{number}/diskseq")).ok()?.trim().parse().ok()
}

/// Removes a zram disk, waiting up to five seconds for those who still have it open.
pub(crate) fn remove(number: u32) -> Result<()> {
    for _ in 0..250 {
        match fs::write(format!("{CONTROL}/hot_remove"), number.to_string()) {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("removing zram{number}")),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("zram{number} stays in use")
}

/// Loads a kernel module that makes no device of its own.
pub(super) fn load_module(name: &str) -> Result<()> {
    let mut command = Command::new("modprobe");
    command.arg(name);
    if name == "zram" {
        command.arg("num_devices=0");
    }
    let status = command.status().context("running modprobe")?;
    ensure!(status.success(), "modprobe {name} failed");
    Ok(())
}
