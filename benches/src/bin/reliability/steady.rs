//! A steady load on two disks of different class, and a point every second.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use blocks::ByteLen;
use replica::{MachinePoint, PointStatus, Store};
use vm_tests::{PointLoadSpec, Rate, Rig, pinnace_binary};

use crate::files::{Files, Looks};
use crate::findings::{Findings, share};
use crate::judge::{self, Judged};
use crate::stage::{Counts, PATIENCE, Setting, Stage, now, points, protect};

pub(crate) const NAME: &str = "steady";
const LEN: ByteLen = ByteLen(4 << 30);
const RATE: ByteLen = ByteLen(50_000_000);
const SETTINGS: &str = "[policy]\npoint_interval = \"1s\"\n";
/// Points of one site: its deltas, its disks and the log lie in memory.
const ROUND: usize = 100;
/// Each so many-th point's file system is looked at.
const FILES_EVERY: usize = 10;

/// How the agent says that the cross-check has found a completion which the kernel hid.
const HIDDEN: &str = "written sectors that tracking did not see";

/// What all rounds found.
#[derive(Default)]
struct Totals {
    judged: Vec<Judged>,
    refused: u64,
    /// Why, as the agent's log has it: a reason that repeats itself is there once.
    reasons: BTreeMap<String, usize>,
    written: u64,
    bytes: u64,
    files_written: u64,
    /// File systems of points that were looked at, and what was wrong with which.
    file_systems: usize,
    broken: Vec<String>,
    durable: usize,
    /// Points that were retracted, by disk and reason.
    retracted: BTreeMap<String, usize>,
    without_files: usize,
}

/// Measures it.
pub(crate) fn measure(rig: &Rig, wanted: usize) -> Result<Findings> {
    let mut totals = Totals::default();
    let mut seed = 1;
    while totals.judged.len() < wanted {
        let before = totals.judged.len();
        round(rig, seed, ROUND.min(wanted - before), &mut totals)?;
        anyhow::ensure!(totals.judged.len() > before, "a round without a point");
        eprintln!("  {} points", totals.judged.len());
        seed += 1;
    }
    Ok(findings(&totals))
}

/// One site, from its making to the judgement of its points.
fn round(rig: &Rig, seed: u64, wanted: usize, totals: &mut Totals) -> Result<()> {
    let program = pinnace_binary()?;
    let setting = Setting { program: &program, settings: SETTINGS, mistake: None, len: LEN };
    let mut stage = Stage::set(rig, &setting)?;
    let files = Files::make(rig, |disk| protect(&stage.site, disk))?;
    let application = files.start(seed)?;
    let load = stage.load(PointLoadSpec { seed, ..PointLoadSpec::new(Rate::PerSecond(RATE)) })?;
    let (since, before) = (now(), stage.counts()?);
    let after = wait_for(&stage, before, wanted)?;
    let written = load.stop()?;
    let (files_written, looks) = application.stop()?;
    stage.await_confirmation(&files.disk)?;
    stage.await_confirmation(&stage.disk)?;
    for reason in refusals(&stage.site.agent.log()?) {
        *totals.reasons.entry(reason).or_default() += 1;
    }
    let store = stage.store()?;
    let mut made = points(&store, since)?;
    made.truncate(wanted);
    totals.refused += after.refused - before.refused;
    totals.written += written.writes;
    totals.bytes += written.bytes;
    totals.files_written += files_written;
    look_at_files(rig, (&store, &files), &made, (&looks, totals))?;
    note_retracted((&stage, &files), &made, totals);
    totals.judged.extend(judge::judge(&stage, &store, &made)?);
    Ok(())
}

/// The reasons of refusals in an agent's log, without the numbers of the one attempt.
fn refusals(log: &str) -> impl Iterator<Item = String> {
    let refused = log.lines().filter(|line| line.contains("no recovery point"));
    refused.map(|line| {
        let (_, words) = line.split_once("REASON=").unwrap_or(("", line));
        let words = words.split([';', '\n']).next().unwrap_or(words);
        words.trim_matches(['"', ' ']).chars().filter(|letter| !letter.is_ascii_digit()).collect()
    })
}

/// Waits until so many points were made since `before`.
fn wait_for(stage: &Stage, before: Counts, wanted: usize) -> Result<Counts> {
    let limit = PATIENCE + Duration::from_secs(2 * wanted as u64);
    let began = Instant::now();
    loop {
        // Each question costs a process: not often.
        std::thread::sleep(Duration::from_millis(500));
        let counts = stage.counts()?;
        if counts.made >= before.made + wanted as u64 {
            return Ok(counts);
        }
        anyhow::ensure!(began.elapsed() < limit, "{counts:?} in {limit:?}\n{}", stage.site.logs());
    }
}

