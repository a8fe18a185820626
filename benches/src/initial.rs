//! Initial replication, against a plain copy and against a packed stream.

use std::time::Duration;

use anyhow::{Context, Result};
use blocks::ByteLen;
use vm_tests::{LoopDisk, LoopSpec, Rig, first_difference};

use crate::content;
use crate::installation::Installation;
use crate::record::{Bar, Series, Unit, Verdict};
use crate::rival;
use crate::{Findings, Rounds};

pub(crate) const NAME: &str = "initial";
const LEN: ByteLen = ByteLen(2 << 30);
const LIMIT: Duration = Duration::from_secs(120);

/// Measures it.
pub(crate) fn measure(rig: &Rig, rounds: Rounds) -> Result<Findings> {
    let disk = LoopDisk::create(rig, LoopSpec::new(LEN))?;
    content::fill(disk.backing(), LEN, 1).context("filling the disk")?;
    let [mut ours, mut copy, mut cached, mut pipe, mut direct] = <[Vec<f64>; 5]>::default();
    for round in rounds.numbers() {
        rival::forget_cached(disk.path())?;
        ours.push(replicate(rig, &disk, round)?.as_secs_f64());
        rival::forget_cached(disk.path())?;
        copy.push(rival::nbdcopy(rig, disk.path(), LEN)?.as_secs_f64());
        // What has just been read is in the page cache now: the most that can be done for a copy.
        cached.push(rival::nbdcopy(rig, disk.path(), LEN)?.as_secs_f64());
        rival::forget_cached(disk.path())?;
        pipe.push(rival::pipe(rig, disk.path(), LEN, &[])?.as_secs_f64());
        direct.push(rival::pipe(rig, disk.path(), LEN, &["iflag=direct"])?.as_secs_f64());
        rounds.say(
            round,
            &[
                ("pinnace", &ours),
                ("nbdcopy", &copy),
                ("cached", &cached),
                ("pipe", &pipe),
                ("direct", &direct),
            ],
        );
    }
    let ours = Series::new("Pinnace, packed and sealed, to durable", Unit::Seconds, ours);
    let copy = Series::new("nbdcopy to nbdkit, neither packed nor sealed", Unit::Seconds, copy);
    let cached = Series::new("the same, the disk in the page cache", Unit::Seconds, cached);
    let pipe = Series::new("dd, zstd -1, nc to nc, zstd -d, dd", Unit::Seconds, pipe);
    let direct = Series::new("the same, read past the page cache", Unit::Seconds, direct);
    let faster = |what: &str, rival: &Series, times: f64| {
        Verdict::new(what, Unit::Ratio, &rival.over(&ours), Bar::AtLeast(times))
    };
    let verdicts = vec![
        faster("times as fast as nbdcopy", &copy, 1.0),
        faster("times as fast as nbdcopy from the page cache", &cached, 1.0),
        faster("times as fast as the pipe", &pipe, 2.5),
        faster("times as fast as the pipe reading past the page cache", &direct, 2.5),
    ];
    Ok(Findings { series: vec![ours, copy, cached, pipe, direct], verdicts })
}

/// One initial replication, to a target of its own. The first is compared, byte for byte.
fn replicate(rig: &Rig, disk: &LoopDisk, round: usize) -> Result<Duration> {
    let installation = Installation::start(rig, "interval = \"1h\"")?;
    let took = installation.replicate(disk.name(), LIMIT)?;
    if round == 0 {
        let replica = installation.replica(disk.name())?;
        let difference = first_difference(disk.path(), &replica)?;
        anyhow::ensure!(difference.is_none(), "the replica differs");
    }
    installation.ask(&["unprotect", disk.name(), "--yes"])?;
    Ok(took)
}
