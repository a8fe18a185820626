//! `pinnace resync`.

use anyhow::Result;
use clap::Args;

use super::output::confirm;
use super::{Global, disks};
use crate::admin::agent::Request;

#[derive(Args)]
pub(super) struct Resync {
    /// The disk, by name, path or identity
    disk: String,
    /// Make the replica what the disk is, although it was promoted or written since
    #[arg(long, required = true)]
    discard_target: bool,
    /// Don't ask
    #[arg(short, long)]
    yes: bool,
}

pub(super) fn execute(global: &Global, resync: &Resync) -> Result<()> {
    discard_target(global, &resync.disk, resync.yes)
}

/// Ends a split brain for the source: what only the replica holds stays in its recovery points.
fn discard_target(global: &Global, disk: &str, yes: bool) -> Result<()> {
    if !yes {
        let what = format!(
            "The replica of {disk} becomes what {disk} is now; what only the replica holds stays in \
             its recovery points, until retention lets them go."
        );
        confirm(&what, disk)?;
    }
    disks::done(global, &Request::DiscardTarget { disk: disk.to_owned() })
}
