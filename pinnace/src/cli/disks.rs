//! `pinnace protect`, `unprotect`, `pause`, `resume`, `disk`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{confirm, json, print, size, table};
use super::{Format, Global, status};
use crate::admin;
use crate::admin::agent::{DiskStatus, Request, Response};
use crate::exit::{Exit, Failure};

#[derive(Args)]
pub(super) struct Protect {
    /// The disks, as /dev/NAME; whole disks only
    #[arg(required = true)]
    disks: Vec<PathBuf>,
    /// Only say whether the disks can be protected
    #[arg(long, visible_alias = "dry-run", short_alias = 'n')]
    check: bool,
}

#[derive(Args)]
pub(super) struct Unprotect {
    /// The disk, by name, path or identity
    disk: String,
    /// Don't ask
    #[arg(short, long)]
    yes: bool,
}

#[derive(Args)]
pub(super) struct Which {
    /// The disk, by name, path or identity; without it, all
    disk: Option<String>,
}

#[derive(Subcommand)]
pub(super) enum DiskCommand {
    /// Every disk of this machine, and whether it can be protected
    List,
    /// Everything known about a protected disk
    Show {
        /// The disk, by name, path or identity
        disk: String,
    },
}

/// One line of `pinnace disk list`.
#[derive(Serialize)]
struct ListedDisk {
    name: String,
    size_bytes: u64,
    class: String,
    protected: bool,
    /// Why it can't be protected, if it can't.
    refusal: Option<String>,
}

pub(super) fn protect(global: &Global, protect: &Protect) -> Result<()> {
    let mut failures = Vec::new();
    for path in &protect.disks {
        let request = Request::Protect { path: path.clone(), only_check: protect.check };
        if let Err(error) = done(global, &request) {
            failures.push((path, error));
        }
    }
    let all = protect.disks.len();
    match failures.len() {
        0 => Ok(()),
        1 if all == 1 => Err(failures.remove(0).1),
        failed => {
            for (path, error) in &failures {
                eprintln!("pinnace: {}: {error:#}", path.display());
            }
            let exit = if failed == all { Exit::Failed } else { Exit::PartlyDone };
            Err(Failure::new(exit, format!("{failed} of {all} disks were not protected")).into())
        }
    }
}

pub(super) fn unprotect(global: &Global, unprotect: &Unprotect) -> Result<()> {
    if !unprotect.yes {
        confirm(
            &format!("This ends the tracking of {}; its replica stays.", unprotect.disk),
            &unprotect.disk,
        )?;
    }
    done(global, &Request::Unprotect { disk: unprotect.disk.clone() })
}

pub(super) fn pause(global: &Global, which: &Which) -> Result<()> {
    done(global, &Request::Pause { disk: which.disk.clone() })
}

pub(super) fn resume(global: &Global, which: &Which) -> Result<()> {
    done(global, &Request::Resume { disk: which.disk.clone() })
}

pub(super) fn execute(global: &Global, command: &DiskCommand) -> Result<()> {
    match command {
        DiskCommand::List => list(global),
        DiskCommand::Show { disk } => show(global, disk),
    }
}

pub(super) fn done(global: &Global, request: &Request) -> Result<()> {
    match admin::call(&global.agent()?.socket, request, global.timeout())? {
        Response::Done(words) => {
            println!("{words}");
            Ok(())
        }
        Response::Status(_) | Response::Point(_) | Response::Estimate(_) => {
            bail!("the agent answered another question")
        }
    }
}

fn list(global: &Global) -> Result<()> {
    // Works without a running agent too: then nothing is known to be protected.
    let protected = status::fetch(global).map(|status| status.disks).unwrap_or_default();
    let is_protected = |name: &str| protected.iter().any(|disk| disk.name == name);
    let mut disks = Vec::new();
    for name in ebpf::device::whole_disks()? {
        let listed = match ebpf::device::probe(&PathBuf::from("/dev").join(&name)) {
            Ok(found) => ListedDisk {
                protected: is_protected(&name),
                size_bytes: found.sectors * blocks::SECTOR_SIZE,
                class: found.class.to_string(),
                refusal: None,
                name,
            },
            Err(refusal) => ListedDisk {
                protected: false,
                size_bytes: 0,
                class: "-".into(),
                refusal: Some(refusal.to_string()),
                name,
            },
        };
        disks.push(listed);
    }
    if !matches!(global.format(), Format::Table | Format::Wide) {
        return json(global.format(), &disks);
    }
    let mut rows = table(&["DISK", "SIZE", "CLASS", "PROTECTED", "CAN BE PROTECTED"]);
    for disk in &disks {
        rows.add_row([
            disk.name.clone(),
            size(disk.size_bytes),
            disk.class.clone(),
            if disk.protected { "yes" } else { "no" }.to_owned(),
            disk.refusal.as_ref().map_or_else(|| "yes".to_owned(), |why| format!("no: {why}")),
        ]);
    }
    print(&rows);
    Ok(())
}

fn show(global: &Global, wanted: &str) -> Result<()> {
    let found = status::fetch(global)?.disks.into_iter().find(|disk| is(disk, wanted));
    let Some(disk) = found else {
        return Err(Failure::new(Exit::NotFound, format!("{wanted} is not protected")).into());
    };
    if !matches!(global.format(), Format::Table | Format::Wide) {
        return json(global.format(), &disk);
    }
    let value = serde_json::to_value(&disk)?;
    let mut rows = table(&["FIELD", "VALUE"]);
    for (key, value) in value.as_object().into_iter().flatten() {
        rows.add_row([key.clone(), value.to_string()]);
    }
    print(&rows);
    Ok(())
}

pub(super) fn is(disk: &DiskStatus, wanted: &str) -> bool {
    disk.name == wanted || disk.id == wanted || disk.path.as_os_str() == wanted
}
