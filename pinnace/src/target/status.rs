//! The target's state in the words of its administrators.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use blocks::MachineId;
use replica::{Completeness, ReplicaRole, Store};

use super::retention::Retention;
use super::run::Peers;
use super::scrub::Scrub;
use super::{metrics, points};
use crate::admin::target::{ReplicaStatus, Status};
use crate::metrics::Page;
use crate::pki;

/// What a status is made from.
#[derive(Clone)]
pub(super) struct Overview {
    pub(super) target: MachineId,
    pub(super) store: PathBuf,
    pub(super) listen: SocketAddr,
    pub(super) replicas: Arc<Store>,
    pub(super) peers: Peers,
    pub(super) retention: Retention,
    pub(super) scrub: Scrub,
}

impl Overview {
    /// The metrics of this moment.
    pub(super) fn metrics(&self, pki: &Path) -> Result<Page> {
        let expiry = pki::expiry_of(pki, "target").ok();
        Ok(metrics::page(&self.status()?, &points::list(&self.replicas)?, expiry))
    }

    pub(super) fn status(&self) -> Result<Status> {
        let usage = self.replicas.usage()?;
        let mut disks = Vec::new();
        for listing in self.replicas.disks()? {
            let id = listing.id.to_string();
            let scrub = self.scrub.status(listing.id);
            disks.push(match listing.summary {
                Ok(summary) => ReplicaStatus {
                    id,
                    name: summary.name,
                    machine: summary.machine.to_string(),
                    size_bytes: summary.geometry.len().0,
                    state: match summary.state.completeness {
                        Completeness::Empty => "empty",
                        Completeness::Partial => "partial",
                        Completeness::Follows => "follows",
                    }
                    .into(),
                    generation: summary.generation.to_string(),
                    promoted: summary.role == ReplicaRole::Promoted,
                    epoch: summary.state.last_durable.0,
                    connected: self.peers.contains(summary.machine),
                    base: summary.base_path,
                    scrub,
                },
                Err(error) => ReplicaStatus {
                    id,
                    name: "?".into(),
                    machine: "?".into(),
                    size_bytes: 0,
                    state: format!("damaged: {error}"),
                    generation: "?".into(),
                    promoted: false,
                    epoch: 0,
                    connected: false,
                    base: PathBuf::new(),
                    scrub,
                },
            });
        }
        Ok(Status {
            target: self.target.to_string(),
            store: self.store.clone(),
            listen: self.listen.to_string(),
            used_bytes: usage.bases.0 + usage.deltas.0,
            free_bytes: usage.space.free.0,
            history: self.retention.status(usage.space.free)?,
            disks,
        })
    }
}
