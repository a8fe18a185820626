//! A loss is found, and the agent that found it is killed at once: the next one knows all of it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context, Result};
use vm_tests::{Rig, Site, wait_until};

use crate::subject::{MISSING, PATIENCE, hide, mend, said, site, zram};

/// What was lost is outstanding for good. A successor that did not know would wait for it, and
/// confirm no point ever again.
#[test]
fn an_agent_killed_after_it_found_a_loss_leaves_points_that_can_be_confirmed() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 61)?;
    let mut site = site(&rig, "")?;
    site.protect(&disk, PATIENCE)?;
    // What is outstanding at rest is known from here on.
    confirm_a_point(&site, disk.name())?;
    let names = hide(&site, "bio_complete", "bio_queue_1")?;
    let file = File::options().write(true).open(disk.path())?;
    file.write_all_at(&[0x5c; 4096], 8192)?;
    file.sync_all().context("writing to a disk")?;
    said(&site, MISSING, 1)?;
    site.agent.kill_9()?;
    site.agent.restart()?;
    site.wait_for_agent()?;
    site.wait_for_state(disk.name(), "protected", PATIENCE)?;
    mend(&site, &disk, &names)?;
    confirm_a_point(&site, disk.name())
}

fn confirm_a_point(site: &Site, disk: &str) -> Result<()> {
    site.agent(&["point", "create"])?;
    wait_until("a point to be confirmed", PATIENCE, || {
        Ok((site.disk(disk)?["last_point"]["confirmed"] == true).then_some(()))
    })
    .with_context(|| site.logs())
}
