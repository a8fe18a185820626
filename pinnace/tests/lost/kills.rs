//! The agent is killed again and again, at any moment, while the disk is in use: nothing is lost,
//! and nothing is compared.

use std::time::Duration;

use anyhow::{Context, Result};
use vm_tests::{Random, Rig};

use crate::subject::{PATIENCE, ensure_never_compared, site, use_disk, zram};

/// How often, unless `PINNACE_KILLS` says otherwise.
const KILLS: u64 = 25;

/// Kills so many times before anybody looks whether it still works.
const KILLS_A_ROUND: u64 = 10;

fn kills() -> Result<u64> {
    std::env::var("PINNACE_KILLS").map_or(Ok(KILLS), |text| text.parse().context("PINNACE_KILLS"))
}

#[test]
fn an_agent_killed_at_any_moment_loses_nothing_and_compares_nothing() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 37)?;
    let mut site = site(&rig, "log_interval = \"1s\"\n")?;
    site.protect(&disk, PATIENCE)?;
    let writers = use_disk(&rig, &disk, 37)?;
    let (kills, mut random) = (kills()?, Random::new(37));
    for kill in 1..=kills {
        // Some die while they start, some in the middle of an epoch, some after many.
        let life = [30, 300, 1500][usize::try_from(random.below(3))?];
        std::thread::sleep(Duration::from_millis(random.below(life)));
        site.agent.kill_9()?;
        std::thread::sleep(Duration::from_millis(random.below(100)));
        site.agent.restart()?;
        if kill % KILLS_A_ROUND == 0 {
            site.wait_for_agent()?;
            site.wait_for_epochs(disk.name(), 2, PATIENCE)?;
            ensure_never_compared(&site)?;
        }
    }
    site.wait_for_agent()?;
    let report = writers.stop()?;
    site.prove(&disk, PATIENCE)?;
    println!("{kills} kills, {} writes: nothing lost, nothing compared", report.writes);
    ensure_never_compared(&site)
}
