//! `pinnace point`.

use anyhow::Result;
use clap::Subcommand;

use super::Global;
use super::point_create::{CreatePoint, create};

#[derive(Subcommand)]
pub(super) enum PointCommand {
    /// Make a recovery point of this machine now
    Create(CreatePoint),
}

pub(super) fn execute(global: &Global, command: &PointCommand) -> Result<()> {
    match command {
        PointCommand::Create(args) => create(global, args),
    }
}
