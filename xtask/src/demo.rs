//! The demo: built in release, run as root, on disks it makes itself.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{
    Consent,
    command::{as_root, become_command, built, cargo, run as run_command},
    packages::Purpose,
    setup,
};

/// The task `demo`: ends with the demo's own exit code.
pub(crate) fn run(consent: Consent) -> Result<()> {
    let mut demo = prepare(consent)?;
    become_command(&mut demo).map(|never| match never {})
}

/// Sets the machine up and builds; the command that is the demo.
pub(crate) fn prepare(consent: Consent) -> Result<Command> {
    setup::ensure_installed(Purpose::Demo, consent)?;
    run_command(&mut cargo(&[
        "build",
        "--release",
        "--package",
        "pinnace",
        "--package",
        "vm-tests",
    ]))
    .context("building")?;
    as_root(built("release").join("demo"))
}
