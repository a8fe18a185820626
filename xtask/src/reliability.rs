//! The reliability of recovery points: built in release, run as root, on disks it makes itself.
//!
//! Two agents are built: the one that is measured, and one that can be told to make mistakes.

use std::fs;

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    Consent,
    command::{as_root, become_command, built, cargo, run as run_command},
    packages::Purpose,
    setup,
};

/// What is asked of the measurements; they say what there is themselves.
#[derive(Args)]
pub(crate) struct Wanted {
    #[command(flatten)]
    consent: Consent,
    /// Only this measurement; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Points of each measurement, in place of its own number.
    #[arg(long, value_name = "N")]
    points: Option<usize>,
}

/// The task `reliability`: ends with the measurements' own exit code.
pub(crate) fn run(wanted: &Wanted) -> Result<()> {
    setup::ensure_installed(Purpose::Test.of_measurements(&wanted.only), wanted.consent)?;
    let agent = ["build", "--release", "--package", "pinnace"];
    run_command(cargo(&agent).args(["--features", "pinnace/mutants"])).context("building")?;
    let (pinnace, mutants) =
        (built("release").join("pinnace"), built("release").join("pinnace-mutants"));
    fs::copy(pinnace, mutants).context("putting the agent with mistakes aside")?;
    run_command(cargo(&agent).args(["--package", "benches"])).context("building")?;
    let mut measure = as_root(built("release").join("reliability"))?;
    for name in &wanted.only {
        measure.args(["--only", name]);
    }
    if let Some(points) = wanted.points {
        measure.args(["--points", &points.to_string()]);
    }
    become_command(&mut measure).map(|never| match never {})
}
