//! One cycle of changes: what it costs depends on what changed, not on the disk.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use vm_tests::{LoopDisk, LoopSpec, Rig, first_difference};

use crate::content;
use crate::installation::Installation;
use crate::record::{Bar, Series, Unit, Verdict};
use crate::rival::{self, Scratch};
use crate::{Findings, Rounds};

pub(crate) const NAME: &str = "delta";
const SMALL: ByteLen = ByteLen(2 << 30);
const LARGE: ByteLen = ByteLen(16 << 30);
/// One percent of the smaller disk, on both.
const CHANGED: usize = (SMALL.0 / 100) as usize / content::BLOCK;
/// Between cycles, at the shortest; a paused disk has none.
const INTERVAL: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(120);

/// Measures it.
pub(crate) fn measure(rig: &Rig, rounds: Rounds) -> Result<Findings> {
    let small = LoopDisk::create(rig, LoopSpec::new(SMALL))?;
    content::fill(small.backing(), SMALL, 2).context("filling the disk")?;
    let by_default = Scratch::copy_of(small.backing(), &rig.fresh("rsync"))?;
    let by_block = Scratch::copy_of(small.backing(), &rig.fresh("rsync"))?;
    // Sparse: it is the number of chunks that counts, and memory is what this machine has.
    let large = LoopDisk::create(rig, LoopSpec::new(LARGE))?;
    let installation =
        Installation::start(rig, &format!("interval = \"{}ms\"", INTERVAL.as_millis()))?;
    for disk in [&small, &large] {
        installation.replicate(disk.name(), LIMIT)?;
        installation.ask(&["pause", disk.name()])?;
    }
    let mut seconds: [Vec<f64>; 4] = Default::default();
    for round in rounds.numbers() {
        let seed = 100 + round as u64;
        let took = [
            cycle(&installation, (&small, SMALL), seed)?,
            cycle(&installation, (&large, LARGE), seed)?,
            rival::rsync(small.backing(), by_default.path(), &[])?,
            rival::rsync(small.backing(), by_block.path(), &["--block-size=4096"])?,
        ];
        for (seconds, took) in seconds.iter_mut().zip(took) {
            seconds.push(took.as_secs_f64());
        }
        let names = ["2 GiB", "16 GiB", "rsync", "rsync -B 4096"];
        let said: Vec<_> = names.into_iter().zip(seconds.each_ref().map(Vec::as_slice)).collect();
        rounds.say(round, &said);
    }
    for disk in [&small, &large] {
        let difference = first_difference(disk.path(), &installation.replica(disk.name())?)?;
        ensure!(difference.is_none(), "the replica of {} differs", disk.name());
        installation.ask(&["unprotect", disk.name(), "--yes"])?;
    }
    Ok(findings(seconds))
}

/// Changes a disk and ships it. The time from the command to the acknowledgement.
fn cycle(installation: &Installation, disk: (&LoopDisk, ByteLen), seed: u64) -> Result<Duration> {
    let (disk, len) = disk;
    content::change(disk.path(), len, CHANGED, seed).context("changing the disk")?;
    // From here on a cycle is due as soon as it is allowed.
    sleep(2 * INTERVAL);
    let took = installation.ship(disk.name(), LIMIT)?;
    installation.ask(&["pause", disk.name()])?;
    Ok(took)
}

fn findings(seconds: [Vec<f64>; 4]) -> Findings {
    let [small, large, by_default, by_block] = seconds;
    let series = |label: &str, values| Series::new(label, Unit::Seconds, values);
    let small = series("Pinnace, 2 GiB, from the command to durable", small);
    let large = series("Pinnace, 16 GiB, as many blocks changed", large);
    let by_default = series("rsync --inplace --no-whole-file, 2 GiB", by_default);
    let by_block = series("the same with --block-size=4096", by_block);
    let faster = |what: &str, rival: &Series| {
        Verdict::new(what, Unit::Ratio, &rival.over(&small), Bar::AtLeast(30.0))
    };
    let verdicts = vec![
        faster("times as fast as rsync", &by_default),
        faster("times as fast as rsync with blocks of 4096", &by_block),
        Verdict::new(
            "16 GiB over 2 GiB, as many blocks changed",
            Unit::Ratio,
            &large.over(&small),
            Bar::AtMost(1.5),
        ),
    ];
    Findings { series: vec![small, large, by_default, by_block], verdicts }
}
