//! Programs are detached behind the agent's back.

use std::fs;

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use vm_tests::{BlockDevice, LoopDisk, LoopSpec, Rig, Site, Target, fill, wait_until};

use crate::subject::{PATIENCE, found, site, use_disk, zram};

/// Removes the pins of links whose names begin so; they are what keeps programs attached.
fn detach(site: &Site, names: &str) -> Result<usize> {
    let mut detached = 0;
    for entry in fs::read_dir(site.pins().join("links")).context("the pinned links")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(names) {
            fs::remove_file(entry.path())?;
            detached += 1;
        }
    }
    ensure!(detached > 0, "no program is called {names}...");
    Ok(detached)
}

fn attached(site: &Site) -> Result<usize> {
    Ok(fs::read_dir(site.pins().join("links"))?.count())
}

fn heals(rig: &Rig, disk: &BlockDevice, names: &[&str]) -> Result<()> {
    let site = site(rig, "")?;
    site.protect(disk, PATIENCE)?;
    let writers = use_disk(rig, disk, 31)?;
    let (before, mut gaps) = (attached(&site)?, 0);
    for names in names {
        detach(&site, names)?;
        let status = found(&site, disk, gaps)?;
        gaps = status["tracking"]["gaps"].as_u64().context("a number of gaps")?;
        site.wait_for_state(disk.name(), "protected", PATIENCE)?;
        // Of what was lost the counters may have told first.
        wait_until("them to be attached again", PATIENCE, || {
            Ok((attached(&site)? == before).then_some(()))
        })
        .with_context(|| site.logs())?;
    }
    writers.stop()?;
    site.prove(disk, PATIENCE)?;
    ensure!(site.agent.log()?.contains("somebody has detached"), "{}", site.logs());
    Ok(())
}

#[test]
fn detached_programs_of_a_zram_disk_are_missed_and_attached_again() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 30)?;
    heals(&rig, &disk, &["bio_complete", "bio_queue_1", ""])
}

#[test]
fn detached_programs_of_a_loop_disk_are_missed_and_attached_again() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(ByteLen(64 << 20)))?;
    fill(&rig, &Target::whole(0, &disk), 32)?;
    heals(&rig, &disk, &["rq_complete_2", "rq_complete"])
}
