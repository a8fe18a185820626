//! Writers that dirty more than the memory for images while a delta is sent, however small it is.
//! There can hardly be a point; that is said, and none is made that is not one.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use blocks::ByteLen;
use vm_tests::{PointLoadSpec, Rate, Rig, pinnace_binary};

use crate::findings::Findings;
use crate::judge::{self, Judged};
use crate::stage::{Setting, Stage, now, points};

pub(crate) const NAME: &str = "overload";
const LEN: ByteLen = ByteLen(512 << 20);
/// Little memory for images, so that refusals come quickly, and many can be seen.
const SETTINGS: &str = "interval = \"1s\"\ndirty_threshold_percent = 100\n\
    [policy]\npoint_interval = \"1s\"\ncut_memory = \"4MiB\"\n";
const RATE: ByteLen = ByteLen(128 << 20);
const WORDS: &str = "cannot keep up";
const PATIENCE: Duration = Duration::from_secs(300);

/// All memory, and writers that take what processors there are.
const FULL: &str = "interval = \"1s\"\ndirty_threshold_percent = 100\n\
    [policy]\npoint_interval = \"1s\"\n";
/// A point that is due is tried for a minute; a cut may end a little later.
const SILENCE_MAX: Duration = Duration::from_secs(70);

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
    drop((store, stage));
    let (silence, word) = first_word(rig, &program)?;
    found.row("writers at full speed, all memory: the first word after", format!("{silence:.1?}"));
    found.row("which is", word);
    let in_time = silence <= SILENCE_MAX;
    let bar = format!("at most {} s", SILENCE_MAX.as_secs());
    found.verdict("its seconds of silence", silence.as_secs(), &bar, in_time);
    found.points = judged.iter().map(Judged::json).collect();
    found.points.extend(
        said.iter().map(|(why, times)| serde_json::json!({ "refused": why, "times": times })),
    );
    Ok(found)
}

/// How long writers at full speed keep an agent from making a point or refusing it, and what comes
/// then.
fn first_word(rig: &Rig, program: &Path) -> Result<(Duration, String)> {
    let setting = Setting { program, settings: FULL, mistake: None, len: LEN };
    let mut stage = Stage::set(rig, &setting)?;
    let load = stage.load(PointLoadSpec { writers: 8, ..PointLoadSpec::new(Rate::Full) })?;
    std::thread::sleep(Duration::from_secs(1));
    let (since, before, began) = (now(), stage.counts()?, Instant::now());
    let word = loop {
        let status = stage.site.status()?;
        let is_more = |name: &str, than: u64| status["points"][name].as_u64() > Some(than);
        if is_more("refused", before.refused) {
            let reason = status["points"]["last_refusal"]["reason"].as_str();
            break reason.unwrap_or("a point all the same").to_owned();
        }
        if is_more("made", before.made) {
            break "a point".to_owned();
        }
        if began.elapsed() > 2 * SILENCE_MAX {
            eprintln!("  no word: {status:#}\n{}", stage.site.logs());
            break "nothing".to_owned();
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let silence = began.elapsed();
    load.stop()?;
    let store = stage.store()?;
    let judged = judge::judge(&stage, &store, &points(&store, since)?)?;
    ensure!(judged.iter().all(|of| of.invalid.is_none()), "a point is not one instant");
    Ok((silence, word))
}
