//! Stores without room.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use vm_tests::{
    Bursts, Filesystem, Image, LoopDisk, LoopSpec, Method, Mounted, Rig, Target, fill, wait_until,
};

use crate::bystander::{Bystander, PATIENCE, refused, site};
use crate::stranger::machine;

/// The bystander's disk, another of this size, and some.
const STORE: ByteLen = ByteLen(192 << 20);
const DISK: ByteLen = ByteLen(64 << 20);

#[test]
fn a_full_store_is_shown_and_caught_up_with_once_there_is_room() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut bystander = Bystander::create(&rig)?;
    let disk = LoopDisk::create(&rig, LoopSpec::new(DISK))?;
    let late = LoopDisk::create(&rig, LoopSpec::new(DISK))?;
    fill(&rig, &Target::whole(0, &late), 51)?;
    let memory = Mounted::tmpfs(&rig, STORE)?;
    let site = site(&rig, Some(&memory.path().join("store")))?;
    bystander.begin(&rig, &site)?;
    site.protect(&disk, PATIENCE)?;
    // Everything that is left is taken by somebody else.
    let ballast = memory.path().join("ballast");
    fs::write(&ballast, "")?;
    fill_up(&ballast)?;
    let output = site.try_agent(&["protect", &late.path().to_string_lossy()])?;
    refused(&output, 6, &[late.name(), "no space left"])?;
    let target = Target::whole(0, &disk).front(ByteLen(16 << 20));
    let writers = Bursts::start(&rig, target, &[Method::Direct], 50)?;
    let status = wait_until("the reason", PATIENCE, || {
        let status = site.disk(disk.name())?;
        let reason = status["reason"].as_str().unwrap_or_default();
        Ok(reason.contains("no space left").then_some(status))
    })
    .with_context(|| site.logs())?;
    ensure!(status["dirty_bytes"].as_u64() > Some(0), "nothing waits to be sent: {status}");
    let reason = status["reason"].as_str().unwrap_or_default();
    let way_out = format!("at once with `pinnace resume {}`", disk.name());
    ensure!(reason.contains("trying again in") && reason.contains(&way_out), "{reason}");
    fs::remove_file(&ballast)?;
    // It would be tried again after a minute; nobody who has made room waits for that.
    site.agent(&["resume"])?;
    site.wait_for_epochs(disk.name(), 2, PATIENCE)?;
    writers.stop()?;
    site.prove(&disk, PATIENCE)?;
    ensure!(site.disk(disk.name())?["reason"].is_null(), "the reason is still shown");
    bystander.end(&site)?;
    // Its file system is in use until the target is gone.
    drop(site);
    memory.unmount()
}

#[test]
fn a_device_set_aside_must_be_free_and_large_enough() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut bystander = Bystander::create(&rig)?;
    let disk = LoopDisk::create(&rig, LoopSpec::new(DISK))?;
    fill(&rig, &Target::whole(0, &disk), 52)?;
    let small = LoopDisk::create(&rig, LoopSpec::new(ByteLen(DISK.0 - 4096)))?;
    let large = LoopDisk::create(&rig, LoopSpec::new(ByteLen(DISK.0 + 4096)))?;
    let used = LoopDisk::create(&rig, LoopSpec::new(DISK))?;
    Filesystem::Ext4.make(&used)?;
    let _mounted = Mounted::mount(&rig, &used, Filesystem::Ext4, "")?;
    let site = site(&rig, None)?;
    bystander.begin(&rig, &site)?;
    let machine = machine(&site.agent_state())?.to_string();
    let assign = |machine: &str, device: &Path| {
        let device = device.to_string_lossy();
        site.try_target(&["target", "assign", machine, disk.name(), &device, "--yes"])
    };
    refused(&assign("nobody", large.path())?, 2, &["nobody"])?;
    refused(&assign(&"0".repeat(32), large.path())?, 4, &["no machine", "has enrolled"])?;
    refused(&assign(&machine, "/dev/not-there".as_ref())?, 4, &["/dev/not-there"])?;
    refused(&assign(&machine, used.path())?, 6, &[used.name()])?;
    refused(&assign(&machine, "/dev/null".as_ref())?, 6, &["/dev/null"])?;

    ensure!(assign(&machine, small.path())?.status.success(), "it is free");
    let output = site.try_agent(&["protect", &disk.path().to_string_lossy()])?;
    refused(&output, 6, &[disk.name(), "smaller than the disk"])?;
    ensure!(site.disk(disk.name()).is_err(), "it is protected after all");
    ensure!(assign(&machine, large.path())?.status.success(), "it is free");
    site.protect(&disk, PATIENCE)?;
    let target = Target::whole(0, &disk).front(ByteLen(16 << 20));
    let writers = Bursts::start(&rig, target, &[Method::Direct], 53)?;
    site.wait_for_epochs(disk.name(), 2, PATIENCE)?;
    writers.stop()?;
    site.settle(&disk, PATIENCE)?;
    // The device is longer than the disk; what lies beyond is nobody's.
    let (original, replica) = (Image::read(disk.path())?, Image::read(large.path())?);
    let len = original.bytes().len();
    ensure!(original.bytes() == &replica.bytes()[..len], "{}", site.logs());

    // Nothing is replicated into itself, whichever role comes first.
    let output = assign(&machine, disk.path())?;
    refused(&output, 6, &[disk.name(), "is protected on this machine"])?;
    let output = site.try_agent(&["protect", &large.path().to_string_lossy()])?;
    refused(&output, 6, &[large.name(), "one of its replica disks"])?;
    bystander.end(&site)
}

fn fill_up(path: &Path) -> Result<()> {
    use std::io::Write as _;
    let mut file = fs::File::options().append(true).open(path)?;
    let block = vec![0x5a; 64 << 10];
    loop {
        match file.write_all(&block) {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
            written => written.context("filling the store's file system")?,
        }
    }
}
