//! The agent's memory with a terabyte protected.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use blocks::ByteLen;
use vm_tests::{LoopDisk, LoopSpec, Rig};

use crate::content;
use crate::installation::Installation;
use crate::record::{Bar, Series, Unit, Verdict};
use crate::{Findings, Rounds};

pub(crate) const NAME: &str = "memory";
/// All holes: nothing that is read is kept, so that the disk need not fit into memory.
const LEN: ByteLen = ByteLen(1 << 40);
/// Spread over the disk, they touch most pages of every bitmap.
const WRITES: usize = 1 << 16;
const POOL_MEBIBYTES: f64 = 128.0;
const BAR_MEBIBYTES: f64 = 64.0 + POOL_MEBIBYTES + 70.0;
/// How long the initial replication is watched, and how long what follows the writes. Neither has
/// to end: what there is to hold is held from the beginning.
const WATCHED: Duration = Duration::from_secs(60);
const WATCHED_AFTER_WRITES: Duration = Duration::from_secs(20);

/// Measures it.
pub(crate) fn measure(rig: &Rig, rounds: Rounds) -> Result<Findings> {
    let [mut idle, mut during, mut peak] = <[Vec<f64>; 3]>::default();
    for round in rounds.numbers() {
        let disk = LoopDisk::create(rig, LoopSpec::new(LEN))?;
        let installation = Installation::start(rig, "interval = \"1s\"")?;
        idle.push(resident(&installation, "VmRSS")?);
        installation.ask(&["protect", &disk.path().to_string_lossy()])?;
        installation.watch(disk.name(), WATCHED)?;
        during.push(resident(&installation, "VmRSS")?);
        content::change(disk.path(), LEN, WRITES, 1).context("changing the disk")?;
        installation.watch(disk.name(), WATCHED_AFTER_WRITES)?;
        peak.push(resident(&installation, "VmHWM")?);
        let state = &installation.disk(disk.name())?["state"];
        rounds.say(round, &[("idle", &idle), ("during", &during), ("peak", &peak)]);
        eprintln!("  the disk is {state}");
        installation.ask(&["unprotect", disk.name(), "--yes"])?;
    }
    let bar = Bar::AtMost(BAR_MEBIBYTES);
    let verdict =
        Verdict::new("the agent's peak, with 1 TiB protected", Unit::Mebibytes, &peak, bar);
    let series = |label: &str, values| Series::new(label, Unit::Mebibytes, values);
    let series = vec![
        series("resident, nothing protected", idle),
        series("resident, a minute into the replication of 1 TiB", during),
        series("peak, after 65,536 writes all over that disk too", peak),
    ];
    Ok(Findings { series, verdicts: vec![verdict] })
}

/// A line of the agent's memory as the kernel tells it, in MiB.
fn resident(installation: &Installation, field: &str) -> Result<f64> {
    let id = installation.agent.id().context("the agent has ended")?;
    let status = fs::read_to_string(format!("/proc/{id}/status")).context("the agent's status")?;
    let mut lines = status.lines().filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = lines.next().and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("the kernel tells no {field}"))? / 1024.0)
}
