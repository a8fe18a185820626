//! The simulator: many seeds, and the long run of a night.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    Consent,
    command::{built, cargo, command, run as run_command},
    figures,
    packages::Purpose,
    setup,
};

/// What is asked of the simulator.
#[derive(Args)]
pub(crate) struct Seeds {
    /// How many seeds.
    #[arg(long, default_value_t = 5000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
}

/// What is asked of a night.
#[derive(Args)]
pub(crate) struct Night {
    /// How long to go on, in minutes.
    #[arg(long, default_value_t = 360)]
    minutes: u64,
    /// The first seed; another each night.
    #[arg(long)]
    from: u64,
    /// Kills and halts of real daemons, before the seeds.
    #[arg(long, default_value_t = 1000)]
    kills: u64,
    #[command(flatten)]
    consent: Consent,
}

/// Seeds a night runs between two looks at the clock.
const BATCH: u64 = 50_000;

/// The task `sim`.
pub(crate) fn run(wanted: &Seeds) -> Result<()> {
    build()?;
    seeds(wanted.from, wanted.seeds)
}

/// The task `nightly`: what the tests count, in large numbers, then new seeds until the time is over.
pub(crate) fn nightly(wanted: &Night) -> Result<()> {
    setup::ensure_installed(Purpose::Test, wanted.consent)?;
    let (began, mut from) = (Instant::now(), wanted.from);
    println!("{}", figures::count(BATCH, wanted.kills)?);
    build()?;
    while began.elapsed() < Duration::from_secs(wanted.minutes * 60) {
        seeds(from, BATCH)?;
        from += BATCH;
    }
    Ok(())
}

fn build() -> Result<()> {
    run_command(&mut cargo(&["build", "--release", "--package", "sim"])).context("building")
}

fn seeds(from: u64, seeds: u64) -> Result<()> {
    let (from, seeds) = (from.to_string(), seeds.to_string());
    let mut sim = command(built("release").join("sim"));
    run_command(sim.args(["seeds", "--from", &from, "--seeds", &seeds]))
        .context("a seed failed: `sim run --trace --seed N` replays it")
}