fn look_at_files(
    rig: &Rig,
    (store, files): (&Store, &Files),
    points: &[MachinePoint],
    (looks, totals): (&Looks, &mut Totals),
) -> Result<()> {
    for point in points.iter().step_by(FILES_EVERY) {
        let Some((_, of_disk)) = point.disks.iter().find(|(id, _)| *id == files.id) else {
            continue;
        };
        // One that was retracted is not relied on.
        if matches!(of_disk.status, PointStatus::Retracted(_)) {
            continue;
        }
        totals.file_systems += 1;
        match looks.check(rig, &judge::view(store, files.id, point)?) {
            Ok(durable) => totals.durable += durable,
            Err(error) => totals.broken.push(format!("{}: {error:#}", point.record.id)),
        }
    }
    Ok(())
}

fn note_retracted((stage, files): (&Stage, &Files), points: &[MachinePoint], totals: &mut Totals) {
    for point in points {
        totals.without_files += usize::from(!point.disks.iter().any(|(id, _)| *id == files.id));
        for (id, of_disk) in &point.disks {
            if let PointStatus::Retracted(reason) = of_disk.status {
                let class = if *id == stage.id { "zram" } else { "loop" };
                *totals.retracted.entry(format!("{class}: {reason}")).or_default() += 1;
            }
        }
    }
}

fn findings(totals: &Totals) -> Findings {
    let Totals { judged, refused, file_systems, broken, .. } = totals;
    let mut found = Findings::default();
    let count = |is: &dyn Fn(&Judged) -> bool| judged.iter().filter(|judged| is(judged)).count();
    let status = |status| count(&|judged: &Judged| judged.point.status() == status);
    let retracted = count(&Judged::is_retracted);
    found.row("points made", judged.len());
    found.row("points refused", refused);
    for (reason, times) in &totals.reasons {
        found.row(&format!("refused at least, {reason}"), times);
    }
    found.row("confirmed", status(PointStatus::Confirmed));
    found.row("provisional at the end", status(PointStatus::Provisional));
    found.row("retracted", retracted);
    for (why, points) in &totals.retracted {
        found.row(&format!("retracted, {why}"), points);
    }
    found.row("of the stamped disk alone, since the other did not follow", totals.without_files);
    found.row(
        "retracted, and the stamped disk was one instant all the same",
        share(count(&|judged| judged.is_retracted() && judged.invalid.is_none()), retracted),
    );
    found.row("stamped writes", totals.written);
    found.row("their bytes", ByteLen(totals.bytes));
    found.row("stamped disks read whole", share(count(&|judged| judged.whole), judged.len()));
    found.row("files made durable", totals.files_written);
    found.row("files that were found whole in points", totals.durable);
    show_cuts(&mut found, judged);
    let hidden = totals.reasons.iter().filter(|(reason, _)| reason.contains(HIDDEN));
    let hidden: usize = hidden.map(|(_, times)| times).sum();
    found.row("refused, since the kernel hid a completion: counted apart", hidden);
    let refused = usize::try_from(*refused).unwrap_or(usize::MAX).saturating_sub(hidden);
    let tried = judged.len() + refused;
    let verified = count(&Judged::is_verified);
    found.at_least("points tried that were made without a freeze", (verified, tried), 99);
    let valid = count(&|judged| judged.invalid.is_none());
    found.at_least("points whose stamped disk is one instant", (valid, judged.len()), 100);
    let sound = file_systems - broken.len();
    let what = "file systems sound after the replay of their journal, each durable file whole";
    found.at_least(what, (sound, *file_systems), 100);
    found.points = judged.iter().map(Judged::json).collect();
    found.points.extend(broken.iter().map(|why| serde_json::json!({ "file_system": why })));
    found
}

/// Windows and attempts, held against what is promised of them.
fn show_cuts(found: &mut Findings, judged: &[Judged]) {
    let mut windows: Vec<Duration> = judged.iter().map(|of| of.point.record.window).collect();
    let mut attempts: Vec<u32> = judged.iter().map(|of| of.point.record.attempts).collect();
    windows.sort_unstable();
    attempts.sort_unstable();
    let (median, p99) = (quantile(&windows, 50), quantile(&windows, 99));
    found.row(
        "attempts, median, 99 %, most",
        format!(
            "{}, {}, {}",
            quantile(&attempts, 50),
            quantile(&attempts, 99),
            quantile(&attempts, 100)
        ),
    );
    found.row("window, longest", micros(quantile(&windows, 100)));
    let met =
        |window: Duration, most: u64| !window.is_zero() && window <= Duration::from_millis(most);
    found.verdict(
        "window from T to the last look, median",
        micros(median),
        "at most 1 ms",
        met(median, 1),
    );
    found.verdict("the same, 99 %", micros(p99), "at most 10 ms", met(p99, 10));
}

/// The smallest value that so many percent do not exceed; the default if there is none.
pub(crate) fn quantile<T: Copy + Default>(sorted: &[T], percent: usize) -> T {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

pub(crate) fn micros(time: Duration) -> String {
    format!("{} us", time.as_micros())
}
