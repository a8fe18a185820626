//! Clear, then read: nothing that is written while a harvest runs is lost.
//!
//! And the two mistakes that would lose writes are seen by the same oracle.

use std::time::Duration;

use anyhow::{Result, ensure};
use blocks::{ByteLen, ChunkSize};
use vm_guest::{
    issue_only::{self, IssueOnly},
    race::{Marks, Order, Outcome, race},
    tracked::Tracked,
};
use vm_tests::{BlockDevice, Rig, ZramDisk};

/// Small, so that writers and harvest meet on the same chunks.
const DISK: ByteLen = ByteLen(4 << 20);
/// For what must lose nothing.
const LONG: Duration = Duration::from_secs(10);
/// For what must be caught: it loses thousands of chunks in this time.
const SHORT: Duration = Duration::from_secs(4);
/// Below this a race has shown nothing.
const FEWEST_WRITES: u64 = 20_000;

fn race_on_zram(
    attach: impl FnOnce(&Rig, &BlockDevice) -> Result<Box<dyn Marks>>,
    order: Order,
    time: Duration,
) -> Result<Option<Outcome>> {
    let Some(rig) = Rig::start()? else { return Ok(None) };
    let disk = ZramDisk::create(&rig, DISK)?;
    let mut marks = attach(&rig, &disk)?;
    let outcome = race(&rig, &disk, &mut *marks, order, time)?;
    println!("{outcome:?}");
    ensure!(outcome.writes >= FEWEST_WRITES, "too few writes to show anything: {outcome:?}");
    Ok(Some(outcome))
}

fn tracked(rig: &Rig, disk: &BlockDevice) -> Result<Box<dyn Marks>> {
    Ok(Box::new(Tracked::attach(rig, disk)?))
}

fn issue_only(rig: &Rig, disk: &BlockDevice) -> Result<Box<dyn Marks>> {
    let object = rig.fresh("issue-only").with_extension("o");
    issue_only::compile(&object)?;
    Ok(Box::new(IssueOnly::attach(&object, disk, disk.geometry(ChunkSize::DEFAULT)?)?))
}

#[test]
fn nothing_is_lost_to_a_harvest() -> Result<()> {
    let Some(outcome) = race_on_zram(tracked, Order::ClearThenRead, LONG)? else { return Ok(()) };
    ensure!(outcome.stale == 0, "writes were lost: {outcome:?}");
    Ok(())
}

#[test]
fn marking_at_issue_is_caught() -> Result<()> {
    let Some(outcome) = race_on_zram(issue_only, Order::ClearThenRead, SHORT)? else {
        return Ok(());
    };
    ensure!(outcome.stale > 0, "a mark at issue passed: {outcome:?}");
    Ok(())
}

#[test]
fn reading_before_clearing_is_caught() -> Result<()> {
    let Some(outcome) = race_on_zram(tracked, Order::ReadThenClear, SHORT)? else { return Ok(()) };
    ensure!(outcome.stale > 0, "reading first passed: {outcome:?}");
    Ok(())
}
