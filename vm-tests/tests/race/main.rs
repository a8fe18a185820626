//! Clear, then read: nothing that is written while a harvest runs is lost.
//!
//! And the two mistakes that would lose writes are seen by the same oracle.

mod harness;
mod issue_only;

use std::time::Duration;

use anyhow::{Result, ensure};
use blocks::{ByteLen, ChunkSize};
use harness::{Order, race};
use issue_only::IssueOnly;
use vm_tests::{Rig, ZramDisk};

/// Small, so that writers and harvest meet on the same chunks.
const DISK: ByteLen = ByteLen(4 << 20);

#[test]
fn marking_at_issue_is_caught() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = ZramDisk::create(&rig, DISK)?;
    let mut tracking = IssueOnly::attach(&rig, &disk, disk.geometry(ChunkSize::DEFAULT)?)?;
    let order = Order::ClearThenRead;
    let outcome = race(&rig, &disk, &mut tracking, order, Duration::from_secs(4))?;
    println!("{outcome:?}");
    ensure!(outcome.stale > 0, "a mark at issue went for a mark at completion: {outcome:?}");
    Ok(())
}
