//! Making a replica a disk of its own.

use std::time::{Duration, Instant};

use anyhow::Result;
use blocks::{DiskId, Generation, MachineId};
use replica::{DiskSummary, PromoteError, Store};
use wire::Reason;

use super::run::Peers;
use crate::exit::{Exit, Failure};
use crate::identity::random_bytes;

/// How long the source's connection may take to let go of the disk.
const LET_GO: Duration = Duration::from_secs(10);

/// Promotes the replica of a disk, given by its identity, or by its name if only one has that. Its
/// source is disconnected, and refused when it comes back.
pub(super) fn promote(store: &Store, peers: &Peers, wanted: &str) -> Result<String> {
    let (id, summary) = find(store, wanted)?;
    let line = Generation(random_bytes()?);
    let deadline = Instant::now() + LET_GO;
    let promoted = loop {
        match store.promote(id, line) {
            // It may be back by now: then it is asked to go again.
            Err(PromoteError::Busy(_)) if Instant::now() < deadline => {
                peers.close(summary.machine);
                std::thread::sleep(Duration::from_millis(20));
            }
            promoted => break promoted,
        }
    };
    promoted.map_err(|error| {
        let exit = match error {
            PromoteError::Busy(_) => Exit::Timeout,
            PromoteError::Promoted(_) | PromoteError::NotWhole(_) => Exit::WrongState,
            PromoteError::History(_) | PromoteError::Catalog(_) | PromoteError::MustReopen(_) => {
                Exit::Failed
            }
        };
        Failure::new(exit, crate::causes::with_causes(&error))
    })?;
    let epoch = summary.state.last_durable;
    tracing::warn!(DISK = %id, EPOCH = epoch.0, LINE = %line, "promoted");
    // The epoch may be a later one by now; the replica's status has it.
    Ok(format!("{} is a disk of its own now: it takes nothing more from its source", summary.name))
}

fn find(store: &Store, wanted: &str) -> Result<(DiskId, DiskSummary)> {
    let listed = store.disks()?.into_iter();
    let known = listed.filter_map(|disk| disk.summary.ok().map(|summary| (disk.id, summary)));
    let is =
        |(id, summary): &(DiskId, DiskSummary)| summary.name == wanted || id.to_string() == wanted;
    let mut found = known.filter(is);
    match (found.next(), found.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => {
            let words = format!("there is no replica of {wanted}; see `pinnace target status`");
            Err(Failure::new(Exit::NotFound, words).into())
        }
        (Some(_), Some(_)) => {
            let words = format!(
                "there are several replicas of a {wanted}: give the identity, as `pinnace target \
                 status` shows it"
            );
            Err(Failure::new(Exit::Usage, words).into())
        }
    }
}

impl Peers {
    /// Disconnects a machine, if it is connected. It may come back at once, for its other disks.
    fn close(&self, machine: MachineId) {
        if let Some(connection) = self.get(machine) {
            connection.close(Reason::Done.number().into(), b"a replica is being promoted");
        }
    }
}
