//! Mistakes made on purpose: a judge that finds every point valid says nothing until it has found
//! the points of these to be invalid, under the same load.

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use vm_tests::{Rig, pinnace_binary};

use crate::contended::{Site, ask};
use crate::findings::{Findings, share};

pub(crate) const NAME: &str = "mistakes";

/// One mistake.
struct Mistake {
    /// As the agent knows it.
    name: &'static str,
    words: &'static str,
    /// The disk, and the largest write to it, if not those of the measurement of right cuts.
    smaller: Option<(ByteLen, ByteLen)>,
}

const MISTAKES: [Mistake; 6] = [
    on_the_same_disk("NoLook", "the conflict table is not asked"),
    on_the_same_disk("InstantBeforeFlip", "T is taken, then the table is flipped"),
    on_the_same_disk("HarvestBeforeFlip", "the dirty bits are taken, then the table is flipped"),
    on_the_same_disk("LookBeforeRead", "the table is asked when a read is issued"),
    on_the_same_disk("ClearedAfterRead", "dirty bits are cleared once their chunks were read"),
    Mistake {
        name: "SummaryBehindBit",
        words: "dirty bits are found by a summary that is set after a bit, by who found it clear",
        // It takes two writes of one chunk within two milliseconds.
        smaller: Some((ByteLen(256 << 10), ByteLen(4 << 10))),
    },
];

const fn on_the_same_disk(name: &'static str, words: &'static str) -> Mistake {
    Mistake { name, words, smaller: None }
}

/// Measures it: so many points a mistake.
pub(crate) fn measure(rig: &Rig, wanted: usize) -> Result<Findings> {
    let program = pinnace_binary()?.with_file_name("pinnace-mutants");
    ensure!(program.is_file(), "no {}: cargo xtask reliability builds it", program.display());
    let mut found = Findings::default();
    for (seed, Mistake { name, words, smaller }) in (100..).zip(MISTAKES) {
        let mut site = Site { mistake: Some(name), ..Site::new(&program, seed) };
        if let Some((len, largest)) = smaller {
            site = Site { len, largest, ..site };
        }
        let asked = ask(rig, &site, wanted).context(name)?;
        let (invalid, made) = (asked.invalid(), asked.judged.len());
        eprintln!("  {name}: {invalid} of {made} invalid");
        found.row(&format!("{words}: points refused"), asked.refused.len());
        let what = format!("{words}: points found invalid");
        found.verdict(&what, share(invalid, made), "at least 1", invalid > 0);
        found.points.extend(
            asked
                .judged
                .iter()
                .map(|of| serde_json::json!({ "mistake": name, "point": of.json() })),
        );
    }
    Ok(found)
}
