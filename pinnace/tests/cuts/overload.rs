//! Writers that are faster than their disk can be read and sent: refused in words, and no point
//! that is none.

use anyhow::{Result, ensure};
use blocks::ByteLen;
use vm_tests::{PointLoadSpec, Rate, Rig};

use crate::judge::{Protected, zram};

/// Large enough that some of it stays clean while a delta is sent: a disk that is dirty as a whole is
/// compared, and makes no points anyway.
const LEN: ByteLen = ByteLen(256 << 20);
const RATE: Rate = Rate::PerSecond(ByteLen(128 << 20));
/// Less than what is written in the shortest time in which a delta can be sent.
const LITTLE: &str = "point_interval = \"1h\"\nobjective = \"2h\"\ncut_memory = \"1MiB\"";

#[test]
fn who_can_not_keep_up_says_so() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut protected = Protected::start_with(&rig, vec![zram(&rig, LEN)?], LITTLE, &[])?;
    let load = protected.load(PointLoadSpec::new(RATE))?;
    for _ in 0..3 {
        let asked = protected.site.try_agent(&["point", "create"])?;
        let said = String::from_utf8_lossy(&asked.stderr).into_owned();
        ensure!(asked.status.code() == Some(5), "{:?}: {said}", asked.status);
        ensure!(said.contains("cannot keep up"), "{said}");
        ensure!(said.contains("are dirty"), "{said}");
    }
    load.stop()?;
    // It was the load, and nothing else.
    protected.site.agent(&["point", "create"])?;
    let points = protected.points()?;
    protected.judge(&points)?.ensure_valid()
}
