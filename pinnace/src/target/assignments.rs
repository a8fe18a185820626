//! Block devices set aside as replica disks, by the machine and disk they are for.
//!
//! An operator of the target assigns a device before the disk is protected; a path never comes
//! from a peer. The assignment is used up when the disk is opened for the first time, since from
//! then on the replica's own record names its base.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use blocks::MachineId;
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::machines::Machines;
use crate::agent::own_store;
use crate::exit::{Exit, Failure};
use crate::json_file;

/// The devices set aside in the store at `root`; none if that can't be read.
pub(crate) fn assigned_devices(root: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(Layout::new(root).assignments()).unwrap_or_default();
    let records: Vec<Assignment> = serde_json::from_str(&text).unwrap_or_default();
    records.into_iter().map(|assignment| assignment.device).collect()
}

/// The assignments of one target, in one small file.
#[derive(Clone)]
pub(super) struct Assignments {
    path: PathBuf,
    machines: Machines,
    records: Arc<Mutex<Vec<Assignment>>>,
}

#[derive(Clone, Deserialize, PartialEq, Serialize)]
struct Assignment {
    machine: String,
    /// The kernel's name of the disk on its machine, as `vdb`.
    disk: String,
    device: PathBuf,
}

impl Assignments {
    /// Reads the assignments; a file that does not exist holds none.
    pub(super) fn read(path: PathBuf, machines: Machines) -> Result<Self> {
        let records: Option<Vec<Assignment>> = json_file::read(&path).context("the assignments")?;
        let records = records.unwrap_or_default();
        Ok(Self { path, machines, records: Arc::new(Mutex::new(records)) })
    }

    /// Sets `device` aside for `disk` of `machine`, in place of what was set aside for it before.
    pub(super) fn assign(&self, machine: &str, disk: &str, device: &Path) -> Result<String> {
        let id: MachineId = machine.parse().map_err(|error| {
            Failure::new(Exit::Usage, format!("{machine:?}: {error}; see `pinnace target status`"))
        })?;
        if self.machines.get(id)?.is_none() {
            return Err(
                Failure::new(Exit::NotFound, format!("no machine {id} has enrolled")).into()
            );
        }
        let device = std::fs::canonicalize(device).map_err(|error| {
            Failure::new(Exit::NotFound, format!("{}: {error}", device.display()))
        })?;
        if own_store::is_protected_here(&device)? {
            let message = format!(
                "{} is protected on this machine: as a replica disk it would be overwritten",
                device.display()
            );
            return Err(Failure::new(Exit::Refused, message).into());
        }
        // Whether it can be had: a device that is mounted or in use can't.
        storage::BlockDevice::open(&device)
            .map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
        let assignment = Assignment { machine: id.to_string(), disk: disk.into(), device };
        let words = format!("{} will be the replica of {disk}", assignment.device.display());
        self.edit(|records| {
            records.retain(|a| a.machine != assignment.machine || a.disk != assignment.disk);
            records.push(assignment);
        })?;
        Ok(words)
    }

    /// The device set aside for a disk, if there is one.
    pub(super) fn device_for(&self, machine: MachineId, disk: &str) -> Option<PathBuf> {
        let machine = machine.to_string();
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let found = records.iter().find(|a| a.machine == machine && a.disk == disk);
        found.map(|assignment| assignment.device.clone())
    }

    /// The device is the replica of the disk from now on.
    pub(super) fn use_up(&self, machine: MachineId, disk: &str) -> Result<()> {
        let machine = machine.to_string();
        self.edit(|records| records.retain(|a| a.machine != machine || a.disk != disk))
    }

    fn edit(&self, edit: impl FnOnce(&mut Vec<Assignment>)) -> Result<()> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        edit(&mut records);
        json_file::write(&self.path, &*records)
    }
}
