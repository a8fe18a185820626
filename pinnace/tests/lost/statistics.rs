//! The kernel's own statistics, against which the programs' counts are held, are switched off.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vm_tests::{BlockDevice, Rig};

use crate::subject::{PATIENCE, found, number, site, zram};

fn keep(disk: &BlockDevice, value: &str) -> Result<()> {
    let path = format!("/sys/block/{}/queue/iostats", disk.name());
    fs::write(&path, value).with_context(|| format!("writing {path}"))
}

fn write(disk: &BlockDevice, blocks: u64) -> Result<()> {
    let file = File::options().write(true).open(disk.path())?;
    for block in 0..blocks {
        file.write_all_at(&[0x5a; 4096], block * 8192)?;
    }
    file.sync_all().context("writing to a disk")
}

/// Whether they are off for long or for a moment that nobody sees, what is lost afterwards is found.
#[test]
fn statistics_that_were_off_hide_no_loss_that_comes_after() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 35)?;
    let site = site(&rig, "")?;
    site.protect(&disk, PATIENCE)?;
    site.prove(&disk, PATIENCE)?;
    // A moment in which a lot is counted and not kept.
    keep(&disk, "0")?;
    write(&disk, 1000)?;
    keep(&disk, "1")?;
    site.prove(&disk, PATIENCE)?;
    // The agent needs quiet to learn it.
    std::thread::sleep(Duration::from_secs(3));
    let gaps = || Ok::<_, anyhow::Error>(number(&site.disk(disk.name())?, "/tracking/gaps"));
    let before = gaps()?;
    // Less is lost now than was not kept then. The names of the programs' links stay, and hold
    // another's, so that only the counters can tell.
    let links = site.pins().join("links");
    let hidden = [1, 2, 3].map(|copy| links.join(format!("bio_complete_{copy}")));
    for name in &hidden {
        fs::remove_file(name)?;
        fs::hard_link(links.join("rq_issue_1"), name)?;
    }
    write(&disk, 8)?;
    let status = found(&site, &disk, before)?;
    let log = site.agent.log()?;
    ensure!(log.contains("written sectors that tracking did not see"), "{status}\n{log}");
    // Without their names they are missed.
    hidden.iter().try_for_each(fs::remove_file)?;
    found(&site, &disk, gaps()?)?;
    site.wait_for_state(disk.name(), "protected", PATIENCE)?;
    site.prove(&disk, PATIENCE)
}
