//! The agent's metrics.

use std::collections::BTreeMap;

use prometheus_client::registry::Unit;

use crate::admin::agent::{DiskStatus, LinkStatus, Status};
use crate::metrics::{Distribution, Labels, Page, labels};

/// What no status has room for.
pub(super) struct Measured {
    pub(super) disks: BTreeMap<String, MeasuredDisk>,
    pub(super) window: Distribution,
    pub(super) freeze: Distribution,
    pub(super) attempts: Distribution,
    /// When this machine's certificate stops being good, in seconds since 1970.
    pub(super) certificate_expiry: Option<i64>,
}

/// The same of one disk, by its identity.
pub(super) struct MeasuredDisk {
    pub(super) cycle: Distribution,
    pub(super) latency: Distribution,
    /// How often tracking lost writes, by the reason's name.
    pub(super) lost: BTreeMap<&'static str, u64>,
}

/// The page of an agent.
pub(super) fn page(status: &Status, mut measured: Measured) -> Page {
    let mut page = Page::new();
    add_disks(&mut page, status);
    add_traffic(&mut page, status);
    add_measured(&mut page, status, &mut measured.disks);
    add_points(&mut page, status, measured);
    add_link(&mut page, status);
    page
}

/// A value of every disk.
struct Disks<'a>(&'a Status);

impl Disks<'_> {
    fn each<V>(&self, value: impl Fn(&DiskStatus) -> V) -> Vec<(Labels, V)> {
        self.0.disks.iter().map(|disk| (of_disk(self.0, disk), value(disk))).collect()
    }
}

fn of_disk(status: &Status, disk: &DiskStatus) -> Labels {
    labels([("machine", &status.machine), ("disk", &disk.name)])
}

fn of_machine(status: &Status) -> Labels {
    labels([("machine", &status.machine)])
}

fn with(mut labels: Labels, name: &'static str, value: &str) -> Labels {
    labels.push((name, value.to_owned()));
    labels
}

#[expect(clippy::cast_precision_loss, reason = "bytes of disks below 2^53")]
fn add_disks(page: &mut Page, status: &Status) {
    let (seconds, bytes) = (|| Some(Unit::Seconds), || Some(Unit::Bytes));
    let disks = Disks(status);
    page.gauge(
        "disk_rpo",
        seconds(),
        "Age of the oldest write that the replica lacks",
        disks.each(|disk| disk.rpo_seconds),
    );
    page.gauge(
        "disk_rpo_objective",
        seconds(),
        "How old it may be",
        disks.each(|disk| disk.objective_seconds),
    );
    page.gauge(
        "disk_dirty",
        bytes(),
        "Written and not yet sent",
        disks.each(|disk| disk.dirty_bytes as f64),
    );
    page.gauge("disk_size", bytes(), "Size of the disk", disks.each(|disk| disk.size_bytes as f64));
    page.gauge(
        "disk_state",
        None,
        "1 for the state that the disk is in",
        status
            .disks
            .iter()
            .map(|disk| (with(of_disk(status, disk), "state", disk.state.name()), 1.0)),
    );
    page.gauge(
        "disk_differs",
        None,
        "1 if a verification has found a difference that was not sent since",
        disks.each(|disk| f64::from(disk.difference.is_some())),
    );
    let under_way =
        |disk: &&DiskStatus| disk.resync.as_ref().is_some_and(|resync| resync.begun.is_some());
    let left = status.disks.iter().filter(under_way);
    page.gauge(
        "resync_remaining",
        bytes(),
        "What a comparison under way has not settled yet",
        left.map(|disk| (of_disk(status, disk), (disk.dirty_bytes + disk.in_flight_bytes) as f64)),
    );
}

