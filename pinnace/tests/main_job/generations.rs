//! Disks and replicas that went different ways: nothing is written over before a person says so.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vm_tests::{BlockDevice, Image, Rig, Site, Target, ZramDisk, wait_until};

use crate::subject::{IN_USE, PATIENCE, number, site, use_disk, zram};

/// Protects a disk until its replica follows, and says where that is.
fn followed(site: &Site, disk: &ZramDisk) -> Result<std::path::PathBuf> {
    site.protect(disk, PATIENCE)?;
    site.prove(disk, PATIENCE)?;
    site.replica(disk.name())
}

/// Waits until the disk is critical for a reason that says all this.
fn critical(site: &Site, disk: &BlockDevice, words: &[&str]) -> Result<Value> {
    wait_until("the refusal", PATIENCE, || {
        let status = site.disk(disk.name())?;
        let reason = status["reason"].as_str().unwrap_or_default();
        let says_so = words.iter().all(|word| reason.contains(word));
        Ok((status["state"] == "critical" && says_so).then_some(status))
    })
    .with_context(|| format!("{words:?}\n{}", site.logs()))
}

fn write_to(rig: &Rig, disk: &BlockDevice, seed: u64) -> Result<()> {
    vm_tests::fill(rig, &Target::whole(0, disk).front(IN_USE), seed)
}

/// The person's word, and what comes of it: the replica is the disk again.
fn discard_and_prove(site: &Site, disk: &BlockDevice) -> Result<()> {
    let unasked = site.try_agent(&["resync", disk.name(), "--discard-target"])?;
    ensure!(unasked.status.code() == Some(6), "nobody was asked: {unasked:?}");
    site.agent(&["resync", disk.name(), "--discard-target", "--yes"])?;
    site.wait_for_state(disk.name(), "protected", PATIENCE)?;
    site.prove(disk, PATIENCE)?;
    let sent = number(&site.disk(disk.name())?, "/sent/equal");
    ensure!(sent > 0, "it was copied, not compared: {}", site.disk(disk.name())?);
    let again = site.try_agent(&["resync", disk.name(), "--discard-target", "--yes"])?;
    ensure!(again.status.code() == Some(5), "they are one, and still: {again:?}");
    Ok(())
}

#[test]
fn a_promoted_replica_fences_its_source_until_a_person_decides() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 60)?;
    let mut site = site(&rig)?;
    let replica = followed(&site, &disk)?;
    let before = Image::read(&replica)?;
    site.target(&["target", "promote", disk.name(), "--yes"])?;
    let fenced =
        critical(&site, &disk, &["was promoted", "--discard-target", "pinnace unprotect"])?;
    ensure!(fenced["since"].is_string(), "nobody knows since when: {fenced}");
    ensure!(site.target(&["target", "status"])?.contains("promoted"), "the target says nothing");
    let twice = site.try_target(&["target", "promote", disk.name(), "--yes"])?;
    ensure!(twice.status.code() == Some(5), "promoted twice: {twice:?}");
    // What the source writes from now on makes it a split brain.
    write_to(&rig, &disk, 60)?;
    site.agent(&["resume", disk.name()])?;
    critical(&site, &disk, &["both written", "They were one up to epoch"])?;
    // It waits for a person whatever becomes of the agent or the target.
    site.agent.kill_9()?;
    site.agent.restart()?;
    site.wait_for_agent()?;
    site.target.kill_9()?;
    site.target.restart()?;
    let critical = critical(&site, &disk, &["both written"])?;
    ensure!(number(&critical, "/sent/epochs") == 0, "something was sent: {critical}");
    ensure!(Image::read(&replica)?.bytes() == before.bytes(), "the promoted replica has changed");
    discard_and_prove(&site, &disk)
}

#[test]
fn a_source_that_was_set_back_is_not_taken_for_the_one_that_went_on() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 61)?;
    let mut site = site(&rig)?;
    let replica = followed(&site, &disk)?;
    let id = site.disk(disk.name())?["id"].as_str().context("an identity")?.to_owned();
    let record = site.agent_state().join("disks").join(format!("{id}.json"));
    site.agent.stop(Duration::from_secs(10))?;
    let kept = fs::read(&record)?;
    site.agent.restart()?;
    site.wait_for_agent()?;
    let writers = use_disk(&rig, &disk, 61)?;
    site.wait_for_epochs(disk.name(), 2, PATIENCE)?;
    writers.stop()?;
    site.prove(&disk, PATIENCE)?;
    // What a snapshot of the machine would have brought back.
    site.agent.stop(Duration::from_secs(10))?;
    let before = Image::read(&replica)?;
    fs::write(&record, kept)?;
    site.agent.restart()?;
    site.wait_for_agent()?;
    critical(&site, &disk, &["was set back", "--discard-target"])?;
    ensure!(Image::read(&replica)?.bytes() == before.bytes(), "its replica has changed");
    discard_and_prove(&site, &disk)
}
