//! `pinnace verify`.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::disks::done;
use super::output::{json, size};
use super::{Format, Global, status};
use crate::admin::agent::{DiskStatus, Request, VerifyPhase};
use crate::config::Bytes;
use crate::exit::{Exit, Failure};

#[derive(Args)]
pub(super) struct Verify {
    /// The disk, by name, path or identity
    disk: String,
    /// How much to read in a second, at most
    #[arg(long, default_value = "64 MiB", value_name = "SIZE")]
    rate: Bytes,
    /// Don't wait for the end: `pinnace status` shows how it goes
    #[arg(long)]
    no_wait: bool,
}

pub(super) fn execute(global: &Global, verify: &Verify) -> Result<()> {
    let rate_bytes = verify.rate.0.0;
    done(global, &Request::Verify { disk: verify.disk.clone(), rate_bytes })?;
    if verify.no_wait {
        return Ok(());
    }
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let disks = status::fetch(global)?.disks;
        let disk = disks.into_iter().find(|disk| super::disks::is(disk, &verify.disk));
        let gone = || Failure::new(Exit::NotFound, format!("{} is gone", verify.disk));
        let disk = disk.ok_or_else(gone)?;
        if disk.verify.as_ref().is_some_and(|verify| verify.phase != VerifyPhase::Running) {
            return conclude(global, &disk);
        }
    }
}

fn conclude(global: &Global, disk: &DiskStatus) -> Result<()> {
    let Some(verify) = &disk.verify else { return Ok(()) };
    if !matches!(global.format(), Format::Table | Format::Wide) {
        json(global.format(), disk)?;
    }
    if let Some(error) = &verify.error {
        return Err(Failure::new(Exit::Failed, format!("{}: {error}", disk.name)).into());
    }
    if let Some(difference) = &disk.difference {
        let mut words = format!(
            "{}: {} differ from the replica; likely cause: {}\nThey are at",
            disk.name,
            size(difference.bytes),
            difference.cause
        );
        for (offset, len) in &difference.extents {
            words.push_str(&format!(" {offset}+{len}"));
        }
        words.push_str(&format!("\n`pinnace resync {} --now` sends them", disk.name));
        return Err(Failure::new(Exit::VerificationFailed, words).into());
    }
    let unsettled = match verify.unsettled_bytes {
        0 => String::new(),
        bytes => format!("; {} were being written whenever they were looked at", size(bytes)),
    };
    println!("{}: {} verified, nothing differs{unsettled}", disk.name, size(verify.bytes));
    Ok(())
}
