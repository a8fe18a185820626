//! File systems: made, used, trimmed and unmounted on a tracked disk.

use anyhow::{Result, ensure};
use blocks::ByteLen;
use vm_guest::tracked::{Tolerance, Tracked};
use vm_tests::{BlockDevice, FileWorkload, Filesystem, LoopDisk, LoopSpec, Mounted, Rig, ZramDisk};

/// The smallest that mkfs.xfs makes, and a little.
const DISK: ByteLen = ByteLen(320 << 20);
const STEPS: u64 = 600;

fn observe(
    rig: &Rig,
    disk: &BlockDevice,
    filesystem: Filesystem,
    tolerance: Tolerance,
) -> Result<()> {
    let tracked = Tracked::attach(rig, disk)?;
    filesystem.make(disk)?;
    let mounted = Mounted::mount(rig, disk, filesystem, "discard")?;
    let (report, durable) = FileWorkload::start(mounted.path(), 7, STEPS)?.finish()?;
    ensure!(report.written > 200 && report.deleted > 10, "{report:?}");
    durable.check(mounted.path())?;
    mounted.unmount()?;
    disk.wait_idle()?;
    let observed = tracked.observe()?;
    ensure!(observed.changed.count() > 1000, "{:?} changed little", observed.changed);
    observed.judge("changed", &observed.changed, tolerance)
}

#[test]
fn ext4_on_zram() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    observe(&rig, &*ZramDisk::create(&rig, DISK)?, Filesystem::Ext4, Tolerance::None)
}

#[test]
fn xfs_on_zram() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    observe(&rig, &*ZramDisk::create(&rig, DISK)?, Filesystem::Xfs, Tolerance::None)
}

#[test]
fn ext4_on_loop() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(DISK))?;
    observe(&rig, &disk, Filesystem::Ext4, Tolerance::IfDetected)
}

#[test]
fn xfs_on_loop() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(DISK))?;
    observe(&rig, &disk, Filesystem::Xfs, Tolerance::IfDetected)
}
