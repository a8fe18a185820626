//! An agent that makes a mistake in its cuts makes points that are none, and the judge sees it:
//! without this, a judge that finds every point valid says nothing.

use anyhow::{Result, ensure};
use blocks::ByteLen;
use vm_tests::{PointLoadSpec, Rate, Rig};

use crate::judge::{CONTENDED, Protected, zram};

/// Full speed, to all of a disk: to this one, or to a smaller one with smaller writes.
struct Load {
    len: ByteLen,
    largest: ByteLen,
    points: usize,
}

const CONTENDING: Load = Load { len: CONTENDED, largest: ByteLen(64 << 10), points: 20 };

fn is_found(mistake: &str, load: &Load) -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let variables = [("PINNACE_CUT_MISTAKE".to_owned(), mistake.to_owned())];
    let seldom = "point_interval = \"1h\"\nobjective = \"2h\"";
    let disks = vec![zram(&rig, load.len)?];
    let mut protected = Protected::start_with(&rig, disks, seldom, &variables)?;
    let spec = PointLoadSpec { writers: 8, ..PointLoadSpec::new(Rate::Full) };
    let writers = protected.load(PointLoadSpec { largest: load.largest, ..spec })?;
    for _ in 0..load.points {
        // Some mistakes make it hard to succeed at all.
        protected.site.try_agent(&["point", "create"])?;
    }
    writers.stop()?;
    let points = protected.points()?;
    let verdicts = protected.judge(&points)?;
    println!("{mistake}: {} of {} points are invalid", verdicts.invalid.len(), points.len());
    ensure!(!verdicts.invalid.is_empty(), "{mistake}: all {} points are valid", verdicts.valid);
    Ok(())
}

#[test]
fn the_table_is_not_asked() -> Result<()> {
    is_found("NoLook", &CONTENDING)
}

#[test]
fn the_instant_is_taken_before_the_flip() -> Result<()> {
    is_found("InstantBeforeFlip", &CONTENDING)
}

#[test]
fn the_harvest_is_made_before_the_flip() -> Result<()> {
    is_found("HarvestBeforeFlip", &CONTENDING)
}

#[test]
fn the_look_comes_before_the_read() -> Result<()> {
    is_found("LookBeforeRead", &CONTENDING)
}

#[test]
fn bits_are_cleared_after_the_read() -> Result<()> {
    is_found("ClearedAfterRead", &CONTENDING)
}

#[test]
fn dirty_bits_are_found_by_a_summary_that_comes_after_them() -> Result<()> {
    // It takes two writes of one chunk within two milliseconds.
    let hot = Load { len: ByteLen(256 << 10), largest: ByteLen(4 << 10), points: 60 };
    is_found("SummaryBehindBit", &hot)
}
