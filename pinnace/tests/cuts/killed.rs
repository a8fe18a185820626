//! Agent and target are killed and halted at random moments while every block is rewritten again
//! and again: every point is one instant all the same, nothing is lost, nothing is compared.
//!
//! `PINNACE_KILLS` sets the number of kills, `PINNACE_SEED` when and whom.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use nix::sys::signal::Signal;
use vm_tests::{PointLoadSpec, Random, Rate, Rig};

use crate::judge::Protected;

const KILLS: u64 = 25;
const EVERY_SECOND: &str = "point_interval = \"1s\"";
/// What the agent logs when it can't go on with deltas, and the one reason that is right here:
/// while no target answers, all of so small a disk is written.
const GAP: &str = "tracking has a gap";
const RIGHT_REASON: &str = "too much of the disk is dirty";

#[test]
fn points_outlive_whoever_is_killed() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let seed = number("PINNACE_SEED")?.unwrap_or_else(|| vm_tests::monotonic_now().0);
    let kills = number("PINNACE_KILLS")?.unwrap_or(KILLS);
    println!("{kills} kills, PINNACE_SEED={seed}");
    let mut random = Random::new(seed);
    let mut protected = Protected::start(&rig, 1, EVERY_SECOND)?;
    let load = protected.load(PointLoadSpec::new(Rate::PerSecond(ByteLen(50 << 20))))?;
    for _ in 0..kills {
        strike(&mut protected, &mut random)?;
    }
    protected.site.wait_for_agent()?;
    protected.wait_for_points(2)?;
    load.stop()?;
    protected.wait_until_confirmed()?;
    // At rest: this one is the disk.
    protected.site.agent(&["point", "create"])?;
    let log = protected.site.agent.log()?;
    let gap = log.lines().find(|line| line.contains(GAP) && !line.contains(RIGHT_REASON));
    ensure!(gap.is_none(), "{gap:?}\n{log}");
    let points = protected.points()?;
    let newest = points.iter().max_by_key(|point| point.record.cut.monotonic);
    newest.context("no point")?.ensure_equals(&protected.disks)?;
    println!("{} points", points.len());
    protected.judge(&points)?.ensure_valid()
}

/// Kills or halts one of the daemons, or both, at a random moment, and lets things go on.
fn strike(protected: &mut Protected, random: &mut Random) -> Result<()> {
    std::thread::sleep(Duration::from_millis(random.below(700)));
    let site = &mut protected.site;
    let halted = Duration::from_millis(100 + random.below(300));
    match random.below(5) {
        0 => site.agent.kill_9()?,
        1 => site.target.kill_9()?,
        2 => {
            site.target.kill_9()?;
            site.agent.kill_9()?;
        }
        3 => {
            site.agent.signal(Signal::SIGSTOP)?;
            std::thread::sleep(halted);
            site.agent.signal(Signal::SIGCONT)?;
        }
        _ => {
            site.target.signal(Signal::SIGSTOP)?;
            std::thread::sleep(halted);
            site.target.signal(Signal::SIGCONT)?;
        }
    }
    for daemon in [&mut site.target, &mut site.agent] {
        if daemon.id().is_none() {
            daemon.restart()?;
        }
    }
    // Whatever was interrupted must not keep it from going on.
    if random.below(4) == 0 {
        site.wait_for_agent()?;
        protected.wait_for_points(1).context("no point after a kill")?;
    }
    Ok(())
}

fn number(variable: &str) -> Result<Option<u64>> {
    let value = std::env::var(variable).ok();
    value.map(|value| value.parse().with_context(|| format!("{variable}={value}"))).transpose()
}
