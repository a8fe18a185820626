//! PostgreSQL, recovered to points: built in release, run as root, on disks made for it.

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    Consent,
    command::{as_root, become_command, built, cargo, run as run_command},
    packages::Purpose,
    setup,
};

/// What is asked of it.
#[derive(Args)]
pub(crate) struct Wanted {
    #[command(flatten)]
    consent: Consent,
    /// How long the clients write, in seconds.
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// How many points are recovered.
    #[arg(long, value_name = "N")]
    points: Option<usize>,
    /// Which points are chosen.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// The task `postgres`: ends with its program's own exit code.
pub(crate) fn run(wanted: &Wanted) -> Result<()> {
    setup::ensure_installed(Purpose::Bench, wanted.consent)?;
    run_command(&mut cargo(&[
        "build",
        "--release",
        "--package",
        "pinnace",
        "--package",
        "benches",
    ]))
    .context("building")?;
    let mut program = as_root(built("release").join("postgres"))?;
    let numbers = [
        ("--seconds", wanted.seconds),
        ("--points", wanted.points.map(|points| points as u64)),
        ("--seed", wanted.seed),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            program.args([name, &value.to_string()]);
        }
    }
    become_command(&mut program).map(|never| match never {})
}
