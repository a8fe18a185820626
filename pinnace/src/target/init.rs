//! `pinnace target init`: makes a store and the target's certificate authority.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::layout::{Layout, TargetIdentity};
use crate::exit::{Exit, Failure};
use crate::identity::random_id;
use crate::pki::{Authority, write_private};

/// Makes a store at `root`, which may not hold anything yet.
pub(crate) fn init(root: &Path) -> Result<TargetIdentity> {
    if fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some()) {
        let message =
            format!("{} is not empty; a store needs a directory of its own", root.display());
        return Err(Failure::new(Exit::Refused, message).into());
    }
    let layout = Layout::new(root);
    fs::create_dir_all(layout.machines())
        .with_context(|| format!("creating {}", root.display()))?;
    let identity = TargetIdentity { id: random_id()? };
    Authority::create(&layout.pki(), &identity.id)?;
    replica::Store::init(&layout.replicas()).context("making the replica store")?;
    // Last: a store without this file is not one, so an interrupted init is noticed.
    write_private(&layout.identity_file(), serde_json::to_string(&identity)?.as_bytes())?;
    Ok(identity)
}
