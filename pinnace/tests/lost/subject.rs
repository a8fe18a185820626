//! What the tests work on.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use serde_json::Value;
use vm_tests::{
    BlockDevice, Bursts, EVERY_METHOD, Rig, Site, SiteSpec, Target, ZramDisk, fill, wait_until,
};

pub(crate) use vm_tests::number;

pub(crate) const PINNACE: &str = env!("CARGO_BIN_EXE_pinnace");
/// Long enough for anything here on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const SETTINGS: &str = "interval = \"200ms\"\nsegment = \"16 MiB\"\n";
const DISK: ByteLen = ByteLen(64 << 20);
/// What is written to: less than would make a delta a comparison.
const IN_USE: ByteLen = ByteLen(16 << 20);

/// A site whose agent has these settings too.
pub(crate) fn site(rig: &Rig, settings: &str) -> Result<Site> {
    let spec = SiteSpec { agent_settings: format!("{SETTINGS}{settings}"), ..SiteSpec::default() };
    Site::start_program(Path::new(PINNACE), rig, &spec)
}

/// A zram disk with content: no kernel hides its writes from programs.
pub(crate) fn zram(rig: &Rig, seed: u64) -> Result<ZramDisk> {
    let disk = ZramDisk::create(rig, DISK)?;
    fill(rig, &Target::whole(0, &disk), seed)?;
    Ok(disk)
}

/// Writers of every kind at work on a disk.
pub(crate) fn use_disk(rig: &Rig, disk: &BlockDevice, seed: u64) -> Result<Bursts> {
    Bursts::start(rig, Target::whole(0, disk).front(IN_USE), EVERY_METHOD, seed)
}

/// Waits until one gap more than `before` has been found.
pub(crate) fn found(site: &Site, disk: &BlockDevice, before: u64) -> Result<Value> {
    wait_until("the loss to be found", PATIENCE, || {
        let status = site.disk(disk.name())?;
        Ok((number(&status, "/tracking/gaps") > before).then_some(status))
    })
    .with_context(|| site.logs())
}

/// Fails if the agent, in any of its lives, has said that a disk must be compared.
pub(crate) fn ensure_never_compared(site: &Site) -> Result<()> {
    let log = site.agent.log()?;
    let gap = log.lines().find(|line| line.contains("has a gap") || line.contains("another gap"));
    ensure!(gap.is_none(), "{}\n{}", gap.unwrap_or_default(), site.logs());
    Ok(())
}
