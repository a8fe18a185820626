//! Through the page cache: writes reach the device at any time before `fdatasync` returns.

use std::{fs::File, os::unix::fs::FileExt};

use anyhow::Result;

use super::{
    Plan, Session, WriterReport,
    session::{Pending, bytes_of},
};

/// Writes between two syncs.
const SYNC_EVERY: usize = 8;

pub(super) fn run(mut session: Session, plan: Plan) -> Result<WriterReport> {
    let file = session.open(0)?;
    let mut buffer = vec![0; plan.largest()];
    let mut unsynced = Vec::with_capacity(SYNC_EVERY);
    for step in plan {
        let buffer = &mut buffer[..bytes_of(&step)];
        let pending = session.stamped(&step, buffer)?;
        file.write_all_at(buffer, step.extent.start.bytes())?;
        unsynced.push(pending);
        if unsynced.len() == SYNC_EVERY {
            sync(&mut session, &file, &mut unsynced)?;
        }
    }
    sync(&mut session, &file, &mut unsynced)?;
    Ok(session.report())
}

fn sync(session: &mut Session, file: &File, unsynced: &mut Vec<Pending>) -> Result<()> {
    file.sync_data()?;
    unsynced.drain(..).try_for_each(|pending| session.settle(&pending, anyhow::Ok(())))
}
