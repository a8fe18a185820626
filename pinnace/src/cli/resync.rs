//! `pinnace resync`.

use anyhow::{Result, bail};
use clap::Args;

use super::disks::done;
use super::output::{age, json, print, size, table};
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
}

pub(super) fn execute(global: &Global, resync: &Resync) -> Result<()> {
    let disk = resync.disk.clone();
    if !resync.estimate {
        return done(global, &Request::Resync { disk, now: resync.now });
    }
    let socket = global.agent()?.socket;
    match admin::call(&socket, &Request::EstimateResync { disk }, global.timeout())? {
        Response::Estimate(estimate) => show(global.format(), &estimate),
        _ => bail!("the agent answered another question"),
    }
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
