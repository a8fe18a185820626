//! What the tests work on: a site, and disks in use.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use blocks::ByteLen;
use vm_tests::{
    BlockDevice, Bursts, EVERY_METHOD, Rig, Site, SiteSpec, Target, ZramDisk, fill, wait_until,
};

pub(crate) use vm_tests::number;

/// Short cycles, and an initial replication in several segments.
const SETTINGS: &str = "interval = \"300ms\"\nsegment = \"16 MiB\"\n";
const DISK: ByteLen = ByteLen(96 << 20);
/// What is written to: less than would make a delta a comparison.
pub(crate) const IN_USE: ByteLen = ByteLen(24 << 20);

/// Long enough for anything here on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A target and an agent that run the binary of this build.
pub(crate) fn site(rig: &Rig) -> Result<Site> {
    site_with(rig, "")
}

/// The same, with more settings of the agent.
pub(crate) fn site_with(rig: &Rig, settings: &str) -> Result<Site> {
    let spec = SiteSpec { agent_settings: format!("{SETTINGS}{settings}"), ..SiteSpec::default() };
    Site::start_program(Path::new(env!("CARGO_BIN_EXE_pinnace")), rig, &spec)
}

/// A zram disk with content.
pub(crate) fn zram(rig: &Rig, seed: u64) -> Result<ZramDisk> {
    let disk = ZramDisk::create(rig, DISK)?;
    fill(rig, &Target::whole(0, &disk), seed)?;
    Ok(disk)
}

/// Writers of every kind at work on a disk.
pub(crate) fn use_disk(rig: &Rig, disk: &BlockDevice, seed: u64) -> Result<Bursts> {
    Bursts::start(rig, Target::whole(0, disk).front(IN_USE), EVERY_METHOD, seed)
}

/// Waits until an epoch of the disk is under way.
pub(crate) fn until_mid_cycle(site: &Site, disk: &BlockDevice) -> Result<()> {
    wait_until("an epoch under way", PATIENCE, || {
        Ok((number(&site.disk(disk.name())?, "/in_flight_bytes") > 0).then_some(()))
    })
}

/// Fails if tracking of the disk has had a gap since the agent started.
pub(crate) fn ensure_no_gap(site: &Site, disk: &BlockDevice) -> Result<()> {
    let gaps = number(&site.disk(disk.name())?, "/tracking/gaps");
    ensure!(gaps == 0, "{}: {gaps} gaps\n{}", disk.name(), site.logs());
    Ok(())
}
