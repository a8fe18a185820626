//! Verifying what is at rest, without the keys.

use blocks::{ByteLen, DiskId, Epoch};
use storage::{Storage, StorageError};

use super::{Store, disks_of};
use crate::{
    catalog::{Catalog, CatalogError},
    delta::{DeltaError, DeltaFile},
    layout::{DiskPaths, epoch_of_delta},
};

/// A thing at rest that does not verify.
#[derive(Debug, thiserror::Error)]
pub enum AtRest {
    /// The catalogue of a disk.
    #[error("the catalogue of disk {disk}: {source}")]
    Catalog {
        /// Which disk.
        disk: DiskId,
        /// What is wrong.
        source: CatalogError,
    },
    /// A delta.
    #[error("the delta of epoch {epoch} of disk {disk}: {source}")]
    Delta {
        /// Which disk.
        disk: DiskId,
        /// Which epoch.
        epoch: Epoch,
        /// What is wrong.
        source: DeltaError,
    },
}

/// What was verified.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// How many disks.
    pub disks: u64,
    /// How many deltas.
    pub deltas: u64,
    /// How many bytes of deltas.
    pub bytes: ByteLen,
    /// What does not verify.
    pub damage: Vec<AtRest>,
}

impl Store {
    /// Reads every catalogue and every delta and verifies all their checksums. A base has none:
    /// what it should hold only a comparison with the source can tell.
    pub fn verify_at_rest(&self) -> Result<VerifyReport, StorageError> {
        let storage = self.storage.as_ref();
        let mut report = VerifyReport::default();
        for disk in disks_of(storage)? {
            report.disks += 1;
            let paths = DiskPaths::new(disk);
            if let Err(source) = Catalog::peek(storage, &paths, disk) {
                report.damage.push(AtRest::Catalog { disk, source });
            }
            let names = storage.list(&paths.deltas())?;
            for epoch in names.iter().filter_map(|name| epoch_of_delta(name)) {
                match verify_delta(storage, &paths, epoch) {
                    Ok(len) => {
                        report.deltas += 1;
                        report.bytes.0 += len.0;
                    }
                    // Folded and removed since it was listed.
                    Err(DeltaError::Storage(error)) if error.is_missing() => {}
                    Err(source) => report.damage.push(AtRest::Delta { disk, epoch, source }),
                }
            }
        }
        Ok(report)
    }
}

fn verify_delta(
    storage: &dyn Storage,
    paths: &DiskPaths,
    epoch: Epoch,
) -> Result<ByteLen, DeltaError> {
    let delta = DeltaFile::open(storage, &paths.delta(epoch))?;
    if delta.name().link.epoch != epoch {
        return Err(DeltaError::Foreign);
    }
    delta.read_frames(drop)?;
    Ok(delta.len())
}
