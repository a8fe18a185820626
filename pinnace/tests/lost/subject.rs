//! What the tests work on.

use std::fs;
use std::path::{Path, PathBuf};
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

/// What the agent says of writes that only the statistics hold.
pub(crate) const MISSING: &str = "written sectors that tracking did not see";

/// The kernel detaches programs in its own time, which is some milliseconds.
const DETACHED: Duration = Duration::from_secs(1);

const SETTINGS: &str = "interval = \"200ms\"\nsegment = \"16 MiB\"\n";
const DISK: ByteLen = ByteLen(64 << 20);
/// What the writers use: less than would make a delta a comparison.
pub(crate) const IN_USE: ByteLen = ByteLen(16 << 20);

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

/// Waits until the agents have said something so many times.
pub(crate) fn said(site: &Site, words: &str, times: usize) -> Result<()> {
    wait_until(&format!("{words:?}"), PATIENCE, || {
        Ok((site.agent.log()?.matches(words).count() >= times).then_some(()))
    })
    .with_context(|| site.logs())
}

/// Detaches the programs of a hook that see completions, and has their names stay for another's, so
/// that only counters can tell.
pub(crate) fn hide(site: &Site, hook: &str, other: &str) -> Result<[PathBuf; 3]> {
    let links = site.pins().join("links");
    let names = [1, 2, 3].map(|copy| links.join(format!("{hook}_{copy}")));
    for name in &names {
        fs::remove_file(name)?;
        fs::hard_link(links.join(other), name)?;
    }
    std::thread::sleep(DETACHED);
    Ok(names)
}

/// Takes the names away, too: that is noticed, and the programs are attached again.
pub(crate) fn mend(site: &Site, disk: &BlockDevice, hidden: &[PathBuf]) -> Result<()> {
    let before = number(&site.disk(disk.name())?, "/tracking/gaps");
    hidden.iter().try_for_each(fs::remove_file)?;
    found(site, disk, before)?;
    site.wait_for_state(disk.name(), "protected", PATIENCE).map(drop)
}

/// The same, and nothing that was hidden is missing in the end.
pub(crate) fn mend_and_prove(site: &Site, disk: &BlockDevice, hidden: &[PathBuf]) -> Result<()> {
    mend(site, disk, hidden)?;
    site.prove(disk, PATIENCE)
}

/// Fails if the agent, in any of its lives, has said that a disk must be compared.
pub(crate) fn ensure_never_compared(site: &Site) -> Result<()> {
    let log = site.agent.log()?;
    let gap = log.lines().find(|line| line.contains("has a gap") || line.contains("another gap"));
    ensure!(gap.is_none(), "{}\n{}", gap.unwrap_or_default(), site.logs());
    Ok(())
}
