//! Where everything is in the store. `docs/replica-store.md` shows the tree.

use blocks::{DiskId, Epoch};
use storage::StorePath;

const PART_SUFFIX: &str = ".part";
const MERGING_SUFFIX: &str = ".merging";
const DELTA_SUFFIX: &str = ".delta";
const KEY_SUFFIX: &str = ".key";

pub(crate) fn lock() -> StorePath {
    StorePath::root().join("lock")
}

pub(crate) fn version() -> StorePath {
    StorePath::root().join("version")
}

pub(crate) fn keys() -> StorePath {
    StorePath::root().join("keys")
}

pub(crate) fn key(disk: DiskId) -> StorePath {
    keys().join(&format!("{disk}{KEY_SUFFIX}"))
}

pub(crate) fn disks() -> StorePath {
    StorePath::root().join("disks")
}

/// The directory of one disk.
#[derive(Clone, Debug)]
pub(crate) struct DiskPaths(StorePath);

impl DiskPaths {
    pub(crate) fn new(disk: DiskId) -> Self {
        Self(disks().join(&disk.to_string()))
    }

    pub(crate) fn dir(&self) -> &StorePath {
        &self.0
    }

    pub(crate) fn catalog(&self) -> StorePath {
        self.0.join("catalog")
    }

    /// The name of the catalogue of a disk that is being removed.
    pub(crate) fn forgotten(&self) -> StorePath {
        self.0.join("forgotten")
    }

    pub(crate) fn base(&self) -> StorePath {
        self.0.join("base")
    }

    /// The hashes of the base's leaves.
    pub(crate) fn hashes(&self) -> StorePath {
        self.0.join("hashes")
    }

    pub(crate) fn base_device(&self) -> StorePath {
        self.0.join("base-device")
    }

    pub(crate) fn incoming(&self) -> StorePath {
        self.0.join("incoming")
    }

    pub(crate) fn deltas(&self) -> StorePath {
        self.0.join("deltas")
    }

    pub(crate) fn part(&self, epoch: Epoch) -> StorePath {
        self.incoming().join(&format!("{epoch}{PART_SUFFIX}"))
    }

    /// A merged delta that is being made.
    pub(crate) fn merging(&self, epoch: Epoch) -> StorePath {
        self.incoming().join(&format!("{epoch}{MERGING_SUFFIX}"))
    }

    pub(crate) fn delta(&self, epoch: Epoch) -> StorePath {
        self.deltas().join(&format!("{epoch}{DELTA_SUFFIX}"))
    }
}

/// The disk whose directory has this name; nothing for names that are none of ours.
pub(crate) fn disk_of_name(name: &str) -> Option<DiskId> {
    let disk: DiskId = name.parse().ok()?;
    (disk.to_string() == name).then_some(disk)
}

/// The epoch of a delta file of this name; nothing for names that are none of ours.
pub(crate) fn epoch_of_delta(name: &str) -> Option<Epoch> {
    let epoch = Epoch(name.strip_suffix(DELTA_SUFFIX)?.parse().ok()?);
    (format!("{epoch}{DELTA_SUFFIX}") == name).then_some(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let paths = DiskPaths::new(DiskId([7; 16]));
        assert_eq!(disk_of_name(paths.dir().name()), Some(DiskId([7; 16])));
        assert_eq!(epoch_of_delta(paths.delta(Epoch(12)).name()), Some(Epoch(12)));
        for foreign in ["12", "012.delta", "+12.delta", ".delta", "12.delta.new", "x.delta"] {
            assert_eq!(epoch_of_delta(foreign), None, "{foreign}");
        }
        assert_eq!(disk_of_name("07070707-0707-0707-0707-070707070707"), None);
    }
}
