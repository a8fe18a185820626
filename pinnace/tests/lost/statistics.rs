//! The kernel's own statistics, against which the programs' counts are held, are switched off: by
//! somebody whom the agent sees, or while nobody looks.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use nix::sys::signal::Signal;
use vm_tests::{BlockDevice, LoopDisk, LoopSpec, Rig, Site, Target, fill};

use crate::subject::{IN_USE, MISSING, PATIENCE, hide, mend_and_prove, said, site, use_disk};

/// More than is lost afterwards.
const NOT_KEPT: u64 = 1000;
/// Blocks that are lost at once.
const LOST: u64 = 8;

/// A disk whose driver heeds the switch; zram's does not.
fn disk(rig: &Rig, seed: u64) -> Result<LoopDisk> {
    let disk = LoopDisk::create(rig, LoopSpec::new(ByteLen(64 << 20)))?;
    fill(rig, &Target::whole(0, &disk), seed)?;
    Ok(disk)
}

fn switch(disk: &BlockDevice) -> String {
    format!("/sys/block/{}/queue/iostats", disk.name())
}

fn keep(disk: &BlockDevice, value: &str) -> Result<()> {
    fs::write(switch(disk), value).with_context(|| format!("switching {}", switch(disk)))
}

/// Writes so many blocks that are apart from each other; content that was not there before. They lie
/// beyond what the writers use: a direct write that ends on a page which is dirty in the page cache
/// has the kernel report EIO to whoever syncs that page.
fn write(disk: &BlockDevice, blocks: u64, content: u8) -> Result<()> {
    let file = File::options().write(true).open(disk.path())?;
    for block in 0..blocks {
        file.write_all_at(&[content; 4096], IN_USE.0 + block * 16_384)?;
    }
    file.sync_all().context("writing to a disk")
}

const GAP: &str = "it can't follow: I/O statistics off";

/// They are off under load: that is a gap at once, since nobody knows what was lost meanwhile. And
/// whatever was counted and not kept hides no loss that comes after.
#[test]
fn statistics_that_are_switched_off_are_a_gap_and_hide_no_later_loss() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = disk(&rig, 38)?;
    let site = site(&rig, "")?;
    site.protect(&disk, PATIENCE)?;
    let writers = use_disk(&rig, &disk, 38)?;
    // The agent must find it off after much has been written.
    site.agent.signal(Signal::SIGSTOP)?;
    keep(&disk, "0")?;
    write(&disk, NOT_KEPT, 0x5a)?;
    site.agent.signal(Signal::SIGCONT)?;
    said(&site, GAP, 1)?;
    ensure!(fs::read_to_string(switch(&disk))?.trim() == "1", "the statistics are still off");
    writers.stop()?;
    site.wait_for_state(disk.name(), "protected", PATIENCE)?;
    site.prove(&disk, PATIENCE)?;
    let names = hide(&site, "rq_complete", "rq_issue_1")?;
    write(&disk, LOST, 0x5b)?;
    said(&site, MISSING, 1)?;
    mend_and_prove(&site, &disk, &names)
}

/// How nobody looks.
#[derive(Clone, Copy)]
enum Absence {
    Stopped,
    Killed,
}

impl Absence {
    fn begin(self, site: &mut Site) -> Result<()> {
        match self {
            Self::Stopped => site.agent.signal(Signal::SIGSTOP),
            Self::Killed => site.agent.kill_9(),
        }
    }

    fn end(self, site: &mut Site) -> Result<()> {
        match self {
            Self::Stopped => site.agent.signal(Signal::SIGCONT),
            Self::Killed => site.agent.restart(),
        }
    }
}

/// They are off and on again while nobody looks. What is lost meanwhile is in no count, and what is
/// lost after that is less than was not kept: there is no deficit, and all the same it is found.
#[test]
fn statistics_that_were_off_while_nobody_looked_hide_no_loss() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = disk(&rig, 39)?;
    let mut site = site(&rig, "")?;
    site.protect(&disk, PATIENCE)?;
    site.prove(&disk, PATIENCE)?;
    for (content, absence) in [(0x10, Absence::Stopped), (0x20, Absence::Killed)] {
        let before = site.agent.log()?.matches(GAP).count();
        absence.begin(&mut site)?;
        keep(&disk, "0")?;
        write(&disk, NOT_KEPT, content)?;
        let names = hide(&site, "rq_complete", "rq_issue_1")?;
        write(&disk, LOST, content + 1)?;
        keep(&disk, "1")?;
        write(&disk, LOST / 2, content + 2)?;
        absence.end(&mut site)?;
        said(&site, GAP, before + 1)?;
        site.wait_for_state(disk.name(), "protected", PATIENCE)?;
        site.prove(&disk, PATIENCE)?;
        mend_and_prove(&site, &disk, &names)?;
    }
    Ok(())
}
