//! What takes hours to be convincing, for the night: kills, upgrades of programs, fuzzing.

use anyhow::{Context, Result};

use crate::{command, fuzz, reliability, test};

/// A test that does as often as a variable says what it does a few times by day.
struct Endurance {
    package: &'static str,
    program: &'static str,
    tests: &'static str,
    variable: &'static str,
    times: u32,
}

const ENDURED: [Endurance; 1] = [Endurance {
    package: "ebpf",
    program: "kernel",
    tests: "upgrade::",
    variable: "PINNACE_UPGRADES",
    times: 100,
}];

/// A thousand kills of agents, and a hundred upgrades.
const MEASURED: [&str; 2] = ["kills", "upgrades"];

/// How long each decoder is fuzzed, in seconds.
const FUZZED: u64 = 600;

/// Runs all of it.
pub(crate) fn run() -> Result<()> {
    for Endurance { package, program, tests, variable, times } in ENDURED {
        let mut run = command::cargo(&["test", "--package", package, "--test", program]);
        run.env(variable, times.to_string()).args(["--", tests, "--nocapture"]);
        run.arg("--test-threads=1");
        command::run(test::with_root(&mut run)?)
            .with_context(|| format!("{tests} with {variable}={times}"))?;
    }
    reliability::run_only(&MEASURED).context("kills and upgrades of agents")?;
    fuzz::run_for(FUZZED).context("fuzzing")
}
