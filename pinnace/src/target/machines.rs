//! The enrolled machines: which certificate is whose.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use blocks::MachineId;
use serde::{Deserialize, Serialize};

use crate::identity::hex;
use crate::json_file;
use crate::pki::Fingerprint;

/// The register of machines: a file each, named by the machine's identity.
#[derive(Clone)]
pub(crate) struct Machines {
    dir: PathBuf,
}

/// One enrolled machine.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Machine {
    pub(crate) hostname: String,
    pub(crate) certificate_sha256: String,
    pub(crate) enrolled: jiff::Timestamp,
}

impl Machines {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Puts a machine on record. Enrolling again replaces its certificate.
    pub(crate) fn add(&self, id: MachineId, machine: &Machine) -> Result<()> {
        fs::create_dir_all(&self.dir)
            .with_context(|| format!("creating {}", self.dir.display()))?;
        json_file::write(&self.path(id), machine)
    }

    /// The machine with this identity.
    pub(crate) fn get(&self, id: MachineId) -> Result<Option<Machine>> {
        json_file::read(&self.path(id))
    }

    /// Whether `certificate` is the one that `id` was given last.
    pub(crate) fn is_certified(&self, id: MachineId, certificate: Fingerprint) -> Result<bool> {
        let machine = self.get(id)?;
        Ok(machine.is_some_and(|machine| machine.certificate_sha256 == hex(&certificate)))
    }

    fn path(&self, id: MachineId) -> PathBuf {
        // The name is made of the identity's own digits, never of a peer's text.
        self.dir.join(format!("{id}.json"))
    }
}
