//! Recovery points for those who administer the target: which there are, keeping them, reading
//! them.
//!
//! Whoever reads a point holds a view of it, and while the view lives, retention leaves the point
//! alone. The view lives here, in the process that has the store open and the keys, and exactly as
//! long as somebody reads: an NBD server runs on a socket that the reader has made, under the
//! reader's own rights, and handed over; and it stops when the connection on which it was asked for
//! ends, however the reader does. Nothing is left to be cleaned up, and no bytes take a detour.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use blocks::{DiskId, Epoch};
use nbd::{Export, Limits, Listener, NamedExport, Overlay, Server};
use replica::{History, Store, View};

use super::retention::Retention;
use crate::admin::points::{
    PointDisk, PointRequest, PointResponse, PointStatus, Verification, Which,
};
use crate::admin::{Answered, Caller, Progress};
use crate::causes::with_causes;
use crate::exit::{Exit, Failure};

mod disk;
mod list;
mod read;
mod select;

pub(super) use list::list;

/// What answers requests about points.
#[derive(Clone)]
pub(super) struct Points {
    pub(super) store: Arc<Store>,
    pub(super) retention: Retention,
    /// Where what is written to an overlay lies.
    pub(super) scratch: PathBuf,
}

impl Points {
    /// Answers one request.
    pub(super) fn answer(
        &self,
        request: PointRequest,
        caller: &mut Caller<'_>,
    ) -> Result<Answered<PointResponse>> {
        let response = match request {
            PointRequest::List { machine } => PointResponse::Points(self.list(machine.as_deref())?),
            PointRequest::Show { which } => {
                let points = list(&self.store)?;
                PointResponse::Point(Box::new(select::find(&points, &which)?.clone()))
            }
            PointRequest::Pin { which, pin } => PointResponse::Done(self.pin(&which, pin)?),
            PointRequest::Verify { which, disk } => {
                PointResponse::Verified(self.verify(&which, disk.as_deref(), caller)?)
            }
            PointRequest::Export { which, disk } => self.export(&which, &disk, caller)?,
            PointRequest::Serve { which, disk, writable } => {
                return self.serve((&which, &disk), writable, caller);
            }
            PointRequest::PlanPrune => PointResponse::Prune(self.retention.plan_prune()?),
        };
        Ok(response.into())
    }

    fn list(&self, machine: Option<&str>) -> Result<Vec<PointStatus>> {
        let points = list(&self.store)?;
        Ok(select::of_machine(&points, machine)?.into_iter().cloned().collect())
    }

    /// Pins or unpins a point on all its disks.
    fn pin(&self, which: &Which, pin: bool) -> Result<String> {
        let points = list(&self.store)?;
        let point = select::find(&points, which)?;
        for disk in &point.disks {
            let (history, epoch) = (self.history(disk)?, Epoch(disk.epoch));
            let changed = if pin { history.pin(epoch) } else { history.unpin(epoch) };
            changed.with_context(|| format!("disk {} of point {}", disk.name, point.id))?;
        }
        // What is no longer pinned may go now.
        self.retention.look();
        let what = if pin { "is kept until it is unpinned" } else { "is kept as the policy says" };
        Ok(format!("point {} {what}", point.id))
    }

    fn verify(
        &self,
        which: &Which,
        disk: Option<&str>,
        caller: &mut Caller<'_>,
    ) -> Result<Verification> {
        let points = list(&self.store)?;
        let point = select::find_readable(&points, which)?;
        let disks = match disk {
            Some(name) => vec![select::disk(point, name)?],
            None => point.disks.iter().collect(),
        };
        let total = disks.iter().map(|disk| disk.size_bytes).sum();
        let mut done = 0;
        let mut result =
            Verification { point: point.id.clone(), disks: disks.len(), ..Verification::default() };
        for disk in disks {
            let content = self.open(disk, which.retracted)?;
            let reading =
                read::verify(&disk.name, &content, |len| advance(caller, &mut done, len, total))?;
            result.read_bytes += reading.read_bytes;
            result.damaged_bytes += reading.damaged_bytes;
            result.damage.extend(reading.damage);
        }
        Ok(result)
    }

    fn export(&self, which: &Which, name: &str, caller: &mut Caller<'_>) -> Result<PointResponse> {
        let file = File::from(caller.take_file()?);
        let (_, disk) = self.find(which, name)?;
        let content = self.open(&disk, which.retracted)?;
        let (mut done, total) = (0, content.len());
        let written_bytes =
            read::export(&content, &file, |len| advance(caller, &mut done, len, total))?;
        Ok(PointResponse::Exported { written_bytes, size_bytes: total })
    }

    fn serve(
        &self,
        (which, name): (&Which, &str),
        writable: bool,
        caller: &mut Caller<'_>,
    ) -> Result<Answered<PointResponse>> {
        let listener = Listener::received(caller.take_file()?)?;
        let (point, disk) = self.find(which, name)?;
        let content = self.open(&disk, which.retracted)?;
        let export: Arc<dyn Export> =
            if writable { self.overlay(content)? } else { Arc::new(content) };
        let description = format!("{} of machine {} at {}", disk.name, point.machine, point.time);
        let exports = vec![NamedExport { name: disk.name.clone(), description, export }];
        let server =
            Server::start(listener, exports, Limits::default()).context("starting the server")?;
        tracing::info!(POINT = point.id, DISK = disk.id, address = %server.address(), "served over NBD");
        let (disk, size_bytes) = (disk.name, disk.size_bytes);
        let answer = PointResponse::Serving { point: Box::new(point), disk, size_bytes };
        Ok(Answered { answer, held: Some(Box::new(server)) })
    }

    fn overlay(&self, content: disk::PointDisk) -> Result<Arc<Overlay>> {
        let scratch = &self.scratch;
        std::fs::create_dir_all(scratch)
            .with_context(|| format!("making {}", scratch.display()))?;
        Ok(Arc::new(Overlay::new(Arc::new(content), scratch)?))
    }

    /// A disk at a point, both by what was typed. Where no machine was named, the disk's name can
    /// say which one is meant.
    fn find(&self, which: &Which, disk: &str) -> Result<(PointStatus, PointDisk)> {
        let all = list(&self.store)?;
        let with_disk = select::with_disk(all.clone(), disk);
        let points = if with_disk.is_empty() { all } else { with_disk };
        let point = select::find_readable(&points, which)?;
        let disk = select::disk(point, disk)?;
        Ok((point.clone(), disk.clone()))
    }

    fn history(&self, disk: &PointDisk) -> Result<History> {
        let id: DiskId = disk.id.parse().context("an identity of our own")?;
        self.store.history(id).with_context(|| format!("opening the history of {}", disk.name))
    }

    fn open(&self, disk: &PointDisk, retracted: bool) -> Result<disk::PointDisk> {
        let (history, epoch) = (self.history(disk)?, Epoch(disk.epoch));
        let view: Result<View, _> =
            if retracted { history.view_retracted(epoch) } else { history.view(epoch) };
        let view = view.map_err(|error| {
            let message = format!("disk {}: {}", disk.name, with_causes(&error));
            Failure::new(Exit::WrongState, message)
        })?;
        Ok(disk::PointDisk::new(view, self.retention.clone()))
    }
}

fn advance(caller: &mut Caller<'_>, done: &mut u64, len: u64, total: u64) -> io::Result<()> {
    *done += len;
    caller.progress(Progress { done: *done, total })
}
