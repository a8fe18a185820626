//! Mistakes made on purpose: a judge that finds every point valid says nothing until it has found
//! the points of these to be invalid, under the same load.

use anyhow::{Context, Result, ensure};
use vm_tests::{Rig, pinnace_binary};

use crate::contended::ask;
use crate::findings::{Findings, share};

pub(crate) const NAME: &str = "mistakes";

/// By the names that the agent knows them by, and in words.
const MISTAKES: [(&str, &str); 5] = [
    ("NoLook", "the conflict table is not asked"),
    ("InstantBeforeFlip", "T is taken, then the table is flipped"),
    ("HarvestBeforeFlip", "the dirty bits are taken, then the table is flipped"),
    ("LookBeforeRead", "the table is asked when a read is issued"),
    ("ClearedAfterRead", "dirty bits are cleared once their chunks were read"),
];

/// Measures it: so many points a mistake.
pub(crate) fn measure(rig: &Rig, wanted: usize) -> Result<Findings> {
    let program = pinnace_binary()?.with_file_name("pinnace-mutants");
    ensure!(program.is_file(), "no {}: cargo xtask reliability builds it", program.display());
    let mut found = Findings::default();
    for (seed, (name, words)) in (100..).zip(MISTAKES) {
        let asked = ask(rig, (&program, Some(name)), wanted, seed).context(name)?;
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
