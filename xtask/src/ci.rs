//! What continuous integration runs. The tests come last, so that their summary ends the output.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{
    Consent, check, command::run_within, demo, fuzz, machine, packages::Purpose, setup, test,
};

/// The demo takes well under a minute; a machine under load may need more.
const DEMO_LIMIT: Duration = Duration::from_secs(600);

/// The task `ci`.
pub(crate) fn run(consent: Consent) -> Result<()> {
    setup::ensure_installed(Purpose::Database, consent)?;
    machine::report();
    check::all()?;
    let mut demo = demo::prepare(consent)?;
    run_within(&mut demo, DEMO_LIMIT).context("the demo")?;
    fuzz::run_briefly().context("fuzzing")?;
    test::run_database_test()?;
    test::run_tests()
}
