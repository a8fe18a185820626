//! The store's points in the words of its administrators.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use blocks::{Consistency, DiskId, MachineId};
use jiff::Timestamp;
use replica::{MachinePoint, PointStatus as Status, Store};

use crate::admin::points::{PointDisk, PointKind, PointState, PointStatus};

/// All points of the store, those of a machine together, oldest first.
pub(in crate::target) fn list(store: &Store) -> Result<Vec<PointStatus>> {
    let disks = disks(store)?;
    let mut all = Vec::new();
    for machine in store.machines() {
        for point in store.points(machine) {
            all.push(status(machine, &point, &disks)?);
        }
    }
    Ok(all)
}

/// Name and size of every disk.
fn disks(store: &Store) -> Result<HashMap<DiskId, (String, u64)>> {
    let listings = store.disks().context("listing the disks")?.into_iter();
    let known = listings.filter_map(|listing| Some((listing.id, listing.summary.ok()?)));
    Ok(known.map(|(id, summary)| (id, (summary.name, summary.geometry.len().0))).collect())
}

fn status(
    machine: MachineId,
    point: &MachinePoint,
    disks: &HashMap<DiskId, (String, u64)>,
) -> Result<PointStatus> {
    let record = &point.record;
    let (state, reason) = match point.status() {
        Status::Retracted(reason) => (PointState::Retracted, Some(reason.to_string())),
        _ if !point.is_there() => (PointState::Incomplete, None),
        Status::Confirmed => (PointState::Confirmed, None),
        Status::Provisional => (PointState::Provisional, None),
    };
    let disk = |(id, disk): &(DiskId, replica::DiskPoint)| {
        let (name, size_bytes) = disks.get(id).cloned().unwrap_or_else(|| ("?".into(), 0));
        let (epoch, delta_bytes) = (disk.epoch.0, disk.bytes.0);
        PointDisk { id: id.to_string(), name, size_bytes, epoch, delta_bytes }
    };
    Ok(PointStatus {
        id: record.id.to_string(),
        machine: machine.to_string(),
        time: Timestamp::from_nanosecond(record.cut.unix_ns.into())?,
        kind: match record.consistency {
            Consistency::Crash => PointKind::Crash,
            Consistency::FileSystem => PointKind::Filesystem,
            Consistency::Application => PointKind::Application,
        },
        method: record.method.to_string(),
        window_seconds: record.window.as_secs_f64(),
        freeze_seconds: record.freeze.as_secs_f64(),
        attempts: record.attempts,
        state,
        reason,
        pinned: point.is_pinned(),
        in_use: point.disks.iter().any(|(_, disk)| disk.viewed),
        disk_count: record.disks,
        disks: point.disks.iter().map(disk).collect(),
        delta_bytes: point.disks.iter().map(|(_, disk)| disk.bytes.0).sum(),
    })
}
