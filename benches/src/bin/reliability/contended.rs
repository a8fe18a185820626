//! Full speed on a small disk: every block is rewritten many times a second, so that a cut that is
//! wrong by a little gives a point that is none.
//!
//! Points are asked for one after the other, at most ten a second: the policy makes no more than
//! one a second by itself.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use blocks::{ByteLen, PointId};
use serde_json::Value;
use vm_tests::{PointLoadSpec, Rate, Rig, pinnace_binary};

use crate::findings::Findings;
use crate::judge::{self, Judged};
use crate::stage::{Setting, Stage, now, points};
use crate::steady::{micros, quantile};

pub(crate) const NAME: &str = "contended";
const EVERY: Duration = Duration::from_millis(100);
const WRITERS: u32 = 8;
/// Less than it takes to make a site.
const SITE: Duration = Duration::from_secs(3);
/// Points that are asked for of one site: each is a delta of all of the disk, in memory.
const ROUND: usize = 100;
/// No points but those that are asked for, and no deltas between them.
const SETTINGS: &str = "interval = \"1h\"\ndirty_threshold_percent = 100\n\
    [policy]\npoint_interval = \"0s\"\n";

/// What points are asked of.
pub(crate) struct Site<'a> {
    /// The agent.
    pub(crate) program: &'a Path,
    /// A mistake that it is to make.
    pub(crate) mistake: Option<&'a str>,
    /// The length of the disk.
    pub(crate) len: ByteLen,
    /// The largest write to it.
    pub(crate) largest: ByteLen,
    pub(crate) seed: u64,
}

impl<'a> Site<'a> {
    /// The disk of this measurement, with an agent that makes no mistake.
    pub(crate) const fn new(program: &'a Path, seed: u64) -> Self {
        let (len, largest) = (ByteLen(16 << 20), ByteLen(64 << 10));
        Self { program, mistake: None, len, largest, seed }
    }
}

/// What came of so many points that were asked for.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) asked: usize,
    pub(crate) judged: Vec<Judged>,
    pub(crate) refused: Vec<String>,
    pub(crate) writes: u64,
    pub(crate) bytes: u64,
}

/// Measures it.
pub(crate) fn measure(rig: &Rig, wanted: usize) -> Result<Findings> {
    let program = pinnace_binary()?;
    let mut all = Asked::default();
    let mut seed = 1;
    while all.asked < wanted {
        let asked = ask(rig, &Site::new(&program, seed), ROUND.min(wanted - all.asked))?;
        all.add(asked);
        eprintln!("  {} points of {}, {} invalid", all.judged.len(), all.asked, all.invalid());
        seed += 1;
    }
    let mut found = Findings::default();
    found.row("points asked for", all.asked);
    found.row("points made", all.judged.len());
    for (reason, times) in all.reasons() {
        found.row(&format!("refused: {reason}"), times);
    }
    found.row("stamped writes", all.writes);
    found.row("their bytes", ByteLen(all.bytes));
    let mut windows: Vec<Duration> = all.judged.iter().map(|of| of.point.record.window).collect();
    let mut attempts: Vec<u32> = all.judged.iter().map(|of| of.point.record.attempts).collect();
    windows.sort_unstable();
    attempts.sort_unstable();
    found.row("from one point to the next, median", millis(quantile(&all.apart(), 50)));
    let at = |percent| {
        format!("{}, {}", quantile(&attempts, percent), micros(quantile(&windows, percent)))
    };
    for (name, percent) in [("median", 50), ("99 %", 99), ("most", 100)] {
        found.row(&format!("attempts and window, {name}"), at(percent));
    }
    let verified = all.judged.iter().filter(|of| of.is_verified()).count();
    found.at_least("points asked for that were made without a freeze", (verified, all.asked), 95);
    let valid = all.judged.len() - all.invalid();
    found.at_least("points that are one instant", (valid, all.judged.len()), 100);
    found.points = all.judged.iter().map(Judged::json).collect();
    Ok(found)
}

/// One site: points are asked for under full load, and judged.
pub(crate) fn ask(rig: &Rig, site: &Site<'_>, wanted: usize) -> Result<Asked> {
    let &Site { program, mistake, len, largest, seed } = site;
    let mut stage = Stage::set(rig, &Setting { program, settings: SETTINGS, mistake, len })?;
    let spec = PointLoadSpec { writers: WRITERS, largest, seed, ..PointLoadSpec::new(Rate::Full) };
    let load = stage.load(spec)?;
    let since = now();
    let mut all = Asked { asked: wanted, ..Asked::default() };
    let mut made: Vec<PointId> = Vec::new();
    for _ in 0..wanted {
        let began = Instant::now();
        match stage.site.agent(&["point", "create", "--json"]) {
            Ok(printed) => made.extend(id_of(&printed)?),
            Err(why) => all.refused.push(format!("{why:#}")),
        }
        std::thread::sleep(EVERY.saturating_sub(began.elapsed()));
    }
    let written = load.stop()?;
    let store = stage.store()?;
    let mut found = points(&store, since)?;
    found.retain(|point| made.contains(&point.record.id));
    anyhow::ensure!(
        found.len() == made.len(),
        "{} of {} points are there",
        found.len(),
        made.len()
    );
    all.judged = judge::judge(&stage, &store, &found)?;
    (all.writes, all.bytes) = (written.writes, written.bytes);
    Ok(all)
}

fn id_of(printed: &str) -> Result<Option<PointId>> {
    let made: Value = serde_json::from_str(printed)?;
    Ok(made["id"].as_str().and_then(|id| id.parse().ok()))
}

fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

impl Asked {
    pub(crate) fn invalid(&self) -> usize {
        self.judged.iter().filter(|of| of.invalid.is_some()).count()
    }

    /// How far apart points of one site were, sorted.
    fn apart(&self) -> Vec<Duration> {
        let at = |judged: &Judged| judged.point.record.cut.monotonic;
        let neighbours = self.judged.windows(2).map(|two| at(&two[1]).since(at(&two[0])));
        // From one site to the next it takes longer.
        let mut apart: Vec<_> = neighbours.filter(|apart| *apart < SITE).collect();
        apart.sort_unstable();
        apart
    }

    /// Why points were refused, and how often.
    pub(crate) fn reasons(&self) -> std::collections::BTreeMap<&str, usize> {
        let mut reasons = std::collections::BTreeMap::new();
        for reason in &self.refused {
            let (_, words) = reason.split_once("no recovery point: ").unwrap_or(("", reason));
            // What follows names numbers of this one attempt.
            let words = words.split([';', '\n']).next().unwrap_or(words);
            *reasons.entry(words).or_default() += 1;
        }
        reasons
    }

    fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.judged.extend(other.judged);
        self.refused.extend(other.refused);
        self.writes += other.writes;
        self.bytes += other.bytes;
    }
}
