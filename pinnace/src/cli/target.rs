//! `pinnace target` and `pinnace token`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Subcommand;

use super::output::{confirm, json, print, size, table};
use super::{Format, Global};
use crate::admin;
use crate::admin::target::{
    DamageStatus, HistoryStatus, ReplicaStatus, Request, Response, Status, TokenStatus,
};
use crate::config::Interval;

#[derive(Subcommand)]
pub(super) enum TargetCommand {
    /// Make a store and a certificate authority of its own
    Init {
        /// A directory of its own, empty or not there yet
        #[arg(long, value_name = "DIR")]
        store: Option<PathBuf>,
    },
    /// Serve agents until stopped
    Run,
    /// What the target holds
    Status,
    /// Set a block device aside as the replica of a disk, before that is protected
    ///
    /// Without this, a replica is a sparse file in the store. What the device holds is overwritten.
    Assign {
        /// The machine's identity, as `pinnace agent status` prints it there
        machine: String,
        /// The disk's name there, as vdb
        disk: String,
        /// The block device here; at least as large as the disk, not mounted
        device: PathBuf,
        /// Don't ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Make a replica a disk of its own, which takes nothing more from its source
    ///
    /// For when a machine was started from a recovery point by hand: the old one, when it is back,
    /// then can't replicate over what is left of it. Its points stay.
    Promote {
        /// The disk, by its name or its identity
        disk: String,
        /// Don't ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token that lets a machine enrol
    Create {
        /// How long it is good
        #[arg(long, default_value = "1h")]
        ttl: Interval,
        /// How many machines may use it
        #[arg(long, default_value_t = 1)]
        uses: u32,
    },
    /// The tokens that can still be used
    List,
    /// Take a token back
    Revoke {
        /// Its identity, as listed
        id: String,
    },
}

pub(super) fn execute(global: &Global, command: &TargetCommand) -> Result<()> {
    let config = global.target()?;
    match command {
        TargetCommand::Init { store } => {
            let store = store.as_ref().unwrap_or(&config.store);
            let identity = crate::target::init(store)?;
            println!("Target {} is ready in {}", identity.id, store.display());
            println!("Next: `pinnace target run`, then `pinnace token create`");
            Ok(())
        }
        TargetCommand::Run => crate::target::run(&config),
        TargetCommand::Assign { machine, disk, device, yes } => {
            let name = device.display().to_string();
            if !yes {
                confirm(&format!("What {name} holds will be overwritten."), &name)?;
            }
            let (machine, disk) = (machine.clone(), disk.clone());
            match call(global, &Request::Assign { machine, disk, device: device.clone() })? {
                Response::Done(words) => {
                    println!("{words}");
                    Ok(())
                }
                _ => bail!("the target answered another question"),
            }
        }
        TargetCommand::Promote { disk, yes } => {
            if !yes {
                confirm(&format!("The source of {disk} will be refused from now on."), disk)?;
            }
            match call(global, &Request::Promote { disk: disk.clone() })? {
                Response::Done(words) => {
                    println!("{words}");
                    Ok(())
                }
                _ => bail!("the target answered another question"),
            }
        }
        TargetCommand::Status => match call(global, &Request::Status)? {
            Response::Status(status) => show(global.format(), &status),
            _ => bail!("the target answered another question"),
        },
    }
}

pub(super) fn token(global: &Global, command: &TokenCommand) -> Result<()> {
    let request = match command {
        TokenCommand::Create { ttl, uses } => {
            Request::CreateToken { ttl_seconds: ttl.0.as_secs(), uses: *uses }
        }
        TokenCommand::List => Request::ListTokens,
        TokenCommand::Revoke { id } => Request::RevokeToken { id: id.clone() },
    };
    match call(global, &request)? {
        Response::Token { token, id, expires } => match global.format() {
            Format::Table | Format::Wide => {
                println!("{token}");
                eprintln!("Token {id}, good until {expires}. On the machine to protect:");
                eprintln!("  pinnace agent enroll HOST:PORT --token {token}");
                Ok(())
            }
            format => {
                let value = serde_json::json!({ "token": token, "id": id, "expires": expires });
                json(format, &value)
            }
        },
        Response::Tokens(tokens) => show_tokens(global.format(), &tokens),
        Response::Done(words) => {
            println!("{words}");
            Ok(())
        }
        Response::Status(_) | Response::Point(_) => {
            bail!("the target answered another question")
        }
    }
}

fn call(global: &Global, request: &Request) -> Result<Response> {
    admin::call(&global.target()?.socket, request, global.timeout())
}

fn show_tokens(format: Format, tokens: &[TokenStatus]) -> Result<()> {
    if !matches!(format, Format::Table | Format::Wide) {
        return json(format, &tokens);
    }
    let mut rows = table(&["TOKEN", "USES LEFT", "EXPIRES"]);
    for token in tokens {
        rows.add_row([token.id.clone(), token.uses_left.to_string(), token.expires.to_string()]);
    }
    print(&rows);
    Ok(())
}

fn show_history(history: &HistoryStatus) {
    let quota = history.quota_bytes.map_or(String::new(), |quota| format!(" of {}", size(quota)));
    let span = match (history.oldest, history.newest) {
        (Some(oldest), Some(newest)) => format!(" from {oldest:.0} to {newest:.0}"),
        _ => String::new(),
    };
    let (points, bytes) = (history.points, size(history.bytes));
    println!("History: {points} points{span}, {bytes}{quota}; kept: {}", history.ladder);
    if let Some(note) = &history.note {
        println!("{note}");
    }
}

/// What a scrub has found, loudly.
fn show_damage(disk: &ReplicaStatus) {
    for DamageStatus { part, points } in disk.scrub.iter().flat_map(|scrub| &scrub.damage) {
        let lost = match points.as_slice() {
            [] => "no point is lost by it".to_owned(),
            [point] => format!("point {point} is lost by it"),
            [first, ..] => format!("{} points are lost by it, from {first} on", points.len()),
        };
        println!("{}: DAMAGED at rest: {part}; {lost}", disk.name);
    }
}

fn show(format: Format, status: &Status) -> Result<()> {
    if !matches!(format, Format::Table | Format::Wide) {
        return json(format, status);
    }
    println!(
        "Target {} at {}, store {}: {} used, {} free",
        status.target,
        status.listen,
        status.store.display(),
        size(status.used_bytes),
        size(status.free_bytes)
    );
    show_history(&status.history);
    let mut rows = table(&["DISK", "MACHINE", "SIZE", "STATE", "EPOCH", "CONNECTED", "REPLICA"]);
    for disk in &status.disks {
        rows.add_row([
            disk.name.clone(),
            disk.machine.clone(),
            size(disk.size_bytes),
            if disk.promoted { "promoted".to_owned() } else { disk.state.clone() },
            disk.epoch.to_string(),
            if disk.connected { "yes" } else { "no" }.to_owned(),
            disk.base.display().to_string(),
        ]);
    }
    print(&rows);
    status.disks.iter().for_each(show_damage);
    Ok(())
}
