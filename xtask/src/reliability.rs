//! The reliability of recovery points: built in release, run as root, on disks it makes itself.
//!
//! Two agents are built: the one that is measured, and one that can be told to make mistakes.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    Consent,
    command::{as_root, become_command, built, cargo, command, repository, run as run_command},
    document,
    packages::Purpose,
    setup,
};

/// What is known of recovery points, with the tables that commands write.
const DOCUMENT: &str = "docs/reliability.md";

/// What is asked of the measurements; they say what there is themselves.
#[derive(Args)]
pub(crate) struct Wanted {
    #[command(flatten)]
    consent: Consent,
    /// Only this measurement; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Points of each measurement (or kills, or upgrades), in place of its own number.
    #[arg(long, value_name = "N")]
    points: Option<usize>,
}

/// The task `reliability`: ends with the measurements' own exit code.
pub(crate) fn run(wanted: &Wanted) -> Result<()> {
    setup::ensure_installed(Purpose::Test.of_measurements(&wanted.only), wanted.consent)?;
    become_command(&mut measurements(&wanted.only, wanted.points)?).map(|never| match never {})
}

/// Runs some of the measurements, with their own numbers.
pub(crate) fn run_only(names: &[&str]) -> Result<()> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    run_command(&mut measurements(&names, None)?)
}

/// Builds what is measured, and what measures.
fn measurements(only: &[String], points: Option<usize>) -> Result<Command> {
    let agent = ["build", "--release", "--package", "pinnace"];
    run_command(cargo(&agent).args(["--features", "pinnace/mutants"])).context("building")?;
    let (pinnace, mutants) =
        (built("release").join("pinnace"), built("release").join("pinnace-mutants"));
    fs::copy(pinnace, mutants).context("putting the agent with mistakes aside")?;
    run_command(cargo(&agent).args(["--package", "benches"])).context("building")?;
    let mut measure = as_root(built("release").join("reliability"))?;
    for name in only {
        measure.args(["--only", name]);
    }
    if let Some(points) = points {
        measure.args(["--points", &points.to_string()]);
    }
    Ok(measure)
}

/// Writes what `command` has found, with where it was found, between its marks in the document.
pub(crate) fn write(command: &str, found: &str) -> Result<()> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let text = format!("Linux {}; commit {}.\n\n{found}\n", kernel.trim(), commit());
    document::write(&repository().join(DOCUMENT), command, &text)
}

/// The commit that is checked out, with `+` if the tree differs from it.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = command("git").args(arguments).output().ok();
        let output = output.filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".into() };
    let clean =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| s.is_empty());
    if clean { commit } else { format!("{commit}+") }
}

/// A table, as Markdown.
pub(crate) struct Table(String);

impl Table {
    /// An empty one with these columns.
    pub(crate) fn new<const N: usize>(columns: [&str; N]) -> Self {
        Self(format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(N)))
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: &[String; N]) {
        self.0.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
