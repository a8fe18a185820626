//! A comparison of a disk of which little differs: bytes on the wire, and the time it takes.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use blocks::ByteLen;
use serde_json::Value;
use vm_tests::{LoopDisk, LoopSpec, Rig, first_difference};

use crate::content;
use crate::installation::Installation;
use crate::record::{Bar, Series, Unit, Verdict};
use crate::rival::{self, Scratch};
use crate::{Findings, Rounds, forget_files, on_a_medium};

pub(crate) const NAME: &str = "resync";
/// How large the thin disk is, in GiB, if somebody wants another one than of 16.
const SIZE: &str = "PINNACE_BENCH_RESYNC_GIB";
const LIMIT: Duration = Duration::from_secs(300);

/// Disks that are compared. Memory is what this machine has, and of each disk there are three; but a
/// disk in memory is as fast as the processors that compare it.
const DISKS: [Kind; 3] = [
    Kind { what: "in memory, an eighth written", one_in: 8, part: 1, place: Place::Memory },
    Kind { what: "in memory, all of it written", one_in: 1, part: 4, place: Place::Memory },
    Kind { what: "on a medium, all of it written", one_in: 1, part: 4, place: Place::Medium },
];

#[derive(Clone, Copy)]
enum Place {
    Memory,
    Medium,
}

/// What a compared disk holds.
struct Kind {
    what: &'static str,
    /// Of so many pieces one is written, the others are holes.
    one_in: u64,
    /// Which part of the size it has.
    part: u64,
    place: Place,
}

/// Measures it.
pub(crate) fn measure(rig: &Rig, rounds: Rounds) -> Result<Findings> {
    let gib: u64 = std::env::var(SIZE).map_or(Ok(16), |text| text.parse()).context(SIZE)?;
    let mut all = Findings { series: Vec::new(), verdicts: Vec::new() };
    for kind in &DISKS {
        let found = of_disk(rig, rounds, kind, ByteLen((gib << 30) / kind.part))?;
        all.series.extend(found.series);
        all.verdicts.extend(found.verdicts);
    }
    Ok(all)
}

fn of_disk(rig: &Rig, rounds: Rounds, kind: &Kind, len: ByteLen) -> Result<Findings> {
    // One in a thousand of its blocks, anywhere.
    let changed = usize::try_from(len.0 / 1000)? / content::BLOCK;
    let directory = on_a_medium(NAME)?;
    let disk = match kind.place {
        Place::Memory => LoopDisk::create(rig, LoopSpec::new(len))?,
        Place::Medium => {
            let spec = LoopSpec { direct: true, ..LoopSpec::new(len) };
            LoopDisk::create_at(rig, &directory.path().join("disk"), spec)?
        }
    };
    content::fill_thinly(disk.backing(), len, kind.one_in, 3).context("filling the disk")?;
    let copy = Scratch::create(&rig.fresh("rsync"), len)?;
    content::fill_thinly(copy.path(), len, kind.one_in, 3).context("filling a copy")?;
    let installation = Installation::start(rig, "interval = \"1h\"")?;
    installation.replicate(disk.name(), LIMIT)?;
    // The first delta, of nothing, comes at once.
    sleep(Duration::from_secs(1));
    let [mut ours, mut read, mut rsync, mut wire] = <[Vec<f64>; 4]>::default();
    for round in rounds.numbers() {
        let seed = 200 + round as u64;
        content::change(disk.path(), len, changed, seed).context("changing the disk")?;
        rival::forget_cached(disk.path())?;
        read.push(fio(disk.path(), len)?.as_secs_f64());
        let before = bytes(&installation)?;
        ours.push(installation.resync(disk.name(), LIMIT)?.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "bytes below 2^53")]
        wire.push((bytes(&installation)? - before) as f64 / f64::from(1 << 20));
        // On a medium each reads it from there.
        forget_files(directory.path())?;
        rsync.push(rival::rsync(disk.backing(), copy.path(), &[])?.as_secs_f64());
        rounds.say(
            round,
            &[("pinnace", &ours), ("fio", &read), ("rsync", &rsync), ("MiB on the wire", &wire)],
        );
    }
    let image = Scratch::create(&rig.fresh("image"), ByteLen(0))?;
    installation.export(disk.name(), image.path())?;
    let difference = first_difference(disk.path(), image.path())?;
    if let Some(difference) = difference {
        bail!("the replica differs: {difference}\n{}", installation.logs());
    }
    installation.ask(&["unprotect", disk.name(), "--yes"])?;
    Ok(findings(kind, len, changed, [ours, read, rsync, wire]))
}

#[expect(clippy::cast_precision_loss, reason = "sizes below 2^53")]
fn findings(kind: &Kind, len: ByteLen, changed: usize, found: [Vec<f64>; 4]) -> Findings {
    let [ours, read, rsync, wire] = found;
    let differing = (changed * content::BLOCK) as f64 / f64::from(1 << 20);
    let allowed = 3.0 * differing + 0.002 * (len.0 >> 20) as f64;
    let of_allowed: Vec<f64> = wire.iter().map(|mebibytes| mebibytes / allowed).collect();
    let disk = format!("{} GiB {}", len.0 >> 30, kind.what);
    let label = |what: &str| format!("{disk}: {what}");
    let seconds = |what: &str, values| Series::new(&label(what), Unit::Seconds, values);
    let ours = seconds(&format!("Pinnace, {differing:.1} MiB differ, to durable"), ours);
    let read = seconds("fio, reading it once in pieces of 1 MiB", read);
    let rsync = seconds("rsync --inplace --no-whole-file", rsync);
    let wire = Series::new(&label("datagrams, both ways"), Unit::Mebibytes, wire);
    let verdict =
        |what: &str, values: &[f64], bar| Verdict::new(&label(what), Unit::Ratio, values, bar);
    let verdicts = vec![
        verdict(
            "bytes on the wire over three times what differs and 0.2 % of the disk",
            &of_allowed,
            Bar::AtMost(1.0),
        ),
        verdict("as long as reading", &ours.over(&read), Bar::AtMost(1.3)),
        verdict("times as fast as rsync", &rsync.over(&ours), Bar::AtLeast(3.0)),
    ];
    Findings { series: vec![ours, read, rsync, wire], verdicts }
}

/// What the agent's connection has carried, both ways.
fn bytes(installation: &Installation) -> Result<u64> {
    let status = installation.status()?;
    let of = |way: &str| status["link_bytes"][way].as_u64().context("bytes of the connection");
    Ok(of("sent")? + of("received")?)
}

/// Reads a disk from end to end; how long that took by fio's own clock.
fn fio(disk: &std::path::Path, len: ByteLen) -> Result<Duration> {
    let mut command = Command::new("fio");
    command.args(["--name=read", "--rw=read", "--bs=1M", "--direct=1", "--ioengine=io_uring"]);
    command.args(["--iodepth=32", "--output-format=json"]);
    command.arg(format!("--filename={}", disk.display())).arg(format!("--size={}", len.0));
    let output = command.stdin(Stdio::null()).output().context("running fio")?;
    ensure!(output.status.success(), "fio: {}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).context("the report of fio")?;
    let millis = report["jobs"][0]["read"]["runtime"].as_u64().context("the runtime of fio")?;
    Ok(Duration::from_millis(millis))
}
