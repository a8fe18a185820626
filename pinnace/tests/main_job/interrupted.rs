//! Processes are killed and stopped, the path is cut; replication goes on where it was.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vm_tests::{BlockDevice, Rig, Site, wait_until};

use crate::subject::{
    PATIENCE, ensure_no_gap, number, site, site_with, until_mid_cycle, use_disk, zram,
};

/// Longer than a path may be silent before the connection is given up.
const IDLE_NOTICED: Duration = Duration::from_secs(20);

/// Waits until an epoch is durable after the agent has started anew, and fails if anything but a
/// delta was needed for that.
fn carries_on_with_deltas(site: &Site, disk: &BlockDevice) -> Result<()> {
    let status = wait_until("the agent to carry on", PATIENCE, || {
        let status = site.disk(disk.name())?;
        let state = &status["state"];
        ensure!(state.get("initial_replication").is_none(), "it begins again: {status}");
        ensure!(state.get("resynchronising").is_none(), "it compares: {status}");
        Ok((number(&status, "/sent/epochs") >= 2).then_some(status))
    })
    .with_context(|| site.logs())?;
    let (raw, len) = (number(&status, "/sent/raw"), number(&status, "/size_bytes"));
    ensure!(raw < len, "{raw} bytes of {len} were read again");
    ensure_no_gap(site, disk)
}

#[test]
fn an_agent_killed_in_mid_cycle_carries_on_without_a_gap() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 10)?;
    let mut site = site(&rig)?;
    site.protect(&disk, PATIENCE)?;
    let writers = use_disk(&rig, &disk, 10)?;
    for _ in 0..2 {
        until_mid_cycle(&site, &disk)?;
        site.agent.kill_9()?;
        // Written while no agent runs.
        std::thread::sleep(Duration::from_millis(700));
        site.agent.restart()?;
        site.wait_for_agent()?;
        carries_on_with_deltas(&site, &disk)?;
    }
    writers.stop()?;
    site.prove(&disk, PATIENCE)?;
    ensure_no_gap(&site, &disk)
}

#[test]
fn an_agent_stopped_in_order_carries_on_without_a_gap() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 11)?;
    let mut site = site(&rig)?;
    site.protect(&disk, PATIENCE)?;
    let writers = use_disk(&rig, &disk, 11)?;
    site.wait_for_epochs(disk.name(), 2, PATIENCE)?;
    let ended = site.agent.stop(Duration::from_secs(10))?;
    ensure!(ended.success(), "the agent ended with {ended}: {}", site.logs());
    std::thread::sleep(Duration::from_millis(700));
    site.agent.restart()?;
    site.wait_for_agent()?;
    carries_on_with_deltas(&site, &disk)?;
    writers.stop()?;
    site.prove(&disk, PATIENCE)?;
    ensure_no_gap(&site, &disk)
}

#[test]
fn an_agent_killed_during_initial_replication_ends_it_later() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 12)?;
    // Slow enough to be caught in the middle.
    let mut site = site_with(&rig, "bandwidth = \"40 MiB\"\n")?;
    let writers = use_disk(&rig, &disk, 12)?;
    site.agent(&["protect", &disk.path().to_string_lossy()])?;
    wait_until("part of the disk", PATIENCE, || {
        let percent = number(&site.disk(disk.name())?, "/state/initial_replication/percent");
        Ok((percent >= 30).then_some(()))
    })
    .with_context(|| site.logs())?;
    site.agent.kill_9()?;
    site.agent.restart()?;
    site.wait_for_agent()?;
    site.wait_for_state(disk.name(), "protected", PATIENCE)?;
    let status = site.disk(disk.name())?;
    let (raw, len) = (number(&status, "/sent/raw"), number(&status, "/size_bytes"));
    ensure!(raw < len, "{raw} bytes of {len} were read after the restart: it began again");
    writers.stop()?;
    site.prove(&disk, PATIENCE)?;
    ensure_no_gap(&site, &disk)
}

#[test]
fn a_target_killed_in_mid_cycle_is_caught_up_with() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 13)?;
    let mut site = site(&rig)?;
    site.protect(&disk, PATIENCE)?;
    let writers = use_disk(&rig, &disk, 13)?;
    until_mid_cycle(&site, &disk)?;
    site.target.kill_9()?;
    std::thread::sleep(Duration::from_millis(300));
    site.target.restart()?;
    site.wait_for_epochs(disk.name(), 3, PATIENCE)?;
    // The new process says so of the old one's connection, well before the idle time is over.
    let log = site.agent.log()?;
    ensure!(log.contains("reset by peer") && !log.contains("timed out"), "{log}");
    // In order, the agent hears of it at once.
    until_mid_cycle(&site, &disk)?;
    let ended = site.target.stop(Duration::from_secs(10))?;
    ensure!(ended.success(), "the target ended with {ended}: {}", site.logs());
    site.target.restart()?;
    site.wait_for_epochs(disk.name(), 3, PATIENCE)?;
    writers.stop()?;
    site.prove(&disk, PATIENCE)?;
    ensure_no_gap(&site, &disk)
}

#[test]
fn a_target_killed_during_initial_replication_is_caught_up_with() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 14)?;
    let mut site = site_with(&rig, "bandwidth = \"40 MiB\"\n")?;
    let writers = use_disk(&rig, &disk, 14)?;
    site.agent(&["protect", &disk.path().to_string_lossy()])?;
    wait_until("part of the disk", PATIENCE, || {
        let percent = number(&site.disk(disk.name())?, "/state/initial_replication/percent");
        Ok((percent >= 30).then_some(()))
    })
    .with_context(|| site.logs())?;
    site.target.kill_9()?;
    site.target.restart()?;
    site.wait_for_state(disk.name(), "protected", PATIENCE)?;
    writers.stop()?;
    site.prove(&disk, PATIENCE)?;
    ensure_no_gap(&site, &disk)
}

#[test]
fn a_path_cut_for_longer_than_the_idle_time_loses_nothing() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 15)?;
    let site = site(&rig)?;
    site.protect(&disk, PATIENCE)?;
    let writers = use_disk(&rig, &disk, 15)?;
    until_mid_cycle(&site, &disk)?;
    site.relay.cut();
    wait_until("the agent to notice", IDLE_NOTICED, || {
        Ok((site.status()?["link"]["state"] == "connecting").then_some(()))
    })
    .with_context(|| site.logs())?;
    let behind = site.disk(disk.name())?;
    let reason = behind["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("waiting for the target"), "no reason is given: {behind}");
    ensure!(behind["rpo_seconds"].as_f64() > Some(5.0), "the age is not shown: {behind}");
    site.relay.mend();
    site.wait_for_epochs(disk.name(), 3, PATIENCE)?;
    writers.stop()?;
    site.prove(&disk, PATIENCE)?;
    ensure_no_gap(&site, &disk)
}
