//! Tracking can't be trusted for a while: the disk is compared, and only what differs is sent.

use std::fs;

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use vm_tests::{
    BlockDevice, Bursts, LoopDisk, LoopSpec, Method, Rig, Site, Target, fill, wait_until,
};

use crate::subject::{PATIENCE, number, site, zram};

/// What is changed while tracking is in doubt.
const CHANGED: ByteLen = ByteLen(4 << 20);

fn statistics(disk: &BlockDevice, value: &str) -> Result<()> {
    let path = format!("/sys/block/{}/queue/iostats", disk.name());
    fs::write(&path, value).with_context(|| format!("writing {path}"))
}

/// Switches the statistics off and on, with writes while they are off.
fn heals(rig: &Rig, site: &Site, disk: &BlockDevice) -> Result<()> {
    site.protect(disk, PATIENCE)?;
    site.prove(disk, PATIENCE)?;
    let before = site.disk(disk.name())?;
    statistics(disk, "0")?;
    let doubted = wait_until("the gap to show", PATIENCE, || {
        let status = site.disk(disk.name())?;
        Ok(status["state"].get("resynchronising").is_some().then_some(status))
    })
    .with_context(|| site.logs())?;
    let reason = doubted["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("iostats"), "the reason gives no advice: {doubted}");
    let methods = &[Method::Direct, Method::Buffered];
    let writers = Bursts::start(rig, Target::whole(0, disk).front(CHANGED), methods, 20)?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    writers.stop()?;
    statistics(disk, "1")?;
    site.wait_for_state(disk.name(), "protected", PATIENCE)?;
    site.prove(disk, PATIENCE)?;
    let after = site.disk(disk.name())?;
    let gained = |path: &str| number(&after, path) - number(&before, path);
    ensure!(gained("/tracking/gaps") >= 1, "no gap was counted: {after}");
    ensure!(after["reason"].is_null(), "a reason is left: {after}");
    let (equal, len) = (gained("/sent/equal"), number(&after, "/size_bytes"));
    ensure!(equal >= len - 2 * CHANGED.0, "only {} were found equal", ByteLen(equal));
    // What changed may have been sent by several comparisons, each of which was begun anew.
    let (wire, read) = (gained("/sent/wire"), gained("/sent/raw"));
    ensure!(wire <= read / 4, "{} of {} were sent", ByteLen(wire), ByteLen(read));
    Ok(())
}

#[test]
fn a_zram_disk_without_statistics_is_compared_afterwards() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 20)?;
    heals(&rig, &site(&rig)?, &disk)
}

#[test]
fn a_loop_disk_without_statistics_is_compared_afterwards() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(ByteLen(96 << 20)))?;
    fill(&rig, &Target::whole(0, &disk), 21)?;
    heals(&rig, &site(&rig)?, &disk)
}
