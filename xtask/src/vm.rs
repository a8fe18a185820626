//! Kernels by kinds of disks, in virtual machines.

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
    matrix(&["--full", "--table", TABLE])
}

/// What the tests run.
pub(crate) fn subset() -> Result<()> {
    if env::var_os(SKIP_VARIABLE).is_some_and(|value| value == "1") {
        eprintln!("virtual machines are skipped: {SKIP_VARIABLE}=1");
        return Ok(());
    }
    matrix(&[])
}

fn matrix(arguments: &[&str]) -> Result<()> {
    run_command(&mut cargo(&["build", "--package", "vm-guest"])).context("building")?;
    run_command(as_root(built("debug").join("matrix"))?.args(arguments))
        .context("kernels by kinds of disks")
}
