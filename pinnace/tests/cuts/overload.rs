//! Writers that are faster than their disk can be read and sent: refused in words, and no point
//! that is none.

use anyhow::{Result, ensure};
use blocks::ByteLen;
use vm_tests::{PointLoadSpec, Rate, Rig};

use crate::judge::{Protected, zram};

/// Large enough that some of it is clean whatever the writers do: one that is dirty as a whole is
/// compared, and makes no points anyway.
const LEN: ByteLen = ByteLen(256 << 20);
/// Much less than what is written while a delta is sent.
const LITTLE: &str = "point_interval = \"1h\"\nobjective = \"2h\"\ncut_memory = \"1MiB\"";

#[test]
fn who_can_not_keep_up_says_so() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut protected = Protected::start_with(&rig, vec![zram(&rig, LEN)?], LITTLE, &[])?;
    let spec = PointLoadSpec { writers: 8, ..PointLoadSpec::new(Rate::Full) };
    let load = protected.load(spec)?;
    for _ in 0..3 {
        let asked = protected.site.try_agent(&["point", "create"])?;
        let said = String::from_utf8_lossy(&asked.stderr).into_owned();
        ensure!(asked.status.code() == Some(5), "{:?}: {said}", asked.status);
        ensure!(said.contains("cannot keep up"), "{said}");
        ensure!(said.contains("more than the 1 MiB that are read at one instant"), "{said}");
    }
    load.stop()?;
    // It was the load, and nothing else.
    protected.site.agent(&["point", "create"])?;
    let points = protected.points()?;
    protected.judge(&points)?.ensure_valid()
}
