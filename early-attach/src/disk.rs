//! Adding a disk: its maps made and pinned, and the programs told, in the order of `ebpf`.

use std::{io, path::Path};

use aya::maps::{MapData, MapError};
use aya_obj::generated::{BPF_F_INNER_MAP, BPF_F_MMAPABLE};
use blocks::Slot;
use ebpf_object::{
    device::{self, DiskClass},
    limits::DISKS,
    meta::{self, Arrival, Meta},
    pins::{self, DirectoryError},
    shape::{SHEET_WORDS, WORDS_MAX, coarse_words_of, sheet_key, sheet_name, sheets_of, words_of},
    spec::DiskSpec,
};

use crate::load::{LoadError, Loaded, create_array, pin};

/// A disk can't be tracked.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// It takes bios, whose programs need to see starts too.
    #[error("no bio-based disk is attached early")]
    Class,
    /// No slot is free, or no room for its number, or its bitmap would be too large.
    #[error("there is no room for it in the programs' tables")]
    NoRoom,
    /// The directory of pins.
    #[error("the directory of pinned maps")]
    Directory(#[from] DirectoryError),
    /// A map of it.
    #[error("its maps")]
    Map(#[from] Box<MapError>),
    /// A pin of it.
    #[error("its pins")]
    Pin(#[source] Box<LoadError>),
    /// Its paths can't be listed.
    #[error("its paths")]
    Paths(#[source] io::Error),
    /// Its record.
    #[error("its record")]
    Record(#[source] io::Error),
}

impl From<MapError> for AddError {
    fn from(error: MapError) -> Self {
        Self::Map(Box::new(error))
    }
}

impl From<LoadError> for AddError {
    fn from(error: LoadError) -> Self {
        Self::Pin(Box::new(error))
    }
}

/// A disk that is tracked, with its record.
#[derive(Debug)]
pub struct Added {
    pub(crate) slot: Slot,
    pub(crate) meta: Meta,
}

impl Loaded {
    /// Starts tracking a disk, in the first slot that is free. Whoever takes the pins up is told that
    /// what was before is not known; see [`Arrival::Early`].
    ///
    /// # Errors
    /// The disk is not tracked then, and nothing of it is left.
    pub fn add(&mut self, spec: &DiskSpec) -> Result<Added, AddError> {
        if spec.class == DiskClass::BioBased {
            return Err(AddError::Class);
        }
        let free = |slot: &Slot| !self.pins.disk(*slot).exists();
        let slot = (0..DISKS).map(Slot).find(free).ok_or(AddError::NoRoom)?;
        if spec.number.devt() == 0 || words_of(spec.geometry.chunks()) > WORDS_MAX {
            return Err(AddError::NoRoom);
        }
        match self.start(slot, spec) {
            Ok(meta) => Ok(Added { slot, meta }),
            Err(error) => {
                // The first error is the one to tell.
                let _ = self.stop(slot);
                Err(error)
            }
        }
    }

    /// Stops tracking it.
    ///
    /// # Errors
    /// If its pins can't be removed.
    pub fn remove(&mut self, disk: Added) -> Result<(), DirectoryError> {
        let Added { slot, meta } = disk;
        drop(meta);
        self.stop(slot)
    }

    fn start(&mut self, slot: Slot, spec: &DiskSpec) -> Result<Meta, AddError> {
        self.pins.make_disk(slot)?;
        let at = self.pins.disk(slot);
        let chunks = spec.geometry.chunks();
        let meta_map = create("meta", meta::WORDS.into(), BPF_F_MMAPABLE)?;
        let meta = Meta::new(meta_map.fd()).map_err(AddError::Record)?;
        meta.write(spec);
        meta.arrive(Arrival::Early);
        for index in 0..sheets_of(chunks) {
            let sheet = create("dirty", SHEET_WORDS, BPF_F_MMAPABLE)?;
            pin_in(&at, &sheet_name(index), &sheet)?;
            self.dirty.set(sheet_key(slot, index), &sheet, 0)?;
        }
        let coarse = create("coarse", coarse_words_of(chunks), BPF_F_MMAPABLE | BPF_F_INNER_MAP)?;
        pin_in(&at, "coarse", &coarse)?;
        self.coarse.set(slot.0, &coarse, 0)?;
        pin_in(&at, "pending", &create("pending", words_of(chunks), BPF_F_MMAPABLE)?)?;
        // The record last: with it the disk is complete.
        pin_in(&at, "meta", &meta_map)?;
        self.table.describe(slot, spec);
        self.table.publish(spec.number, slot).map_err(|_| AddError::NoRoom)?;
        if spec.class == DiskClass::Multipath {
            let paths = || device::paths(spec.number);
            let followed = self.table.follow_paths(spec.number, slot, paths);
            followed.map_err(AddError::Paths)?.map_err(|_| AddError::NoRoom)?;
        }
        Ok(meta)
    }

    /// Undoes [`Self::start`], from any point of it. Its maps live on in the programs' tables, which
    /// nobody looks up any more, until another disk takes the slot.
    fn stop(&mut self, slot: Slot) -> Result<(), DirectoryError> {
        self.table.withdraw_slot(slot);
        pins::remove(&self.pins.disk(slot).join("meta"))?;
        pins::remove(&self.pins.disk(slot))
    }
}

fn create(name: &str, words: u64, flags: u32) -> Result<MapData, MapError> {
    let words = u32::try_from(words).expect("at most WORDS_MAX, which was checked");
    create_array(name, words, flags)
}

fn pin_in(at: &Path, name: &str, map: &MapData) -> Result<(), LoadError> {
    pin(&at.join(name), |path| map.pin(path))
}
