//! Disks that can't be protected.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use blocks::{ByteLen, Extent, Sector};
use vm_tests::{BlockDevice, Filesystem, LoopDisk, LoopSpec, Mounted, Partition, Rig, Site};

use crate::bystander::{Bystander, PATIENCE, refused, site};

const LEN: ByteLen = ByteLen(64 << 20);

fn protect(site: &Site, path: &std::path::Path) -> Result<std::process::Output> {
    site.try_agent(&["protect", &path.to_string_lossy()])
}

/// Does something while a disk is read-only. The kernel remembers that of a device's name, beyond
/// the disk's end.
fn while_read_only<T>(disk: &BlockDevice, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let set = |flag: &str| -> Result<()> {
        let set = Command::new("blockdev").arg(flag).arg(disk.path()).status();
        ensure!(set.context("running blockdev")?.success(), "blockdev {flag}");
        Ok(())
    };
    set("--setro")?;
    let result = act();
    set("--setrw")?;
    result
}

#[test]
fn what_is_no_disk_is_refused() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut bystander = Bystander::create(&rig)?;
    let read_only = LoopDisk::create(&rig, LoopSpec::new(LEN))?;
    let divided = LoopDisk::create(&rig, LoopSpec::new(LEN))?;
    let part = Extent { start: Sector(2048), sectors: 32768 };
    let partition = Partition::create(&divided, 1, part)?;
    let empty = {
        let disk = LoopDisk::create(&rig, LoopSpec::new(LEN))?;
        disk.path().to_owned()
    };
    let site = site(&rig, None)?;
    bystander.begin(&rig, &site)?;

    let missing = rig.path().join("not-there");
    refused(&protect(&site, &missing)?, 4, &["not-there", "there is no such device"])?;
    let file = rig.fresh("file");
    std::fs::write(&file, "no disk")?;
    refused(&protect(&site, &file)?, 6, &["is not a block device"])?;
    refused(&protect(&site, rig.path())?, 6, &["is not a block device"])?;
    refused(&protect(&site, "/dev/null".as_ref())?, 6, &["is not a block device"])?;
    if !LoopDisk::is_bound(&empty)? {
        refused(&protect(&site, &empty)?, 6, &["is empty"])?;
    }
    let output = while_read_only(&read_only, || protect(&site, read_only.path()))?;
    refused(&output, 6, &[read_only.name(), "is read-only"])?;
    let whole = divided.path().to_string_lossy();
    refused(&protect(&site, partition.path())?, 6, &["is a partition", &whole])?;

    refused(&protect(&site, bystander.disk.path())?, 5, &["is protected already"])?;
    refused(&site.try_agent(&["unprotect", "sdzz", "--yes"])?, 4, &["sdzz is not protected"])?;
    refused(&site.try_agent(&["unprotect", bystander.name()])?, 6, &["--yes"])?;
    refused(&site.try_agent(&["pause", "sdzz"])?, 4, &["sdzz is not protected"])?;
    ensure!(site.status()?["disks"].as_array().map(Vec::len) == Some(1), "more disks than one");
    bystander.end(&site)
}

#[test]
fn of_several_disks_the_good_ones_are_protected() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut bystander = Bystander::create(&rig)?;
    let good = LoopDisk::create(&rig, LoopSpec::new(LEN))?;
    let site = site(&rig, None)?;
    bystander.begin(&rig, &site)?;
    let path = good.path().to_string_lossy();
    let output = site.try_agent(&["protect", "/dev/null", &path])?;
    refused_partly(&output)?;
    site.wait_for_state(good.name(), "protected", PATIENCE)?;
    site.prove(&good, PATIENCE)?;
    bystander.end(&site)
}

fn refused_partly(output: &std::process::Output) -> Result<()> {
    let words = ["/dev/null is not a block device", "1 of 2 disks were not protected"];
    refused(output, 3, &words)
}

#[test]
fn a_disk_is_not_replicated_into_itself() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut bystander = Bystander::create(&rig)?;
    // The store's disk, and below it the disk that holds its image.
    let below = LoopDisk::create(&rig, LoopSpec::new(ByteLen(512 << 20)))?;
    Filesystem::Ext4.make(&below)?;
    let outer = Mounted::mount(&rig, &below, Filesystem::Ext4, "")?;
    let disk = LoopDisk::create_at(&rig, &outer.path().join("image"), LoopSpec::new(STORE))?;
    Filesystem::Ext4.make(&disk)?;
    let inner = Mounted::mount(&rig, &disk, Filesystem::Ext4, "")?;
    let store = inner.path().join("store");
    let site = site(&rig, Some(&store))?;
    bystander.begin(&rig, &site)?;
    for device in [&disk, &below] {
        let output = protect(&site, device.path())?;
        refused(&output, 6, &["holds the store of a target", &store.to_string_lossy()])?;
        let output = site.try_agent(&["protect", "--check", &device.path().to_string_lossy()])?;
        refused(&output, 6, &["holds the store of a target"])?;
    }
    bystander.end(&site)?;
    // The store's file system is in use until the target is gone.
    drop(site);
    inner.unmount()?;
    drop(disk);
    outer.unmount()
}

const STORE: ByteLen = ByteLen(256 << 20);
