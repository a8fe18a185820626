//! What the agent keeps on disk: its identity, and a record, a key and a log for each disk.
//!
//! ```text
//!   identity.json            the machine, and its target
//!   pki/ca.pem machine.pem machine.key
//!   disks/<id>.json          what was protected
//!   keys/<id>.key            its data key, mode 0600
//!   logs/<id>.hrl            its log of dirty chunks
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use blocks::{DiskId, Generation, Geometry, Ticket};
use control::ProtectionState;
use serde::{Deserialize, Serialize};
use storage::{FileStorage, StorePath};
use tracker::hrl::{self, Log};
use wire::DataKey;

use super::resync::{Compared, Difference, ResyncRecord};
use crate::exit::{Exit, Failure};
use crate::identity::hex;
use crate::json_file;
use crate::pki::write_private;

/// The agent's state directory.
#[derive(Clone, Debug)]
pub(crate) struct AgentState {
    root: PathBuf,
}

/// This machine, as it enrolled.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct MachineIdentity {
    pub(crate) machine: String,
    /// HOST:PORT.
    pub(crate) target: String,
    pub(crate) target_id: String,
}

/// What was protected.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct DiskRecord {
    pub(crate) id: String,
    pub(crate) generation: String,
    pub(crate) path: PathBuf,
    pub(crate) sectors: u64,
    pub(crate) logical_block: u32,
    pub(crate) chunk_bytes: u64,
    /// The kernel's sequence number of the disk, and the boot it belongs to.
    pub(crate) disk_sequence: u64,
    pub(crate) boot_id: String,
    /// What its hardware said of itself, where it says anything.
    pub(crate) serial: Option<String>,
    pub(crate) wwn: Option<String>,
    /// The identifier of the partition table or file system that was on it last.
    #[serde(default)]
    pub(crate) content: Option<String>,
    pub(crate) paused: bool,
    /// Where its protection stood; nothing in a record of an older version.
    #[serde(default)]
    pub(crate) standing: Option<Standing>,
    /// What the target handed out when the disk was opened last: without it, this source is not
    /// taken for the one that was there.
    #[serde(default)]
    pub(crate) ticket: Option<TicketRecord>,
    /// The comparison that it needs.
    #[serde(default)]
    pub(crate) resync: Option<ResyncRecord>,
    /// What the last one amounted to.
    #[serde(default)]
    pub(crate) last_compared: Option<Compared>,
    /// What a verification has found, until a comparison has sent it.
    #[serde(default)]
    pub(crate) difference: Option<Difference>,
}

/// A ticket as it is kept.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct TicketRecord {
    number: u64,
    secret: String,
}

/// Why the target refuses a disk.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Refusal {
    /// In words.
    pub(crate) reason: String,
    /// The line that the replica is in, if it is not the source's.
    pub(crate) replica: Option<String>,
}

/// Where the protection of a disk stands.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Standing {
    pub(crate) state: ProtectionState,
    pub(crate) since: jiff::Timestamp,
    /// Why the target refuses it, which waits for a person whatever becomes of the agent.
    pub(crate) refusal: Option<Refusal>,
}

impl Standing {
    /// That of a disk whose protection begins.
    pub(crate) fn begin() -> Self {
        let (state, since) = (ProtectionState::InitialReplication, jiff::Timestamp::now());
        Self { state, since, refusal: None }
    }
}

impl AgentState {
    /// The state in `root`, whose directories are made if need be.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let state = Self { root: root.to_owned() };
        for dir in ["pki", "disks", "keys", "logs", "last"] {
            let dir = state.root.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        Ok(state)
    }

    pub(crate) fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// This machine's identity, or nothing before it has enrolled.
    pub(crate) fn identity(&self) -> Result<Option<MachineIdentity>> {
        json_file::read(&self.root.join("identity.json"))
    }

    pub(crate) fn write_identity(&self, identity: &MachineIdentity) -> Result<()> {
        json_file::write(&self.root.join("identity.json"), identity)
    }

