//! Writers that dirty more than the memory for images while a delta is sent, however small it is.
//! There can hardly be a point; that is said, and none is made that is not one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use blocks::ByteLen;
use vm_tests::{PointLoadSpec, Rate, Rig, pinnace_binary};

use crate::findings::Findings;
use crate::judge::{self, Judged};
use crate::stage::{Setting, Stage, now, points};

pub(crate) const NAME: &str = "overload";
const LEN: ByteLen = ByteLen(512 << 20);
/// Little memory for images, in place of writers that take both processors: a point is refused once
/// three deltas have not helped, and those writers let none through for long.
const SETTINGS: &str = "interval = \"1s\"\ndirty_threshold_percent = 100\n\
    [policy]\npoint_interval = \"1s\"\ncut_memory = \"4MiB\"\n";
const RATE: ByteLen = ByteLen(128 << 20);
const WORDS: &str = "cannot keep up";
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures it until as many points as are wanted were refused.
pub(crate) fn measure(rig: &Rig, wanted: usize) -> Result<Findings> {
    let program = pinnace_binary()?;
    let setting = Setting { program: &program, settings: SETTINGS, mistake: None, len: LEN };
    let mut stage = Stage::set(rig, &setting)?;
    let spec = PointLoadSpec { writers: 8, ..PointLoadSpec::new(Rate::PerSecond(RATE)) };
    let load = stage.load(spec)?;
    // What is dirty before the writers are at speed is a point like any other.
    std::thread::sleep(Duration::from_secs(1));
    let (since, before) = (now(), stage.counts()?);
    let began = Instant::now();
    let mut said: BTreeMap<String, usize> = BTreeMap::new();
    let mut last = before.refused;
    while said.values().sum::<usize>() < wanted && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
        let status = stage.site.status()?;
        let refused = status["points"]["refused"].as_u64().unwrap_or_default();
        if refused > last
            && let Some(reason) = status["points"]["last_refusal"]["reason"].as_str()
        {
            *said.entry(reason.to_owned()).or_default() += 1;
        }
        last = refused;
    }
    let (after, time) = (stage.counts()?, began.elapsed());
    let written = load.stop()?;
    let store = stage.store()?;
    let judged = judge::judge(&stage, &store, &points(&store, since)?)?;
    let mut found = Findings::default();
    found.row("seconds", time.as_secs());
    found.row("stamped writes", written.writes);
    found.row("their bytes", ByteLen(written.bytes));
    found.row("points refused", after.refused - before.refused);
    found.row("points made all the same", judged.len());
    if let Some(reason) = said.keys().find(|reason| reason.contains(WORDS)) {
        found.row("the status says, for example", reason);
    }
    let seen: usize = said.values().sum();
    let clear: usize = said.iter().filter(|(why, _)| why.contains(WORDS)).map(|(_, n)| n).sum();
    found.at_least(&format!("refusals that say \"{WORDS}\""), (clear, seen), 100);
    let invalid = judged.iter().filter(|of| of.invalid.is_some()).count();
    found.verdict("points that are not one instant", invalid, "none", invalid == 0);
    found.points = judged.iter().map(Judged::json).collect();
    found.points.extend(
        said.iter().map(|(why, times)| serde_json::json!({ "refused": why, "times": times })),
    );
    Ok(found)
}
