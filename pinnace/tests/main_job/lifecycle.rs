//! Protection begins, pauses and ends; disks come and go.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vm_tests::{Rig, wait_until};

use crate::subject::{PATIENCE, ensure_no_gap, number, site, use_disk, zram};

/// What is pinned in a directory, if it is there at all.
fn pinned(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context("listing the pins")?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[test]
fn unprotecting_leaves_nothing_in_the_kernel_and_can_be_undone() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disks = [zram(&rig, 30)?, zram(&rig, 31)?];
    let site = site(&rig)?;
    for disk in &disks {
        site.protect(disk, PATIENCE)?;
    }
    ensure!(!pinned(&site.pins())?.is_empty(), "nothing is pinned in {}", site.pins().display());
    let writers = use_disk(&rig, &disks[1], 31)?;
    site.agent(&["unprotect", disks[0].name(), "--yes"])?;
    ensure!(site.disk(disks[0].name()).is_err(), "it is still listed");
    // The other one goes on.
    site.wait_for_epochs(disks[1].name(), 2, PATIENCE)?;
    writers.stop()?;
    site.prove(&disks[1], PATIENCE)?;
    ensure_no_gap(&site, &disks[1])?;
    site.agent(&["unprotect", disks[1].name(), "--yes"])?;
    let left = pinned(&site.pins())?;
    ensure!(left.is_empty(), "still pinned: {left:?}");
    // Replicated anew, under a new identity.
    let old = site.replica(disks[0].name())?;
    site.protect(&disks[0], PATIENCE)?;
    let writers = use_disk(&rig, &disks[0], 32)?;
    site.wait_for_epochs(disks[0].name(), 2, PATIENCE)?;
    writers.stop()?;
    site.drain(disks[0].name(), PATIENCE)?;
    let new = site.replicas(disks[0].name())?;
    let new = new.into_iter().find(|path| *path != old).context("no new replica")?;
    let difference = vm_tests::first_difference(disks[0].path(), &new)?;
    ensure!(difference.is_none(), "the new replica differs: {difference:?}");
    Ok(())
}

#[test]
fn a_paused_disk_gathers_what_changes_and_sends_it_afterwards() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disks = [zram(&rig, 33)?, zram(&rig, 34)?];
    let (disk, other) = (&disks[0], &disks[1]);
    let mut site = site(&rig)?;
    for disk in &disks {
        site.protect(disk, PATIENCE)?;
    }
    site.agent(&["pause", disk.name()])?;
    site.drain(other.name(), PATIENCE)?;
    let paused = site.wait_for_state(disk.name(), "paused", PATIENCE)?;
    let reason = paused["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("pinnace resume"), "no way out is shown: {paused}");
    let writers = [use_disk(&rig, disk, 33)?, use_disk(&rig, other, 34)?];
    let dirty = |least| {
        wait_until("dirty chunks", PATIENCE, || {
            let status = site.disk(disk.name())?;
            ensure!(number(&status, "/epoch") == number(&paused, "/epoch"), "it is not paused");
            Ok((number(&status, "/dirty_bytes") > least).then_some(()))
        })
    };
    dirty(1 << 20)?;
    dirty(8 << 20)?;
    // A pause outlives the agent.
    site.agent.kill_9()?;
    site.agent.restart()?;
    site.wait_for_agent()?;
    site.wait_for_epochs(other.name(), 2, PATIENCE)?;
    let status = site.disk(disk.name())?;
    ensure!(status["state"] == "paused" && number(&status, "/sent/epochs") == 0, "{status}");
    site.agent(&["resume", disk.name()])?;
    site.wait_for_epochs(disk.name(), 2, PATIENCE)?;
    for writers in writers {
        writers.stop()?;
    }
    for disk in &disks {
        site.prove(disk, PATIENCE)?;
        ensure_no_gap(&site, disk)?;
    }
    Ok(())
}

#[test]
fn a_disk_that_is_gone_or_exchanged_hurts_no_other() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let (gone, other) = (zram(&rig, 35)?, zram(&rig, 36)?);
    // Declared before the site, and so dropped after the agent that may have it open.
    let exchanged;
    let mut site = site(&rig)?;
    site.protect(&gone, PATIENCE)?;
    site.protect(&other, PATIENCE)?;
    site.prove(&gone, PATIENCE)?;
    let replica = site.replica(gone.name())?;
    let writers = use_disk(&rig, &other, 36)?;
    site.wait_for_epochs(other.name(), 2, PATIENCE)?;
    // The agent holds it open, so it can be removed only while there is none.
    site.agent.kill_9()?;
    let name = gone.name().to_owned();
    let before = vm_tests::Image::read(&replica)?;
    drop(gone);
    site.agent.restart()?;
    let status = site.wait_for_agent()?;
    let problems = status["problems"].to_string();
    ensure!(problems.contains(&name), "nobody is told that {name} is gone: {status}");
    site.wait_for_epochs(other.name(), 2, PATIENCE)?;
    // Another disk under the name is not the protected one, and leaves its replica alone.
    site.agent.kill_9()?;
    exchanged = zram(&rig, 37)?;
    ensure!(exchanged.name() == name, "{} instead of {name}", exchanged.name());
    site.agent.restart()?;
    let status = site.wait_for_agent()?;
    let problems = status["problems"].to_string();
    ensure!(problems.contains(&name), "nobody is told that {name} was exchanged: {status}");
    site.wait_for_epochs(other.name(), 3, PATIENCE)?;
    std::thread::sleep(Duration::from_secs(1));
    let after = vm_tests::Image::read(&replica)?;
    ensure!(before.bytes() == after.bytes(), "the replica of the disk that is gone has changed");
    // Waiting for it can be ended, and the new disk protected.
    site.agent(&["unprotect", &name, "--yes"])?;
    ensure!(site.status()?["problems"] == serde_json::json!([]), "it is still waited for");
    site.protect(&exchanged, PATIENCE)?;
    writers.stop()?;
    site.prove(&other, PATIENCE)?;
    ensure_no_gap(&site, &other)
}
