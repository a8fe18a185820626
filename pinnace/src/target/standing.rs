//! What a source says of its points after they have come: that they may be relied on, or not.
//!
//! Both are made durable on a thread of their own, and need no order: a retraction holds whenever
//! it comes. One that fails is said again by the source, which is told how far it got when it next
//! opens the disk.

use blocks::Epoch;
use replica::{ChangeError, Disk, DiskPoint, History};
use wire::message::RetractPoints;

use super::retention::Retention;
use crate::causes::with_causes;

/// Takes it that points up to that of an epoch may be relied on.
pub(super) fn confirm(disk: &Disk, through: Epoch) {
    change(disk, move |history| history.confirm(through).map(|()| Vec::new()), |_| {});
}

/// Takes it that points may lack writes. What is not kept as a point any more may go.
pub(super) fn retract(disk: &Disk, retract: RetractPoints, retention: Retention) {
    let RetractPoints { disk: id, after, through, reason } = retract;
    let epochs = Epoch(after.0.saturating_add(1))..=through;
    let retract = move |history: &History| history.retract(epochs, reason);
    change(disk, retract, move |points| {
        for point in points {
            let point = point.record.id;
            tracing::warn!(DISK = %id, POINT = %point, REASON = %reason, "a point was retracted");
        }
        retention.look();
    });
}

fn change(
    disk: &Disk,
    change: impl FnOnce(&History) -> Result<Vec<DiskPoint>, ChangeError> + Send + 'static,
    then: impl FnOnce(Vec<DiskPoint>) + Send + 'static,
) {
    let history = disk.history();
    tokio::task::spawn_blocking(move || match change(&history) {
        Ok(points) => then(points),
        Err(error) => {
            let error = with_causes(&error);
            tracing::warn!(DISK = %history.id(), error, "what became of points is not on record");
        }
    });
}
