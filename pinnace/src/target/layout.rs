//! Where a target keeps what is not a replica, inside its store's directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};

/// The paths of one store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// The target's own identity, in `target.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct TargetIdentity {
    /// 32 hexadecimal digits.
    pub(crate) id: String,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The certificate authority and the target's certificate.
    pub(crate) fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// The key of the stateless resets.
    pub(crate) fn reset_key(&self) -> PathBuf {
        self.pki().join("reset.key")
    }

    /// The enrolment tokens.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.root.join("tokens.json")
    }

    /// The enrolled machines, a file each.
    pub(crate) fn machines(&self) -> PathBuf {
        self.root.join("machines")
    }

    /// The block devices set aside as replica disks.
    pub(crate) fn assignments(&self) -> PathBuf {
        self.root.join("assignments.json")
    }

    /// The replica store.
    pub(crate) fn replicas(&self) -> PathBuf {
        self.root.join("replicas")
    }

    /// What verifying at rest has come to.
    pub(crate) fn scrub(&self) -> PathBuf {
        self.root.join("scrub.json")
    }

    /// What is written to an overlay; its files have no names.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    pub(crate) fn identity_file(&self) -> PathBuf {
        self.root.join("target.json")
    }

    /// Reads the target's identity; an error that names the command if there is none.
    pub(crate) fn identity(&self) -> Result<TargetIdentity> {
        let path = self.identity_file();
        if !path.exists() {
            let message = format!(
                "{} is no store of a target; make one with `pinnace target init --store {0}`",
                self.root.display()
            );
            return Err(Failure::new(Exit::WrongState, message).into());
        }
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
    }
}
