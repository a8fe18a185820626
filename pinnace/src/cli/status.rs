//! `pinnace status`.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use super::output::{age, json, print, size, table};
use super::{Format, Global};
use crate::admin;
use crate::admin::agent::{
    DiskState, DiskStatus, LinkStatus, PointMade, Request, Response, Status,
};

#[derive(Args, Clone, Copy)]
pub(super) struct StatusArgs {
    /// Print again every second until interrupted
    #[arg(short, long)]
    watch: bool,
}

pub(super) fn execute(global: &Global, args: StatusArgs) -> Result<()> {
    loop {
        let status = fetch(global)?;
        match global.format() {
            Format::Table | Format::Wide => {
                if args.watch {
                    // Clear the screen, cursor home.
                    print!("\x1b[2J\x1b[H");
                }
                show(&status, global.format());
            }
            // A stream of values is one to a line.
            format => json(if args.watch { Format::Jsonl } else { format }, &status)?,
        }
        if !args.watch {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Asks the agent for its status.
pub(super) fn fetch(global: &Global) -> Result<Status> {
    let socket = global.agent()?.socket;
    match admin::call(&socket, &Request::Status, global.timeout())? {
        Response::Status(status) => Ok(status),
        Response::Done(_) | Response::Point(_) | Response::Estimate(_) => {
            bail!("the agent answered another question")
        }
    }
}

fn show(status: &Status, format: Format) {
    match &status.link {
        LinkStatus::NotEnrolled => println!(
            "Not enrolled: run `pinnace token create` on the target, then `pinnace agent enroll` here"
        ),
        LinkStatus::Connecting { last_error: Some(error), next_attempt } => {
            let next =
                next_attempt.map_or_else(String::new, |at| format!(" at {}", local_time(at)));
            println!("Target unreachable, trying again{next}: {error} (`pinnace resume`: at once)");
        }
        LinkStatus::Refused { reason } => println!(
            "The target refuses this machine: {}. Once that is mended, `pinnace resume` tries again",
            reason.trim_end_matches('.')
        ),
        LinkStatus::Connecting { last_error: None, .. } | LinkStatus::Connected { .. } => {}
    }
    for problem in &status.problems {
        println!("{problem}");
    }
    if status.disks.is_empty() {
        println!("No disk is protected: `pinnace disk list` shows what can be");
        return;
    }
    let mut headings =
        vec!["DISK", "SIZE", "STATE", "RPO", "OBJ", "DIRTY", "RATE", "LAST DURABLE", "LAST POINT"];
    if format == Format::Wide {
        headings.extend(["SINCE", "EPOCH", "WRITES", "SENT", "ACK p50", "ID"]);
    }
    let mut rows = table(&headings);
    for disk in &status.disks {
        rows.add_row(row(disk, format));
    }
    print(&rows);
    if let Some(refusal) = &status.points.last_refusal {
        println!("No recovery point at {}: {}", local_time(refusal.at), refusal.reason);
    }
    if let Some(retraction) = &status.points.last_retraction {
        println!("Points were retracted at {}: {}", local_time(retraction.at), retraction.reason);
    }
    let outside =
        status.disks.iter().filter(|disk| disk.rpo_seconds > disk.objective_seconds).count();
    if outside > 0 {
        println!("{outside} of {} outside the objective", status.disks.len());
    }
    for disk in &status.disks {
        if let Some(reason) = &disk.reason {
            println!("{}: {reason}", disk.name);
        }
    }
}

fn row(disk: &DiskStatus, format: Format) -> Vec<String> {
    let rpo = match disk.state {
        DiskState::InitialReplication { .. } => "-".to_owned(),
        // An age outside the objective catches the eye.
        _ if disk.rpo_seconds > disk.objective_seconds => format!("{}!", age(disk.rpo_seconds)),
        _ => age(disk.rpo_seconds),
    };
    let last = disk.last_durable.map_or_else(|| "never".to_owned(), local_time);
    let mut row = vec![
        disk.name.clone(),
        size(disk.size_bytes),
        disk.remaining_seconds.map_or_else(
            || disk.state.to_string(),
            |seconds| format!("{}, {} left", disk.state, age(seconds)),
        ),
        rpo,
        age(disk.objective_seconds),
        size(disk.dirty_bytes),
        format!("{}/s", size(disk.rate_bytes)),
        last,
        disk.last_point.as_ref().map_or_else(|| "never".into(), point),
    ];
    if format == Format::Wide {
        row.push(local_time(disk.since));
        row.push(disk.epoch.to_string());
        row.push(disk.tracking.writes.to_string());
        row.push(size(disk.sent.wire));
        row.push(disk.ack_latency.map_or_else(|| "-".into(), |l| format!("{:.1} ms", l.p50 * 1e3)));
        row.push(disk.id.clone());
    }
    row
}

/// When a point was cut, and how.
fn point(point: &PointMade) -> String {
    let at = point.cut.map_or_else(|| "?".into(), local_time);
    let provisional = if point.confirmed { "" } else { ", provisional" };
    format!("{at} ({}{provisional})", point.method)
}

fn local_time(at: jiff::Timestamp) -> String {
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string()
}
