//! All tests: documentation first, then everything else, so that its summary comes last.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    Consent,
    command::{self, become_command, cargo, is_installed, is_root},
    packages::Purpose,
    setup,
    totals::Totals,
    vm,
};

/// The task `test`.
pub(crate) fn run(consent: Consent) -> Result<()> {
    setup::ensure_installed(Purpose::Test, consent)?;
    run_tests()
}

/// Runs the test that is left out of all others, since it needs a database server.
pub(crate) fn run_database_test() -> Result<()> {
    build()?;
    let mut test = cargo(&["test", "--workspace", "--test", "postgres", "--", "--ignored"]);
    command::run(with_root(&mut test)?).context("a database that is recovered")
}

/// Builds and runs the tests on a machine that has everything.
pub(crate) fn run_tests() -> Result<()> {
    build()?;
    command::run(&mut cargo(&["test", "--workspace", "--doc", "--quiet"]))
        .context("examples in the documentation")?;
    vm::subset()?;
    if is_installed("cargo-nextest") {
        let mut tests = cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]);
        return become_command(with_root(&mut tests)?).map(|never| match never {});
    }
    let mut tests = cargo(&["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]);
    count(with_root(&mut tests)?)
}

/// Tests start the binary, so it has to be there before them.
fn build() -> Result<()> {
    command::run(&mut cargo(&["build", "--package", "pinnace"])).context("building")
}

/// Lets cargo start test programs through sudo if this is not root.
pub(crate) fn with_root(tests: &mut Command) -> Result<&mut Command> {
    if !is_root() {
        ensure!(is_installed("sudo"), "tests of real disks need root: run this as root");
        let architecture = env::consts::ARCH.to_uppercase();
        let variable = format!("CARGO_TARGET_{architecture}_UNKNOWN_LINUX_GNU_RUNNER");
        tests.env(variable, "sudo --preserve-env");
    }
    Ok(tests)
}

/// The same, whether or not tests of real devices are to be skipped elsewhere: a test that was
/// skipped has shown nothing.
pub(crate) fn with_devices(tests: &mut Command) -> Result<&mut Command> {
    with_root(tests.env_remove("PINNACE_SKIP_DEVICE_TESTS"))
}

/// Runs `cargo test`, which sums up each program alone, and sums all of them up at the end.
fn count(tests: &mut Command) -> Result<()> {
    eprintln!("$ {}", command::show(tests));
    let mut child = tests.stdout(Stdio::piped()).spawn().context("starting cargo test")?;
    let output = child.stdout.take().expect("it was asked for");
    let mut totals = Totals::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("reading the output of the tests")?;
        totals.add_line(&line);
        println!("{line}");
    }
    let status = child.wait().context("waiting for cargo test")?;
    println!("{totals}");
    if !status.success() {
        bail!("tests failed: {status}");
    }
    Ok(())
}
