//! Formatting, lints, licences.

use anyhow::{Context, Result};

use crate::{
    command::{self, cargo, command, is_installed},
    packages::Purpose,
    setup,
};

/// The task `check`: changes nothing and installs nothing but rustfmt and clippy.
pub(crate) fn all() -> Result<()> {
    components()?;
    command::run(&mut cargo(&["fmt", "--all", "--check"])).context("the code is not formatted")?;
    command::run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    if is_installed("cargo-deny") {
        // Advisories need a database from the network; they are a matter for a scheduled run.
        command::run(&mut cargo(&["deny", "check", "licenses", "bans", "sources"]))?;
    } else {
        eprintln!("cargo-deny is not installed: licences are not checked");
    }
    Ok(())
}

/// The checks, on a machine that can build everything.
pub(crate) fn run() -> Result<()> {
    // Clippy compiles all of it, BPF programs included.
    setup::ensure_installed(Purpose::Demo, crate::Consent { yes: false })?;
    all()
}

/// A minimal toolchain lacks them; rustup adds them.
fn components() -> Result<()> {
    let there = |subcommand: &str| {
        cargo(&[subcommand, "--version"]).output().is_ok_and(|output| output.status.success())
    };
    if (there("fmt") && there("clippy")) || !is_installed("rustup") {
        return Ok(());
    }
    command::run(command("rustup").args(["component", "add", "rustfmt", "clippy"]))
}
