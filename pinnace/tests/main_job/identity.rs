//! Disks under other names after a restart of the machine, and two that say they are the same.
//!
//! A loop device says nothing of itself, so what is on it must tell. The restart of the machine is
//! one for the agent only: its record says that it was made in another boot.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use serde_json::Value;
use vm_tests::{BlockDevice, Filesystem, LoopDisk, LoopSpec, Mounted, Rig, Site};

use crate::subject::{PATIENCE, site};

const LEN: ByteLen = ByteLen(64 << 20);

/// Makes the agent's record of a disk one of another boot.
fn age(site: &Site, id: &str) -> Result<()> {
    let path = site.agent_state().join("disks").join(format!("{id}.json"));
    let mut record: Value = serde_json::from_slice(&fs::read(&path)?)?;
    record["boot_id"] = "0".repeat(32).into();
    fs::write(&path, serde_json::to_vec(&record)?).context("writing the record")
}

fn write_to(rig: &Rig, disk: &BlockDevice) -> Result<()> {
    let mounted = Mounted::mount(rig, disk, Filesystem::Ext4, "")?;
    fs::write(mounted.path().join("more"), vec![0x5a; 1 << 20])?;
    mounted.unmount()
}

#[test]
fn a_disk_is_found_under_another_name_and_refused_beside_its_double() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    // Before the site, so that they are dropped after it.
    let (taken, moved, double);
    let mut site = site(&rig)?;
    let image = rig.fresh("image");
    let disk = LoopDisk::create_at(&rig, &image, LoopSpec::new(LEN))?;
    Filesystem::Ext4.make(&disk)?;
    site.protect(&disk, PATIENCE)?;
    site.prove(&disk, PATIENCE)?;
    let old_name = disk.name().to_owned();
    let id = site.disk(&old_name)?["id"].as_str().context("an identity")?.to_owned();
    site.agent.stop(Duration::from_secs(10))?;
    // The file outlives the device.
    let kept = rig.fresh("kept");
    fs::hard_link(&image, &kept)?;
    moved = LoopDisk::over(&rig, kept.clone(), 512)?;
    drop(disk);
    // Another disk has its name now, unless somebody else was faster.
    taken = LoopDisk::create(&rig, LoopSpec::new(LEN))?;
    ensure!(moved.name() != old_name && taken.name() != moved.name(), "it has its old name");
    age(&site, &id)?;
    site.agent.restart()?;
    let status = site.wait_for_agent()?;
    ensure!(status["problems"] == serde_json::json!([]), "it was not found: {status}");
    ensure!(site.disk(moved.name())?["id"] == id.as_str(), "another disk has its identity");
    site.wait_for_state(moved.name(), "protected", PATIENCE)?;
    write_to(&rig, &moved)?;
    site.settle(&moved, PATIENCE)?;
    let differs = vm_tests::first_difference(moved.path(), &site.replica(moved.name())?)?;
    ensure!(differs.is_none(), "{differs:?}");
    // A copy of it beside it: nobody can tell which one the replica is of.
    site.agent.stop(Duration::from_secs(10))?;
    let copy = rig.fresh("copy");
    fs::copy(moved.backing(), &copy)?;
    double = LoopDisk::over(&rig, copy.clone(), 512)?;
    age(&site, &id)?;
    site.agent.restart()?;
    let status = site.wait_for_agent()?;
    let problems = status["problems"].to_string();
    let both = problems.contains(moved.name()) && problems.contains(double.name());
    ensure!(both && problems.contains("both say"), "it was taken up: {status}");
    Ok(())
}
