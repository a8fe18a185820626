//! What all writers share: stamping, the log, and the count.

use std::{fs::File, os::unix::fs::OpenOptionsExt, sync::Arc};

use anyhow::{Context, Result};
use blocks::{Extent, Sector};

use super::{Target, WriterReport, plan::Step};
use crate::{Issue, Stamp, Ticket, WriteKind, WriteLog};

/// A write that is in the log and not yet acknowledged.
pub(super) struct Pending {
    ticket: Ticket,
    write: u64,
    bytes: u64,
}

/// One writer's side of the log.
pub(super) struct Session {
    target: Target,
    stream: u32,
    log: Arc<WriteLog>,
    next: u64,
    acknowledged: u64,
    report: WriterReport,
}

impl Session {
    pub(super) fn new(target: Target, stream: u32, log: Arc<WriteLog>) -> Self {
        let report = WriterReport::default();
        Self { target, stream, log, next: 1, acknowledged: 0, report }
    }

    /// Goes on writing on another target, in the same stream.
    pub(super) fn aim(&mut self, target: &Target) {
        self.target.clone_from(target);
    }

    /// Opens the target for writing, with these flags.
    pub(super) fn open(&self, flags: i32) -> Result<File> {
        let path = &self.target.path;
        let file = File::options().read(true).write(true).custom_flags(flags).open(path);
        file.with_context(|| format!("opening {}", path.display()))
    }

    /// The length of the target in bytes.
    pub(super) fn len(&self) -> usize {
        let bytes = self.target.sectors * blocks::SECTOR_SIZE;
        usize::try_from(bytes).expect("64-bit")
    }

    /// Stamps `buffer` as the next write and puts it in the log. To be submitted after.
    pub(super) fn stamped(&mut self, step: &Step, buffer: &mut [u8]) -> Result<Pending> {
        self.stamp(step).stamp(buffer);
        self.issue(step.extent, WriteKind::Data)
    }

    /// The stamp of the next write.
    pub(super) fn stamp(&self, step: &Step) -> Stamp {
        Stamp {
            run: self.log.run(),
            disk: self.target.disk,
            stream: self.stream,
            sector: self.absolute(step.extent).start.0,
            write: self.next,
            index: 0,
            fill: step.fill,
            acknowledged: self.acknowledged,
        }
    }

    /// Puts the next write in the log. To be submitted after.
    pub(super) fn issue(&mut self, extent: Extent, kind: WriteKind) -> Result<Pending> {
        let write = self.next;
        self.next += 1;
        let (disk, stream) = (self.target.disk, self.stream);
        let issue = Issue { disk, stream, write, extent: self.absolute(extent), kind };
        Ok(Pending { ticket: self.log.issue(&issue)?, write, bytes: extent.len().0 })
    }

    /// Notes how a write ended; passes its error on.
    pub(super) fn settle<E>(&mut self, pending: &Pending, result: Result<(), E>) -> Result<()>
    where
        E: Into<anyhow::Error>,
    {
        match result {
            Ok(()) => {
                self.log.complete(pending.ticket);
                self.acknowledged = self.acknowledged.max(pending.write);
                self.report.writes += 1;
                self.report.bytes += pending.bytes;
                Ok(())
            }
            Err(error) => {
                self.log.fail(pending.ticket);
                Err(error.into().context(format!("writing {}", self.target.path.display())))
            }
        }
    }

    pub(super) fn report(&self) -> WriterReport {
        self.report
    }

    fn absolute(&self, extent: Extent) -> Extent {
        Extent { start: Sector(self.target.base.0 + extent.start.0), ..extent }
    }
}

/// The bytes of a step on the target.
pub(super) fn bytes_of(step: &Step) -> usize {
    usize::try_from(step.extent.len().0).expect("a write fits memory")
}
