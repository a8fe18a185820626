//! The disks, each at its place in the ring's table of files.

use std::fs::File;

use crate::{
    disk::{AddDiskError, DiskHandle, DiskSource},
    io::ring::{DISKS_MAX, Ring},
};

/// The disks of an engine.
#[derive(Default)]
pub(super) struct Disks {
    slots: Vec<Option<(DiskHandle, File)>>,
    serial: u64,
}

impl Disks {
    /// Puts an open disk into the first free place.
    pub(super) fn add(
        &mut self,
        ring: &Ring,
        source: &DiskSource,
        file: File,
    ) -> Result<DiskHandle, AddDiskError> {
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        let slot = u32::try_from(free).ok().filter(|slot| *slot < DISKS_MAX);
        let slot = slot.ok_or(AddDiskError::TooMany(DISKS_MAX))?;
        ring.set_file(slot, Some(&file)).map_err(AddDiskError::Register)?;
        self.serial += 1;
        let DiskSource { id, geometry, .. } = *source;
        let handle = DiskHandle { id, geometry, slot, serial: self.serial };
        if free == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[free] = Some((handle, file));
        Ok(handle)
    }

    /// Closes a disk. The kernel keeps its file for the reads under way.
    pub(super) fn remove(&mut self, ring: &Ring, disk: DiskHandle) {
        if self.holds(disk) {
            self.slots[disk.slot as usize] = None;
            // The place is free in any case: what is put there next replaces what it holds.
            let _ = ring.set_file(disk.slot, None);
        }
    }

    /// Whether this very disk is here.
    pub(super) fn holds(&self, disk: DiskHandle) -> bool {
        let slot = self.slots.get(disk.slot as usize);
        slot.is_some_and(|slot| slot.as_ref().is_some_and(|(handle, _)| *handle == disk))
    }
}
