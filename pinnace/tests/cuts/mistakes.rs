//! An agent that makes a mistake in its cuts makes points that are none, and the judge sees it:
//! without this, a judge that finds every point valid says nothing.

use anyhow::{Result, ensure};
use vm_tests::{PointLoadSpec, Rate, Rig};

use crate::judge::Protected;

fn is_found(mistake: &str) -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let variables = [("PINNACE_CUT_MISTAKE".to_owned(), mistake.to_owned())];
    let mut protected = Protected::start_with(&rig, 1, "point_interval = \"1s\"", &variables)?;
    let spec = PointLoadSpec { writers: 8, ..PointLoadSpec::new(Rate::Full) };
    let load = protected.load(spec)?;
    protected.wait_for_points(8)?;
    load.stop()?;
    let points = protected.points()?;
    let verdicts = protected.judge(&points)?;
    ensure!(!verdicts.invalid.is_empty(), "{mistake}: all {} points are valid", verdicts.valid);
    Ok(())
}

#[test]
fn the_table_is_not_asked() -> Result<()> {
    is_found("NoLook")
}

#[test]
fn the_instant_is_taken_before_the_flip() -> Result<()> {
    is_found("InstantBeforeFlip")
}

#[test]
fn the_harvest_is_made_before_the_flip() -> Result<()> {
    is_found("HarvestBeforeFlip")
}

#[test]
fn the_look_comes_before_the_read() -> Result<()> {
    is_found("LookBeforeRead")
}

#[test]
fn bits_are_cleared_after_the_read() -> Result<()> {
    is_found("ClearedAfterRead")
}
