//! Writers that are faster than their disk can be read and sent: refused in words, and no point
//! that is none.

use anyhow::{Result, ensure};
use blocks::{ByteLen, SECTOR_SIZE};
use vm_tests::{PointLoadSpec, Rate, Rig, wait_until};

use crate::judge::{PATIENCE, Protected, zram};

/// Large enough that some of it stays clean while a delta is sent: a disk that is dirty as a whole is
/// compared, and makes no points anyway.
const LEN: ByteLen = ByteLen(256 << 20);
const RATE: ByteLen = ByteLen(128 << 20);
/// Less than what is written in the shortest time in which a delta can be sent.
const LITTLE: &str = "point_interval = \"1h\"\nobjective = \"2h\"\ncut_memory = \"1MiB\"";
/// Refusals that must come, and points asked for until they have.
const REFUSED: usize = 3;
const ASKED_MAX: usize = 30;

#[test]
fn who_can_not_keep_up_says_so() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut protected = Protected::start_with(&rig, vec![zram(&rig, LEN)?], LITTLE, &[])?;
    let disk = &protected.disks[0];
    let before = disk.statistics()?;
    let load = protected.load(PointLoadSpec::new(Rate::PerSecond(RATE)))?;
    // What little there is before the writers are at speed is a point like any other.
    wait_until("the writers", PATIENCE, || {
        Ok((disk.statistics()?.changed_since(&before) * SECTOR_SIZE >= RATE.0).then_some(()))
    })?;
    let mut refused = 0;
    for _ in 0..ASKED_MAX {
        let asked = protected.site.try_agent(&["point", "create"])?;
        if asked.status.success() {
            // The writers were held up just then, and it is judged like any other.
            continue;
        }
        let said = String::from_utf8_lossy(&asked.stderr).into_owned();
        ensure!(asked.status.code() == Some(5), "{:?}: {said}", asked.status);
        ensure!(said.contains("cannot keep up"), "{said}");
        ensure!(said.contains("are dirty"), "{said}");
        refused += 1;
        if refused == REFUSED {
            break;
        }
    }
    ensure!(refused == REFUSED, "{refused} of {ASKED_MAX} points were refused");
    load.stop()?;
    // It was the load, and nothing else.
    protected.site.agent(&["point", "create"])?;
    let points = protected.points()?;
    protected.judge(&points)?.ensure_valid()
}
