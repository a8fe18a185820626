//! Stores without room.

use std::fs;

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use vm_tests::{Bursts, LoopDisk, LoopSpec, Method, Mounted, Rig, Target, fill, wait_until};

use crate::bystander::{Bystander, PATIENCE, refused, site};

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
    fs::remove_file(&ballast)?;
    site.wait_for_epochs(disk.name(), 2, PATIENCE)?;
    writers.stop()?;
    site.prove(&disk, PATIENCE)?;
    ensure!(site.disk(disk.name())?["reason"].is_null(), "the reason is still shown");
    bystander.end(&site)?;
    // Its file system is in use until the target is gone.
    drop(site);
    memory.unmount()
}

fn fill_up(path: &std::path::Path) -> Result<()> {
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
