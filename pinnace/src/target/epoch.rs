//! One epoch being written: a blocking thread that owns the store's side of it.

use blocks::{ByteLen, Epoch};
use crossbeam_channel::{Receiver, Sender, unbounded};
use replica::{Disk, Incoming};
use tokio::sync::mpsc;
use wire::{CheckedFrame, CloseCode, EpochLink};

use super::connection::Report;
use super::opening::{code, words};

/// What became of an epoch: durable, or why not.
pub(super) type EpochResult = Result<(), (CloseCode, String)>;

enum Command {
    Append(CheckedFrame),
    Commit,
}

/// The connection's end of an epoch's thread. Dropping it aborts the epoch, unless it is being
/// committed.
///
/// The queue is unbounded; the session's window bounds what can be in it.
pub(super) struct EpochWriter(Sender<Command>);

impl EpochWriter {
    /// Begins an epoch on a thread of its own, which reports to `reports`.
    pub(super) fn start(disk: Disk, link: EpochLink, reports: mpsc::Sender<Report>) -> Self {
        let (sender, commands) = unbounded();
        tokio::task::spawn_blocking(move || write(&disk, link, &commands, &reports));
        Self(sender)
    }

    pub(super) fn append(&self, frame: CheckedFrame) {
        // A thread that has ended has reported why.
        drop(self.0.send(Command::Append(frame)));
    }

    pub(super) fn commit(&self) {
        drop(self.0.send(Command::Commit));
    }
}

fn write(
    disk: &Disk,
    link: EpochLink,
    commands: &Receiver<Command>,
    reports: &mpsc::Sender<Report>,
) {
    let result = match receive(disk, link, commands, reports) {
        Ok(Some(incoming)) => {
            incoming.commit().map(drop).map_err(|error| (code(error.class()), words(&error)))
        }
        // Aborted: nobody waits for an answer.
        Ok(None) => return,
        Err(failed) => Err(failed),
    };
    let durable = result.is_ok();
    // The connection may be gone; what is durable stays so.
    drop(reports.blocking_send(Report::Epoch(disk.id(), link.epoch, result)));
    if durable {
        fold(disk, link.epoch);
    }
}

/// Takes frames until the commit, or until the epoch is aborted.
fn receive(
    disk: &Disk,
    link: EpochLink,
    commands: &Receiver<Command>,
    reports: &mpsc::Sender<Report>,
) -> Result<Option<Incoming>, (CloseCode, String)> {
    if link.kind == blocks::EpochKind::Seed {
        disk.wait_for_seed_turn();
    }
    let mut incoming = disk.begin(link).map_err(|error| (code(error.class()), words(&error)))?;
    for command in commands {
        match command {
            Command::Append(frame) => {
                let len = ByteLen(frame.bytes().len() as u64);
                let appended = incoming.append(frame);
                appended.map_err(|error| (code(error.class()), words(&error)))?;
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
                let error = words(&error);
                tracing::warn!(DISK = %disk.id(), EPOCH = epoch.0, error, "folding waits");
                return;
            }
        }
    }
}
