//! The benchmarks: built in release, run as root, on disks they make themselves.

use anyhow::{Context, Result};

use crate::{
    Consent,
    command::{as_root, become_command, built, cargo, run as run_command},
    packages::Purpose,
    setup,
};

/// The task `bench`: ends with the benchmarks' own exit code.
pub(crate) fn run(consent: Consent) -> Result<()> {
    setup::ensure_installed(Purpose::Bench, consent)?;
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
    become_command(&mut benches).map(|never| match never {})
}
