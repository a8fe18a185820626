//! One epoch being written: a blocking thread that owns the store's side of it.

use blocks::{ByteLen, Epoch, EpochKind};
use crossbeam_channel::{Receiver, Sender, unbounded};
use replica::{Disk, DiskPoint, Incoming};
use tokio::sync::mpsc;
use wire::{CheckedFrame, CloseCode, EpochLink, Reason};

use super::connection::{Parking, Report};
use super::opening::{code, incoming_code};
use super::retention::Retention;
use crate::causes::with_causes;

/// What became of an epoch: durable, or why not.
pub(super) type EpochResult = Result<(), (CloseCode, String)>;

enum Command {
    /// A frame, and the room it holds until it is written.
    Append(CheckedFrame, Option<Parking>),
    Commit,
}

/// The connection's end of an epoch's thread. Dropping it aborts the epoch, unless it is being
/// committed.
///
/// The queue is unbounded; the window and the room of the connection bound what can be in it.
pub(super) struct EpochWriter {
    link: EpochLink,
    commands: Sender<Command>,
    /// What the thread will take over, while it has to wait.
    waiting: Option<Waiting>,
}

struct Waiting {
    disk: Disk,
    commands: Receiver<Command>,
    helpers: Helpers,
}

/// Whom an epoch's thread has to do with.
#[derive(Clone)]
pub(super) struct Helpers {
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) retention: Retention,
}

impl EpochWriter {
    /// Makes ready for an epoch, which is written by a thread of its own that reports to
    /// `helpers`.
    ///
    /// A seed goes straight to the base, so it may not overtake the one it follows: it waits for
    /// [`Self::predecessor_is_durable`]. Its frames wait in the queue.
    pub(super) fn new(disk: Disk, link: EpochLink, helpers: Helpers) -> Self {
        let (sender, commands) = unbounded();
        let in_turn = link.kind != EpochKind::Seed || disk.state().last_durable == link.follows;
        let waiting = Some(Waiting { disk, commands, helpers });
        let mut writer = Self { link, commands: sender, waiting };
        if in_turn {
            writer.start();
        }
        writer
    }

    /// Its turn has come, if `epoch` is what it follows.
    pub(super) fn predecessor_is_durable(&mut self, epoch: Epoch) {
        if self.link.follows == epoch {
            self.start();
        }
    }

    pub(super) fn append(&self, frame: CheckedFrame, parking: Option<Parking>) {
        // A thread that has ended has reported why.
        drop(self.commands.send(Command::Append(frame, parking)));
    }

    pub(super) fn commit(&self) {
        drop(self.commands.send(Command::Commit));
    }

    fn start(&mut self) {
        let link = self.link;
        let Some(Waiting { disk, commands, helpers }) = self.waiting.take() else { return };
        let reports = helpers.reports.clone();
        // A thread of its own, not one of those that the runtime has for everybody's short work: a
        // source may begin epochs and leave them open.
        let thread = std::thread::Builder::new().name("epoch".into());
        let id = disk.id();
        if let Err(error) = thread.spawn(move || write(&disk, link, &commands, &helpers)) {
            let failed = Err((Reason::OutOfMemory.into(), format!("no thread for it: {error}")));
            // From a task, which may not wait here.
            tokio::spawn(async move {
                drop(reports.send(Report::Epoch(id, link.epoch, failed)).await);
            });
        }
    }
}

fn write(
    disk: &Disk,
    link: EpochLink,
    commands: &Receiver<Command>,
    Helpers { reports, retention }: &Helpers,
) {
    let receiving = retention.receiving();
    let result = match receive(disk, link, commands, reports) {
        Ok(Some(incoming)) => incoming
            .commit()
            .map(|durable| made_room(disk, &durable.dropped, retention))
            .map_err(|error| (incoming_code(&error), with_causes(&error))),
        // Aborted: nobody waits for an answer.
        Ok(None) => return,
        Err(failed) => Err(failed),
    };
    let durable = result.is_ok();
    // The connection may be gone; what is durable stays so.
    drop(reports.blocking_send(Report::Epoch(disk.id(), link.epoch, result)));
    drop(receiving);
    if durable && disk.history().points().is_empty() {
        fold(disk, link.epoch);
    } else if durable {
        retention.look();
    }
}

/// Points that went before their time are news.
fn made_room(disk: &Disk, dropped: &[DiskPoint], retention: &Retention) {
    if !dropped.is_empty() {
        retention.made_room(dropped.len());
    }
    for point in dropped {
        let id = point.record.id;
        tracing::warn!(DISK = %disk.id(), POINT = %id, "a point was dropped to make room");
    }
}

/// Takes frames until the commit, or until the epoch is aborted.
fn receive(
    disk: &Disk,
    link: EpochLink,
    commands: &Receiver<Command>,
    reports: &mpsc::Sender<Report>,
) -> Result<Option<Incoming>, (CloseCode, String)> {
    let mut incoming =
        disk.begin(link).map_err(|error| (code(error.class()), with_causes(&error)))?;
    for command in commands {
        match command {
            Command::Append(frame, _parking) => {
                let len = ByteLen(frame.bytes().len() as u64);
                let appended = incoming.append(frame);
                appended.map_err(|error| (incoming_code(&error), with_causes(&error)))?;
                drop(reports.blocking_send(Report::Consumed(disk.id(), link.epoch, len)));
            }
            Command::Commit => return Ok(Some(incoming)),
        }
    }
    Ok(None)
}

/// With no history to keep, the base follows the newest epoch. A fold that fails loses nothing: it
/// is taken up again after the next epoch, or when the store is opened.
fn fold(disk: &Disk, epoch: Epoch) {
    loop {
        match disk.fold_one() {
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) => {
                let error = with_causes(&error);
                tracing::warn!(DISK = %disk.id(), EPOCH = epoch.0, error, "folding waits");
                return;
            }
        }
    }
}
