//! Kernels by kinds of disks, and boots of a protected root disk, in virtual machines.

use std::env;

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    Consent,
    command::{as_root, built, cargo, run as run_command},
    packages::Purpose,
    setup,
};

/// Set to `1`, this skips the virtual machines in the tests, and they say so.
const SKIP_VARIABLE: &str = "PINNACE_SKIP_VM_TESTS";

/// How often each kind of boot is made in a night.
const BOOTS_OF_A_NIGHT: u32 = 100;

/// Written on demand, and by the night.
const TABLE: &str = "docs/kernels.md";

/// What is asked of the matrix; without anything, what continuous integration runs.
#[derive(Args)]
pub(crate) struct Wanted {
    #[command(flatten)]
    consent: Consent,
    /// Five times the writes, file systems on more disks, and all kernels if none is named.
    #[arg(long)]
    full: bool,
    /// Write the table of what was run to `docs/kernels.md`.
    #[arg(long)]
    table: bool,
    /// Instead of kernels and disks, boots of a protected root disk: so many of each kind, and a fifth
    /// of them with a root on NVMe multipath.
    #[arg(long, value_name = "N", conflicts_with_all = ["full", "table", "kernel", "only"])]
    boots: Option<u32>,
    /// Only this series (5.10, 6.1, 6.12, newest); may be repeated.
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<String>,
    /// Only cases whose name has this in it; may be repeated.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
}

/// The task `vm`.
pub(crate) fn run(wanted: &Wanted) -> Result<()> {
    setup::ensure_installed(Purpose::Test, wanted.consent)?;
    if let Some(rounds) = wanted.boots {
        return boots(rounds);
    }
    let mut arguments = Vec::new();
    if wanted.full {
        arguments.push("--full");
    }
    if wanted.table {
        arguments.extend(["--table", TABLE]);
    }
    arguments.extend(wanted.kernel.iter().flat_map(|series| ["--kernel", series]));
    arguments.extend(wanted.only.iter().flat_map(|text| ["--only", text]));
    matrix(&arguments)
}

/// What a night runs.
pub(crate) fn in_full() -> Result<()> {
    matrix(&["--full", "--table", TABLE])?;
    boots(BOOTS_OF_A_NIGHT)
}

/// What the tests run.
pub(crate) fn subset() -> Result<()> {
    if env::var_os(SKIP_VARIABLE).is_some_and(|value| value == "1") {
        eprintln!("virtual machines are skipped: {SKIP_VARIABLE}=1");
        return Ok(());
    }
    matrix(&[])?;
    boots(rounds_of_a_test()?)
}

/// Boots of each kind in the tests: as many as `PINNACE_BOOTS` says, or five.
fn rounds_of_a_test() -> Result<u32> {
    env::var("PINNACE_BOOTS").map_or(Ok(5), |text| text.parse().context("PINNACE_BOOTS"))
}

/// Builds early-attach as it is shipped, so that it needs no library where it runs.
pub(crate) fn build_early_attach() -> Result<()> {
    let build = ["rustc", "--package", "early-attach", "--bin", "early-attach", "--"];
    let mut build = cargo(&build);
    run_command(build.args(["-C", "target-feature=+crt-static"])).context("building")
}

fn boots(rounds: u32) -> Result<()> {
    run_command(&mut cargo(&["build", "--package", "vm-guest", "--package", "pinnace"]))
        .context("building")?;
    build_early_attach()?;
    // A root over several paths goes the same way, but for how it is tracked.
    let of_multipath = rounds.div_ceil(5);
    for (root, rounds) in [("virtio", rounds), ("multipath", of_multipath)] {
        let mut boots = as_root(built("debug").join("boots"))?;
        run_command(boots.args(["--rounds", &rounds.to_string(), "--root", root]))
            .with_context(|| format!("boots of a protected root disk, {root}"))?;
    }
    Ok(())
}

fn matrix(arguments: &[&str]) -> Result<()> {
    run_command(&mut cargo(&["build", "--package", "vm-guest"])).context("building")?;
    run_command(as_root(built("debug").join("matrix"))?.args(arguments))
        .context("kernels by kinds of disks")
}
