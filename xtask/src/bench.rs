//! The benchmarks: built in release, run as root, on disks they make themselves.

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    Consent,
    command::{as_root, become_command, built, cargo, run as run_command},
    packages::Purpose,
    setup,
};

/// What is asked of the benchmarks; they say what there is themselves.
#[derive(Args)]
pub(crate) struct Wanted {
    #[command(flatten)]
    consent: Consent,
    /// Only this benchmark; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Rounds of each benchmark, in place of its own number.
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
}

/// The task `bench`: ends with the benchmarks' own exit code.
pub(crate) fn run(wanted: &Wanted) -> Result<()> {
    setup::ensure_installed(Purpose::Bench.of_measurements(&wanted.only), wanted.consent)?;
    run_command(&mut cargo(&[
        "build",
        "--release",
        "--package",
        "pinnace",
        "--package",
        "benches",
    ]))
    .context("building")?;
    let mut benches = as_root(built("release").join("benches"))?;
    for name in &wanted.only {
        benches.args(["--only", name]);
    }
    if let Some(runs) = wanted.runs {
        benches.args(["--runs", &runs.to_string()]);
    }
    become_command(&mut benches).map(|never| match never {})
}
