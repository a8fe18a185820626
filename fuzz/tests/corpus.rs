//! The kept inputs, once more: what was found stays found, and what is reached is still reached.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, bail, ensure};
use fuzz::{TARGETS, Target, files};

/// What all kept inputs together may weigh: they are in the repository for good.
const KEPT_BYTES_MAX: usize = 400 << 10;

fn kept(target: &Target) -> Result<Vec<(String, Vec<u8>)>> {
    let mut inputs = files::inputs(&files::corpus(target))?;
    ensure!(!inputs.is_empty(), "{} has no corpus", target.name);
    inputs.extend(files::inputs(&files::regressions(target))?);
    Ok(inputs)
}

/// Runs the seeds, the kept inputs, and each of these cut short.
fn replay(name: &str) -> Result<()> {
    let Some(target) = Target::named(name) else { bail!("{name} is no target") };
    let seeds = (target.seeds)().into_iter().map(|seed| ("a seed".to_owned(), seed));
    for (input, bytes) in seeds.chain(kept(target)?) {
        for len in [bytes.len(), bytes.len() / 2, bytes.len().saturating_sub(1)] {
            let run = AssertUnwindSafe(|| target.run(&bytes[..len]));
            ensure!(catch_unwind(run).is_ok(), "{name} breaks on the first {len} bytes of {input}");
        }
    }
    Ok(())
}

macro_rules! replays {
    ($($test:ident: $name:literal),* $(,)?) => {
        $(#[test]
        fn $test() -> Result<()> {
            replay($name)
        })*

        #[test]
        fn every_target_is_replayed_and_all_of_the_corpus_is_small() -> Result<()> {
            let replayed = [$($name),*];
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            ensure!(names == replayed, "{names:?} are there, {replayed:?} are replayed");
            let mut bytes = 0;
            for target in TARGETS {
                bytes += kept(target)?.iter().map(|(_, input)| input.len()).sum::<usize>();
            }
            ensure!(bytes <= KEPT_BYTES_MAX, "{bytes} bytes are kept");
            Ok(())
        }
    };
}

replays! {
    frames: "frames",
    messages: "messages",
    source_sessions: "source-session",
    target_sessions: "target-session",
    epochs: "epochs",
    stores: "store",
    last_logs: "last-logs",
    logs: "logs",
    nbd: "nbd",
    texts: "texts",
}
