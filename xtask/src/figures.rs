//! How much was tried: runs of the simulator, images of crashes, failed operations, kills, mutants of
//! points. Tests count, and print lines `figure: WHAT: HOW MANY`; they fail by themselves where a
//! number is too small or something was found. This gathers the lines.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    Consent,
    command::{built, cargo, command, read, run as run_command, show},
    packages::Purpose,
    reliability::{self, Table},
    setup,
    test::with_devices,
};

/// What is asked of the figures.
#[derive(Args)]
pub(crate) struct Figures {
    #[command(flatten)]
    consent: Consent,
    /// Seeds of the simulator.
    #[arg(long, default_value_t = 5000)]
    seeds: u64,
    /// Kills and halts of real daemons.
    #[arg(long, default_value_t = 300)]
    kills: u64,
}

/// What a line begins with that holds a figure.
const MARK: &str = "figure: ";

/// The task `figures`.
pub(crate) fn run(wanted: &Figures) -> Result<()> {
    setup::ensure_installed(Purpose::Test, wanted.consent)?;
    reliability::write("cargo xtask figures", &count(wanted.seeds, wanted.kills)?.to_string())
}

/// Tries so much, and says how much it was.
pub(crate) fn count(seeds: u64, kills: u64) -> Result<Table> {
    let mut table = Table::new(["what", "how many"]);
    for ran in [simulated(seeds)?, stored()?, judged()?, killed(kills)?] {
        for line in ran.lines() {
            let Some((_, figure)) = line.split_once(MARK) else { continue };
            let (what, count) = figure.rsplit_once(": ").context("a figure without a number")?;
            table.row(&[what.into(), count.into()]);
        }
    }
    Ok(table)
}

fn simulated(seeds: u64) -> Result<String> {
    run_command(&mut cargo(&["build", "--release", "--package", "sim"])).context("building")?;
    let mut sim = command(built("release").join("sim"));
    read_all(sim.args(["seeds", "--seeds", &seeds.to_string()]))
}

fn stored() -> Result<String> {
    read_all(&mut counting("replica", &["--lib"], "tests::exhaustive::"))
}

fn judged() -> Result<String> {
    read_all(&mut counting("oracle", &["--lib"], "mutants_of_valid_points_are_caught"))
}

fn killed(kills: u64) -> Result<String> {
    let mut tests = counting("pinnace", &["--test", "cuts"], "killed::");
    tests.env("PINNACE_KILLS", kills.to_string());
    read_all(with_devices(&mut tests)?)
}

/// Tests of a room whose output is shown.
fn counting(room: &str, of: &[&str], filter: &str) -> Command {
    let mut tests = cargo(&["test", "--package", room]);
    tests.args(of).args(["--", "--nocapture", "--test-threads=1", filter]);
    tests
}

/// What a command prints that has to succeed.
fn read_all(command: &mut Command) -> Result<String> {
    let ran = read(command)?;
    ensure!(ran.succeeded, "{} failed", show(command));
    Ok(ran.printed)
}
