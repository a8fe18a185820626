//! `O_DIRECT`, one write at a time.

use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use memmap2::MmapMut;
use nix::libc;

use super::{Plan, Session, WriterReport, session::bytes_of};

pub(super) fn run(mut session: Session, plan: Plan) -> Result<WriterReport> {
    let file = session.open(libc::O_DIRECT)?;
    // A mapping is page-aligned, which direct I/O asks for.
    let mut buffer = MmapMut::map_anon(plan.largest()).context("memory for a writer")?;
    for step in plan {
        let buffer = &mut buffer[..bytes_of(&step)];
        let pending = session.stamped(&step, buffer)?;
        let written = file.write_all_at(buffer, step.extent.start.bytes());
        session.settle(&pending, written)?;
    }
    Ok(session.report())
}
