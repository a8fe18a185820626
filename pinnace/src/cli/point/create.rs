//! `pinnace point create`, on the machine that is protected.

use anyhow::{Result, bail};
use clap::Args;

use super::super::output::json;
use super::super::{Format, Global};
use crate::admin;
use crate::admin::agent::{PointMade, Request, Response};

#[derive(Args)]
pub(in crate::cli) struct CreatePoint {
    /// Have the hooks of the configuration make applications ready for it
    #[arg(long)]
    app_consistent: bool,
}

/// Has the agent make a point now, and waits until the target holds it.
pub(in crate::cli) fn create(global: &Global, args: &CreatePoint) -> Result<()> {
    let request = Request::CreatePoint { app_consistent: args.app_consistent };
    match admin::call(&global.agent()?.socket, &request, global.timeout())? {
        Response::Point(point) => show(global, &point),
        Response::Status(_) | Response::Done(_) | Response::Estimate(_) => {
            bail!("the agent answered another question")
        }
    }
}

fn show(global: &Global, point: &PointMade) -> Result<()> {
    if !matches!(global.format(), Format::Table | Format::Wide) {
        return json(global.format(), point);
    }
    let cut = point.cut.map_or_else(|| "at an unknown time".into(), |cut| cut.to_string());
    println!("Recovery point {} of {cut}: {}, {}", point.id, point.consistency, point.method);
    println!("Disks   {}", point.disks.join(", "));
    println!("Window  {:.3} ms, at attempt {}", point.window_seconds * 1e3, point.attempts);
    if point.freeze_seconds > 0.0 {
        println!("Freeze  {:.3} ms", point.freeze_seconds * 1e3);
    }
    if !point.confirmed {
        println!("It is provisional until the kernel's statistics agree with what was tracked");
    }
    Ok(())
}
