//! `pinnace resync`.

use anyhow::{Result, bail};
use clap::Args;

use super::disks::done;
use super::output::{age, confirm, json, print, size, table};
use super::{Format, Global};
use crate::admin;
use crate::admin::agent::{Request, Response};
use crate::agent::Estimate;

#[derive(Args)]
pub(super) struct Resync {
    /// The disk, by name, path or identity
    disk: String,
    /// Begin at once, whatever the window of comparisons is
    #[arg(long)]
    now: bool,
    /// Only say how many bytes and how long it would take
    #[arg(long, conflicts_with = "now", visible_alias = "dry-run", short_alias = 'n')]
    estimate: bool,
    /// Make the replica what the disk is, although it was promoted or written since
    #[arg(long, conflicts_with_all = ["now", "estimate"])]
    discard_target: bool,
    /// Don't ask before the target's own content is discarded
    #[arg(short, long, requires = "discard_target")]
    yes: bool,
}

pub(super) fn execute(global: &Global, resync: &Resync) -> Result<()> {
    let disk = resync.disk.clone();
    if resync.discard_target {
        return discard_target(global, &disk, resync.yes);
    }
    if !resync.estimate {
        return done(global, &Request::Resync { disk, now: resync.now });
    }
    let socket = global.agent()?.socket;
    match admin::call(&socket, &Request::EstimateResync { disk }, global.timeout())? {
        Response::Estimate(estimate) => show(global.format(), &estimate),
        _ => bail!("the agent answered another question"),
    }
}

/// Ends a split brain for the source: what only the replica holds stays in its recovery points.
fn discard_target(global: &Global, disk: &str, yes: bool) -> Result<()> {
    if !yes {
        let what = format!(
            "The replica of {disk} becomes what {disk} is now; what only the replica holds stays in              its recovery points, until retention lets them go."
        );
        confirm(&what, disk)?;
    }
    done(global, &Request::DiscardTarget { disk: disk.to_owned() })
}

fn show(format: Format, estimate: &Estimate) -> Result<()> {
    if !matches!(format, Format::Table | Format::Wide) {
        return json(format, estimate);
    }
    let mut rows = table(&["READ", "HASHES", "TO SEND", "AT MOST (95 %)", "TIME"]);
    rows.add_row([
        size(estimate.read_bytes),
        size(estimate.hash_bytes),
        size(estimate.send_bytes),
        size(estimate.send_bytes_max),
        age(estimate.seconds),
    ]);
    print(&rows);
    println!("From {} blocks at even distances, before packing", estimate.sampled_blocks);
    Ok(())
}
