//! `pinnace point`: recovery points, made on the machine that is protected, and all else on the
//! target that keeps them.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::output::{json, print, size, table};
use super::{Format, Global};
use crate::admin::points::{
    PointKind, PointRequest, PointResponse, PointState, PointStatus, PrunePlan, Verification, Which,
};
use crate::admin::target::{Request, Response};
use crate::admin::{Connection, Daemon, Progress, converse};
use crate::exit::{Exit, Failure};

mod create;
mod progress;
mod read;

/// Digits of an identity in a table: enough to name a point by.
const SHORT: usize = 8;

#[derive(Subcommand)]
pub(super) enum PointCommand {
    /// Make a recovery point of this machine now (on the protected machine)
    Create(create::CreatePoint),
    /// The recovery points, oldest first
    List {
        /// Of one machine, by the first digits of its identity
        #[arg(long)]
        machine: Option<String>,
    },
    /// All that is known of a point
    Show(Point),
    /// Keep a point until it is unpinned, whatever the policy says
    Pin(Point),
    /// Keep a point only as long as the policy says
    Unpin(Point),
    /// Read all of a point, so that every frame of it is authenticated
    Verify {
        #[command(flatten)]
        point: Point,
        /// Only this disk of it
        #[arg(long)]
        disk: Option<String>,
    },
    /// Say which points the policy would let go now; the target lets them go by itself
    Prune {
        /// Needed, since this command prunes nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Write a disk at a point to a file
    Export {
        #[command(flatten)]
        disk: DiskAtPoint,
        /// What kind of image to write
        #[arg(long, value_enum, default_value_t = ImageFormat::Raw)]
        format: ImageFormat,
        /// The file; it must not exist, unless with --overwrite
        #[arg(long = "to", short = 'O', value_name = "FILE")]
        file: PathBuf,
        /// Replace the file if it exists
        #[arg(long)]
        overwrite: bool,
    },
    /// Serve a disk at a point over NBD until interrupted
    Serve {
        #[command(flatten)]
        disk: DiskAtPoint,
        /// Let clients write; what they write is thrown away in the end
        #[arg(long)]
        writable: bool,
        #[command(flatten)]
        listen: Where,
    },
}

/// A point, as it is named on the command line.
#[derive(Args)]
pub(super) struct Point {
    /// latest, latest-app, a time (the newest point at or before it), or 4 or more digits of an
    /// identity
    point: String,
    /// The machine, by the first digits of its identity; needed where several have points
    #[arg(long)]
    machine: Option<String>,
    /// Take a point although it was retracted
    #[arg(long)]
    force: bool,
}

/// A disk of a point.
#[derive(Args)]
pub(super) struct DiskAtPoint {
    /// The disk's name and the point, as vda@latest
    #[arg(value_name = "DISK@POINT")]
    disk_at_point: String,
    /// The machine, by the first digits of its identity; needed where several have such a disk
    #[arg(long)]
    machine: Option<String>,
    /// Take a point although it was retracted
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Where {
    /// A Unix socket, which only this user may open
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// A TCP address of this machine, as 127.0.0.1:10809
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<std::net::SocketAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ImageFormat {
    /// The bytes of the disk; zeroes take no room
    Raw,
    /// QEMU's format; needs qemu-img
    Qcow2,
}

pub(super) fn execute(global: &Global, command: &PointCommand) -> Result<()> {
    match command {
        PointCommand::Create(args) => create::create(global, args),
        PointCommand::List { machine } => {
            let machine = machine.clone();
            match ask(global, PointRequest::List { machine })? {
                PointResponse::Points(points) => list(global.format(), &points),
                _ => unexpected(),
            }
        }
        PointCommand::Show(point) => {
            match ask(global, PointRequest::Show { which: point.which() })? {
                PointResponse::Point(point) => show(global.format(), &point),
                _ => unexpected(),
            }
        }
        PointCommand::Pin(point) => pin(global, point, true),
        PointCommand::Unpin(point) => pin(global, point, false),
        PointCommand::Verify { point, disk } => verify(global, point, disk.clone()),
        PointCommand::Prune { dry_run } => prune(global, *dry_run),
        PointCommand::Export { disk, format, file, overwrite } => {
            read::export(global, disk, *format, &read::Image { file, overwrite: *overwrite })
        }
        PointCommand::Serve { disk, writable, listen } => {
            read::serve(global, disk, *writable, listen)
        }
    }
}

impl Point {
    fn which(&self) -> Which {
        let (point, machine) = (self.point.clone(), self.machine.clone());
        Which { point, machine, retracted: self.force }
    }
}

impl DiskAtPoint {
    /// The disk's name, and the point.
    fn parts(&self) -> Result<(String, Which)> {
        let text = &self.disk_at_point;
        let Some((disk, point)) = text.split_once('@').filter(|(disk, _)| !disk.is_empty()) else {
            let message = format!("{text:?} is not DISK@POINT; write for example vda@latest");
            return Err(Failure::new(Exit::Usage, message).into());
        };
        let (point, machine) = (point.to_owned(), self.machine.clone());
        Ok((disk.to_owned(), Which { point, machine, retracted: self.force }))
    }
}

/// Asks the target something about points.
fn ask(global: &Global, request: PointRequest) -> Result<PointResponse> {
    ask_with(global, request, None, |_| {}).map(|(answer, _)| answer)
}

/// The same, with an open file that goes along, and something to be told how far it is. What the
/// target holds for the answer is held as long as the connection.
fn ask_with(
    global: &Global,
    request: PointRequest,
    file: Option<std::os::fd::BorrowedFd<'_>>,
    progress: impl FnMut(Progress),
) -> Result<(PointResponse, Connection)> {
    let config = global.target()?;
    let daemon = Daemon { socket: &config.socket, timeout: global.timeout() };
    match converse(daemon, &Request::Point(request), file, progress)? {
        (Response::Point(answer), connection) => Ok((answer, connection)),
        _ => unexpected(),
    }
}

fn unexpected<T>() -> Result<T> {
    bail!("the target answered another question")
}

fn is_table(format: Format) -> bool {
    matches!(format, Format::Table | Format::Wide)
}

fn pin(global: &Global, point: &Point, pin: bool) -> Result<()> {
    match ask(global, PointRequest::Pin { which: point.which(), pin })? {
        PointResponse::Done(words) => {
            println!("{words}");
            Ok(())
        }
        _ => unexpected(),
    }
}

fn verify(global: &Global, point: &Point, disk: Option<String>) -> Result<()> {
    let request = PointRequest::Verify { which: point.which(), disk };
    let mut bar = progress::Bar::new(global.format());
    let (answer, _) = ask_with(global, request, None, |progress| bar.show(progress))?;
    bar.end();
    let PointResponse::Verified(result) = answer else { return unexpected() };
    report(global.format(), &result)?;
    if result.damaged_bytes == 0 {
        return Ok(());
    }
    let message =
        format!("point {} is damaged: {} can't be read", result.point, size(result.damaged_bytes));
    Err(Failure::new(Exit::VerificationFailed, message).into())
}

fn report(format: Format, result: &Verification) -> Result<()> {
    if !is_table(format) {
        return json(format, result);
    }
    for damage in &result.damage {
        println!(
            "{} at {}..{}: {}",
            damage.disk, damage.bytes.start, damage.bytes.end, damage.reason
        );
    }
    if result.damaged_bytes == 0 {
        let (disks, read) = (result.disks, size(result.read_bytes));
        println!("Point {}: {disks} disks, {read} read, all authentic", result.point);
    }
    Ok(())
}

fn prune(global: &Global, dry_run: bool) -> Result<()> {
    if !dry_run {
        let message = "the target lets points go by itself; add --dry-run to see which";
        return Err(Failure::new(Exit::Usage, message).into());
    }
    let PointResponse::Prune(plan) = ask(global, PointRequest::PlanPrune)? else {
        return unexpected();
    };
    if !is_table(global.format()) {
        return json(global.format(), &plan);
    }
    show_plan(&plan);
    Ok(())
}

fn show_plan(plan: &PrunePlan) {
    let quota =
        plan.quota_bytes.map_or("no quota".to_owned(), |quota| format!("quota {}", size(quota)));
    println!("Ladder {}, {quota}; {} in history", plan.ladder, size(plan.history_bytes));
    println!(
        "{} points stay, {} would go, which frees at most {}",
        plan.kept,
        plan.dropped.len(),
        size(plan.freed_bytes_max)
    );
    if plan.dropped.is_empty() {
        return;
    }
    let mut rows = table(&["POINT", "TIME", "KIND", "SIZE", "REASON"]);
    for dropped in &plan.dropped {
        let point = &dropped.point;
        rows.add_row([
            short(&point.id),
            local(point.time),
            kind(point.kind).into(),
            size(point.delta_bytes),
            dropped.reason.clone(),
        ]);
    }
    print(&rows);
}

fn list(format: Format, points: &[PointStatus]) -> Result<()> {
    if !is_table(format) {
        return json(format, &points);
    }
    let wide = format == Format::Wide;
    let mut headings =
        vec!["POINT", "TIME", "KIND", "METHOD", "WINDOW", "DISKS", "STATE", "PINNED", "SIZE"];
    headings.extend(wide.then_some("MACHINE"));
    let mut rows = table(&headings);
    for point in points {
        let mut row = vec![
            if wide { point.id.clone() } else { short(&point.id) },
            local(point.time),
            kind(point.kind).into(),
            point.method.clone(),
            window(point.window_seconds),
            disks(point),
            state(point),
            if point.pinned { "yes" } else { "" }.into(),
            size(point.delta_bytes),
        ];
        row.extend(wide.then(|| point.machine.clone()));
        rows.add_row(row);
    }
    print(&rows);
    Ok(())
}

fn show(format: Format, point: &PointStatus) -> Result<()> {
    if !is_table(format) {
        return json(format, point);
    }
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    for (name, value) in [
        ("Point", point.id.clone()),
        ("Machine", point.machine.clone()),
        ("Time", format!("{} ({})", local(point.time), point.time)),
        ("Kind", format!("{}-consistent", kind(point.kind))),
        ("Method", point.method.clone()),
        ("Attempts", point.attempts.to_string()),
        ("Window", window(point.window_seconds)),
        ("Application stood still", window(point.freeze_seconds)),
        ("State", state(point)),
        ("Pinned", yes(point.pinned)),
        ("In use", yes(point.in_use)),
        ("Takes", size(point.delta_bytes)),
    ] {
        println!("{name}: {value}");
    }
    let mut rows = table(&["DISK", "SIZE", "EPOCH", "DELTA", "IDENTITY"]);
    for disk in &point.disks {
        rows.add_row([
            disk.name.clone(),
            size(disk.size_bytes),
            disk.epoch.to_string(),
            size(disk.delta_bytes),
            disk.id.clone(),
        ]);
    }
    print(&rows);
    Ok(())
}

fn short(id: &str) -> String {
    id.chars().take(SHORT).collect()
}

fn local(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn kind(kind: PointKind) -> &'static str {
    match kind {
        PointKind::Crash => "crash",
        PointKind::Filesystem => "filesystem",
        PointKind::Application => "application",
    }
}

/// Whole disks as one number, others as a fraction.
fn disks(point: &PointStatus) -> String {
    let (there, of) = (point.disks.len(), usize::from(point.disk_count));
    if there == of { of.to_string() } else { format!("{there}/{of}") }
}

fn state(point: &PointStatus) -> String {
    match (point.state, &point.reason) {
        (PointState::Incomplete, _) => "incomplete".into(),
        (PointState::Provisional, _) => "provisional".into(),
        (PointState::Confirmed, _) => "confirmed".into(),
        (PointState::Retracted, None) => "retracted".into(),
        (PointState::Retracted, Some(reason)) => format!("retracted: {reason}"),
    }
}

/// Short spans of time: `120 us`, `3.4 ms`, `1.2 s`.
fn window(seconds: f64) -> String {
    match seconds {
        0.0 => "0".into(),
        s if s < 1e-3 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_and_a_point_are_told_apart() {
        let parts = |text: &str| {
            let (disk_at_point, machine) = (text.to_owned(), None);
            DiskAtPoint { disk_at_point, machine, force: false }.parts()
        };
        let (disk, which) = parts("vda@2026-11-24T10:00:00Z").unwrap();
        assert_eq!((disk.as_str(), which.point.as_str()), ("vda", "2026-11-24T10:00:00Z"));
        for wrong in ["vda", "@latest", ""] {
            assert_eq!(Failure::of(&parts(wrong).unwrap_err()).exit, Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn short_spans_are_readable() {
        assert_eq!([0.0, 12e-5, 0.0034, 1.25].map(window), ["0", "120 us", "3.4 ms", "1.2 s"]);
    }
}