fn add_traffic(page: &mut Page, status: &Status) {
    let (bytes, disks) = (|| Some(Unit::Bytes), Disks(status));
    page.counter(
        "disk_tracked_writes",
        None,
        "Writes, discards and write-zeroes that were tracked",
        disks.each(|disk| disk.tracking.writes),
    );
    page.counter(
        "disk_tracked",
        bytes(),
        "What those covered",
        disks.each(|disk| disk.tracking.bytes),
    );
    let sent = status.disks.iter().flat_map(|disk| {
        let kinds = [
            ("raw", disk.sent.raw),
            ("zero", disk.sent.zero),
            ("equal", disk.sent.equal),
            ("wire", disk.sent.wire),
        ];
        kinds.map(|(kind, bytes)| (with(of_disk(status, disk), "kind", kind), bytes))
    });
    page.counter(
        "disk_sent",
        bytes(),
        "Read for the replica (raw), of that not sent as zeroes or as equal, and sent (wire)",
        sent,
    );
}

fn add_measured(page: &mut Page, status: &Status, measured: &mut BTreeMap<String, MeasuredDisk>) {
    let (mut cycles, mut latencies, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for disk in &status.disks {
        let Some(of) = measured.remove(&disk.id) else { continue };
        cycles.push((of_disk(status, disk), of.cycle));
        latencies.push((of_disk(status, disk), of.latency));
        let reasons = of.lost.into_iter();
        lost.extend(
            reasons.map(|(why, times)| (with(of_disk(status, disk), "reason", why), times)),
        );
    }
    page.histogram(
        "cycle_duration",
        Some(Unit::Seconds),
        "From the seal of an epoch until all of it was sent",
        cycles,
    );
    page.histogram(
        "ack_latency",
        Some(Unit::Seconds),
        "From the seal of an epoch to its durable acknowledgement",
        latencies,
    );
    page.counter(
        "tracking_lost",
        None,
        "How often writes may have been missed, so that the disk was compared",
        lost,
    );
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
fn add_points(page: &mut Page, status: &Status, measured: Measured) {
    let machine = || of_machine(status);
    let seconds = || Some(Unit::Seconds);
    page.histogram(
        "cut_window",
        seconds(),
        "From the instant of a recovery point to the last look at what was written meanwhile",
        [(machine(), measured.window)],
    );
    page.histogram(
        "cut_attempts",
        None,
        "Attempts that a recovery point took, or was refused after",
        [(machine(), measured.attempts)],
    );
    page.histogram(
        "freeze",
        seconds(),
        "How long file systems stood still for a recovery point, where they did",
        [(machine(), measured.freeze)],
    );
    let points = &status.points;
    let counts = [
        ("recovery_points_made", "Recovery points that became durable", points.made),
        ("recovery_points_refused", "Recovery points that were due and not made", points.refused),
        (
            "recovery_points_retracted",
            "Recovery points that were taken back, since writes were missed",
            points.retracted,
        ),
    ];
    for (name, help, count) in counts {
        page.counter(name, None, help, [(machine(), count)]);
    }
    page.gauge(
        "recovery_point_latest_timestamp",
        seconds(),
        "When the newest recovery point was cut",
        points.newest.map(|newest| (machine(), newest.as_second() as f64)),
    );
    page.gauge(
        "certificate_expiry_timestamp",
        seconds(),
        "When the certificate stops being good",
        measured.certificate_expiry.map(|expiry| (machine(), expiry as f64)),
    );
}

fn add_link(page: &mut Page, status: &Status) {
    let machine = || of_machine(status);
    let connected = matches!(status.link, LinkStatus::Connected { .. });
    page.gauge(
        "link_connected",
        None,
        "1 while the target is connected",
        [(machine(), f64::from(connected))],
    );
    let directions = [("sent", status.link_bytes.sent), ("received", status.link_bytes.received)];
    page.counter(
        "link",
        Some(Unit::Bytes),
        "Datagrams of the connection to the target, without headers of UDP and IP",
        directions.map(|(direction, bytes)| (with(machine(), "direction", direction), bytes)),
    );
    #[expect(clippy::cast_precision_loss, reason = "memory below 2^53 bytes")]
    let resident = status.memory_bytes as f64;
    page.gauge(
        "resident_memory",
        Some(Unit::Bytes),
        "Resident memory of the agent",
        [(machine(), resident)],
    );
    page.gauge(
        "absent_disks",
        None,
        "Protected disks that could not be taken up",
        [(machine(), f64::from(u32::try_from(status.problems.len()).unwrap_or(u32::MAX)))],
    );
}
