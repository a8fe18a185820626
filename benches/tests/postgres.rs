//! The measurement of a recovered database, with few points: it runs, and its bars are met.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use vm_tests::SKIP_VARIABLE;

const MARKS: &str = "<!-- written by cargo xtask reliability; what is changed here is lost -->\n\
    <!-- end of what cargo xtask reliability writes -->\n";

#[test]
#[ignore = "needs PostgreSQL; cargo xtask ci installs it, and runs this"]
fn a_loaded_database_recovers_to_its_points() -> Result<()> {
    if std::env::var_os(SKIP_VARIABLE).is_some_and(|value| value == "1") {
        eprintln!("skipped: {SKIP_VARIABLE}=1");
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let report = directory.path().join("reliability.md");
    fs::write(&report, MARKS)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_reliability"));
    command.args(["--only=postgres", "--points=3", "--report"]).arg(&report);
    let output = command.arg("--figures").arg(directory.path()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    let written = fs::read_to_string(report)?;
    ensure!(written.contains("| 3 of 3 | all | met |"), "no verdict in {written}");
    directory.close().context("removing what was written")
}
