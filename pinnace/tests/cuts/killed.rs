//! Agent and target are killed and halted at random moments while every block is rewritten again
//! and again: every point is one instant all the same, nothing is lost, nothing is compared.
//!
//! `PINNACE_KILLS` sets the number of kills, `PINNACE_SEED` when and whom.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use nix::sys::signal::Signal;
use vm_tests::{PointLoadSpec, Random, Rate, Rig};

use crate::judge::{CONTENDED, Held, Protected, Verdicts, looped, zram};

const KILLS: u64 = 25;
/// Kills of one site: all its points are judged at once, from memory.
const ROUND: u64 = 25;
/// With a disk of the other class, so many times fewer.
const FEWER: u64 = 5;
const EVERY_SECOND: &str = "point_interval = \"1s\"";
/// What the agent logs when it can't go on with deltas, and the one reason that is right here:
/// while no target answers, all of so small a disk is written.
const GAP: &str = "tracking has a gap";
const RIGHT_REASON: &str = "too much of the disk is dirty";

#[test]
fn points_outlive_whoever_is_killed() -> Result<()> {
    let total = repeat(1, |rig| Ok(vec![zram(rig, CONTENDED)?]))?;
    total.ensure_valid()
}

/// On a kernel that hides completions of loop disks from tracking, the loop disk is compared now
/// and then, and points are retracted or are of the other disk alone: these are counted apart.
#[test]
fn points_of_two_classes_of_disks_outlive_them_too() -> Result<()> {
    let total = repeat(FEWER, |rig| Ok(vec![zram(rig, CONTENDED)?, looped(rig, CONTENDED)?]))?;
    total.ensure_none_is_invalid()?;
    ensure!(total.valid > 0, "no point of both disks to rely on: {total:?}");
    Ok(())
}

/// Kills in rounds, each on a site of its own; what all points are worth.
fn repeat(fewer: u64, disks: impl Fn(&Rig) -> Result<Vec<Held>>) -> Result<Verdicts> {
    let mut total = Verdicts::default();
    let Some(rig) = Rig::start()? else { return Ok(total) };
    let seed = number("PINNACE_SEED")?.unwrap_or_else(|| vm_tests::monotonic_now().0);
    let kills = number("PINNACE_KILLS")?.unwrap_or(KILLS).div_ceil(fewer);
    println!("{kills} kills, PINNACE_SEED={seed}");
    let mut random = Random::new(seed);
    let mut of_disks = String::new();
    for round in 0..kills.div_ceil(ROUND) {
        let disks = disks(&rig)?;
        of_disks = disks.iter().map(|disk| class(disk.name())).collect::<Vec<_>>().join(" and ");
        let verdicts = kill(&rig, disks, ROUND.min(kills - ROUND * round), &mut random)?;
        println!("{verdicts:?}");
        total.add_all(verdicts);
    }
    let Verdicts { valid, invalid, retracted, of_some_disks } = &total;
    println!("figure: kills and halts of agent, target or both, {of_disks}: {kills}");
    println!("figure: points of them that are relied on and are one instant: {valid}");
    println!("figure: and that are not: {}", invalid.len());
    if fewer > 1 {
        println!("figure: points of them that were retracted: {retracted}");
        println!("figure: points of them without a disk that did not follow: {of_some_disks}");
    }
    Ok(total)
}

fn class(name: &str) -> &str {
    name.trim_end_matches(|letter: char| letter.is_ascii_digit())
}

/// So many kills on one site, and the judgement of all its points.
fn kill(rig: &Rig, disks: Vec<Held>, kills: u64, random: &mut Random) -> Result<Verdicts> {
    let mut protected = Protected::start_with(rig, disks, EVERY_SECOND, &[])?;
    let load = protected.load(PointLoadSpec::new(Rate::PerSecond(ByteLen(50 << 20))))?;
    for _ in 0..kills {
        strike(&mut protected, random)?;
    }
    protected.site.wait_for_agent()?;
    protected.wait_for_points(2)?;
    load.stop()?;
    protected.wait_until_confirmed()?;
    // At rest: this one is the disks.
    protected.site.agent(&["point", "create"])?;
    let log = protected.site.agent.log()?;
    let of_zram = |line: &&str| line.contains("zram");
    let mut gaps = log.lines().filter(|line| line.contains(GAP)).filter(of_zram);
    let gap = gaps.find(|line| !line.contains(RIGHT_REASON));
    ensure!(gap.is_none(), "{gap:?}\n{log}");
    let points = protected.points()?;
    let newest = points.iter().max_by_key(|point| point.record.cut.monotonic);
    newest.context("no point")?.ensure_equals(&protected.disks)?;
    protected.judge(&points)
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
