//! Through a shared mapping: stores reach the device at any time before `msync` returns.

use anyhow::{Context, Result};
use memmap2::MmapOptions;

use super::{Plan, Session, WriterReport, session::bytes_of};

pub(super) fn run(mut session: Session, plan: Plan) -> Result<WriterReport> {
    let file = session.open(0)?;
    // SAFETY: other writers of the rig may change the device below the mapping. Its bytes are
    // only ever stored to, never read, so no assumption of ours can break.
    let map = unsafe { MmapOptions::new().len(session.len()).map_mut(&file) };
    let mut map = map.context("mapping a device")?;
    let mut buffer = vec![0; plan.largest()];
    for step in plan {
        let buffer = &mut buffer[..bytes_of(&step)];
        let pending = session.stamped(&step, buffer)?;
        let start = usize::try_from(step.extent.start.bytes()).expect("64-bit");
        map[start..start + buffer.len()].copy_from_slice(buffer);
        session.settle(&pending, map.flush_range(start, buffer.len()))?;
    }
    Ok(session.report())
}