    /// Every record, oldest name first.
    pub(crate) fn disks(&self) -> Result<Vec<DiskRecord>> {
        let dir = self.root.join("disks");
        let entries = fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| format!("reading {}", dir.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                records.extend(json_file::read::<DiskRecord>(&path)?);
            }
        }
        records.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(records)
    }

    pub(crate) fn write_disk(&self, record: &DiskRecord) -> Result<()> {
        json_file::write(&self.root.join("disks").join(format!("{}.json", record.id)), record)
    }

    /// The disk's data key.
    pub(crate) fn key(&self, id: DiskId) -> Result<DataKey> {
        let path = self.key_path(id);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| {
            Failure::new(Exit::Failed, format!("{}: not a key of 32 bytes", path.display()))
        })?;
        Ok(DataKey::from_bytes(bytes))
    }

    pub(crate) fn write_key(&self, id: DiskId, key: &DataKey) -> Result<()> {
        write_private(&self.key_path(id), key.expose())
    }

    /// The disk's log. A log that is missing or damaged is none: that is a gap, never an excuse.
    pub(crate) fn log(&self, id: DiskId, geometry: Geometry) -> Option<Log> {
        let (storage, path) = self.log_file(id);
        match hrl::read(&storage, &path, geometry) {
            Ok(log) if log.header.disk == id && log.header.geometry == geometry => Some(log),
            Ok(_) => {
                tracing::warn!(DISK = %id, "the log of dirty chunks is of another disk");
                None
            }
            Err(error) => {
                tracing::warn!(DISK = %id, %error, "no usable log of dirty chunks");
                None
            }
        }
    }

    pub(crate) fn write_log(&self, log: &Log) -> Result<()> {
        let (storage, path) = self.log_file(log.header.disk);
        hrl::write(&storage, &path, log).context("writing the log of dirty chunks")
    }

    /// Forgets a disk: record, key and log, in an order that leaves no record without a key.
    pub(crate) fn forget(&self, id: DiskId) -> Result<()> {
        let record = self.root.join("disks").join(format!("{id}.json"));
        let log = self.root.join("logs").join(format!("{id}.hrl"));
        for path in [record, self.key_path(id), log, self.last_log(id)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Where the log of a disk is that is written last before the machine stops.
    pub(crate) fn last_log(&self, id: DiskId) -> PathBuf {
        self.root.join("last").join(format!("{id}.log"))
    }

    /// What the initramfs is told.
    pub(crate) fn plan(&self) -> PathBuf {
        plan_in(&self.root)
    }

    fn key_path(&self, id: DiskId) -> PathBuf {
        self.root.join("keys").join(format!("{id}.key"))
    }

    fn log_file(&self, id: DiskId) -> (FileStorage, StorePath) {
        let storage = FileStorage::shared(&self.root.join("logs"));
        (storage, StorePath::root().join(&format!("{id}.hrl")))
    }
}

/// The same in a state directory, which is not made for it.
pub(crate) fn plan_in(state: &Path) -> PathBuf {
    state.join("early-attach.plan")
}

impl DiskRecord {
    pub(crate) fn disk_id(&self) -> Result<DiskId> {
        self.id.parse().with_context(|| format!("the identity {:?} of a disk", self.id))
    }

    pub(crate) fn geometry(&self) -> Result<Geometry> {
        let chunk = blocks::ChunkSize::from_bytes(self.chunk_bytes)?;
        Ok(Geometry::new(self.sectors, self.logical_block, chunk)?)
    }

    /// The ticket of the last opening; one of a source that has none if there was no opening.
    pub(crate) fn ticket(&self) -> Result<Ticket> {
        let Some(kept) = &self.ticket else { return Ok(Ticket::default()) };
        // Its secret is 32 digits, as an identity is.
        let secret: Generation = kept.secret.parse().context("the secret of a ticket")?;
        Ok(Ticket { number: kept.number, secret: secret.0 })
    }

    pub(crate) fn set_ticket(&mut self, ticket: Ticket) {
        self.ticket = Some(TicketRecord { number: ticket.number, secret: hex(&ticket.secret) });
    }

    /// Whether `wanted` is this disk's name, path or identity.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        let name = self.path.file_name().is_some_and(|name| name == wanted);
        name || self.path.as_os_str() == wanted || self.id == wanted
    }
}
