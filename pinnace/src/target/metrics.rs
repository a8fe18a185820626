//! The target's metrics.

use std::collections::BTreeMap;

use jiff::Timestamp;
use prometheus_client::registry::Unit;

use crate::admin::points::{PointKind, PointState, PointStatus};
use crate::admin::target::{ReplicaStatus, Status};
use crate::metrics::{Labels, Page, labels};

/// The page of a target; its certificate stops being good so many seconds after 1970.
pub(super) fn page(
    status: &Status,
    points: &[PointStatus],
    certificate_expiry: Option<i64>,
) -> Page {
    let mut page = Page::new();
    add_store(&mut page, status, certificate_expiry);
    add_replicas(&mut page, status);
    add_points(&mut page, points);
    page
}

#[expect(clippy::cast_precision_loss, reason = "bytes and seconds below 2^53")]
fn add_store(page: &mut Page, status: &Status, certificate_expiry: Option<i64>) {
    let bytes = || Some(Unit::Bytes);
    let one = |value: u64| [(Labels::new(), value as f64)];
    let history = &status.history;
    page.gauge("journal", bytes(), "What the deltas of all disks take", one(history.bytes));
    let quota = history.quota_bytes.map(|quota| (Labels::new(), quota as f64));
    page.gauge("journal_quota", bytes(), "What they may take", quota);
    page.gauge(
        "store_used",
        bytes(),
        "What replicas and their deltas take",
        one(status.used_bytes),
    );
    page.gauge("store_free", bytes(), "What the file system has left", one(status.free_bytes));
    page.gauge(
        "certificate_expiry_timestamp",
        Some(Unit::Seconds),
        "When the certificate stops being good",
        certificate_expiry.map(|expiry| (Labels::new(), expiry as f64)),
    );
}

fn of_disk(disk: &ReplicaStatus) -> Labels {
    labels([("machine", &disk.machine), ("disk", &disk.name)])
}

#[expect(clippy::cast_precision_loss, reason = "bytes and seconds below 2^53")]
fn add_replicas(page: &mut Page, status: &Status) {
    let each = |value: fn(&ReplicaStatus) -> Option<f64>| {
        let disks = status.disks.iter();
        disks.filter_map(move |disk| Some((of_disk(disk), value(disk)?))).collect::<Vec<_>>()
    };
    page.gauge(
        "replica_size",
        Some(Unit::Bytes),
        "Size of the disk that is replicated",
        each(|disk| Some(disk.size_bytes as f64)),
    );
    page.gauge(
        "replica_connected",
        None,
        "1 while its source is connected",
        each(|disk| Some(f64::from(disk.connected))),
    );
    page.gauge(
        "scrub_ended_timestamp",
        Some(Unit::Seconds),
        "When all that is at rest of the disk had been verified last",
        each(|disk| Some(disk.scrub.as_ref()?.ended?.as_second() as f64)),
    );
    page.gauge(
        "scrub_damaged_parts",
        None,
        "Parts at rest that did not verify",
        each(|disk| Some(disk.scrub.as_ref()?.damage.len() as f64)),
    );
}

#[expect(clippy::cast_precision_loss, reason = "counts and seconds below 2^53")]
fn add_points(page: &mut Page, points: &[PointStatus]) {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut latest: BTreeMap<&str, Timestamp> = BTreeMap::new();
    let good = |point: &&PointStatus| {
        matches!(point.state, PointState::Confirmed | PointState::Provisional)
    };
    for point in points.iter().filter(good) {
        *counts.entry((&point.machine, consistency(point.kind))).or_default() += 1;
        let newest = latest.entry(&point.machine).or_insert(point.time);
        *newest = (*newest).max(point.time);
    }
    let counts = counts.into_iter().map(|((machine, consistency), count)| {
        (labels([("machine", machine), ("consistency", consistency)]), count as f64)
    });
    let help = "Recovery points that can be relied on";
    page.gauge("recovery_points", None, help, counts);
    page.gauge(
        "recovery_point_latest_timestamp",
        Some(Unit::Seconds),
        "When the newest of them was cut",
        latest
            .into_iter()
            .map(|(machine, at)| (labels([("machine", machine)]), at.as_second() as f64)),
    );
}

fn consistency(kind: PointKind) -> &'static str {
    match kind {
        PointKind::Crash => "crash",
        PointKind::Filesystem => "filesystem",
        PointKind::Application => "application",
    }
}
