//! One tracked disk: its maps, opened.

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::SeqCst},
};

use blocks::{Epoch, Extent, Slot, TaintSet};
use libbpf_rs::{MapHandle, libbpf_sys};

use crate::{
    counters::{self, Counters, ReadError},
    harvest::Bitmaps,
    in_flight::{InFlightTable, Listed},
    load::create_array,
    mapped::Mapped,
    meta::{self, Arrival, Baseline, Meta},
    pins::remove,
    shape::{SHEET_WORDS, coarse_words_of, sheet_name, sheets_of, words_of},
    spec::DiskSpec,
    table::DiskTable,
};

/// What all disks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: DiskTable,
    pub(crate) counters: MapHandle,
    pub(crate) in_flight: InFlightTable,
}

/// A tracked disk. Clones are handles on the same; they may be used from several threads, also
/// after the disk was removed, when nothing is marked any more.
#[derive(Clone, Debug)]
pub struct TrackedDisk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slot: Slot,
    spec: DiskSpec,
    shared: Arc<Shared>,
    maps: DiskMaps,
}

impl TrackedDisk {
    pub(crate) fn new(slot: Slot, spec: DiskSpec, shared: Arc<Shared>, maps: DiskMaps) -> Self {
        Self(Arc::new(Inner { slot, spec, shared, maps }))
    }

    /// Its place in the kernel's tables, which marks name.
    pub fn slot(&self) -> Slot {
        self.0.slot
    }

    /// What it was added as.
    pub fn spec(&self) -> &DiskSpec {
        &self.0.spec
    }

    /// Moves every dirty bit to pending, and hands out the words that held some: the index of the
    /// word, then the bits (bit `b` of word `w` is chunk `64 * w + b`). A word may come twice.
    ///
    /// A crash of this process at any point duplicates bits and loses none. When it returns, blocks
    /// read from the disk show every write whose bit was handed out.
    pub fn harvest(&self, out: &mut dyn FnMut(u64, u64)) {
        self.bitmaps().harvest(out);
    }

    /// The same for chunks that a summary names by the last six bits of their numbers.
    #[cfg(feature = "mutants")]
    pub fn harvest_summarized(&self, summary: u64, out: &mut dyn FnMut(u64, u64)) {
        self.bitmaps().harvest_of(summary, out);
    }

    /// The pending words that are not zero, in order, as [`Self::harvest`] numbers them.
    pub fn pending(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let words = (0..).zip(self.0.maps.pending.words());
        words.map(|(index, word)| (index, word.load(SeqCst))).filter(|(_, bits)| *bits != 0)
    }

    /// Makes every chunk pending.
    pub fn fill_pending(&self) {
        self.bitmaps().fill_pending();
    }

    /// Makes chunks of one word pending, numbered as [`Self::harvest`] does. Words past the end of
    /// the disk are ignored.
    pub fn add_pending(&self, index: u64, bits: u64) {
        let index = usize::try_from(index).ok();
        let word = index.and_then(|index| self.0.maps.pending.words().get(index));
        if let Some(word) = word {
            word.fetch_or(bits, SeqCst);
        }
    }

    /// Forgets pending bits of one word, whose content a durable commit of the replica holds.
    /// Words past the end of the disk are ignored.
    pub fn drop_pending(&self, index: u64, bits: u64) {
        let index = usize::try_from(index).ok();
        let word = index.and_then(|index| self.0.maps.pending.words().get(index));
        if let Some(word) = word {
            word.fetch_and(!bits, SeqCst);
        }
    }

    /// The writes that a bio-based disk has under way: a read that meets one may see half of a
    /// block of it. Called after [`crate::ConflictTable::flip`] and before blocks are read, it
    /// lists all that a read may meet and that no look at the table would tell of. Some tens of
    /// microseconds, without a system call. Nothing for request-based disks, of which it is not known.
    pub fn in_flight(&self, out: &mut dyn FnMut(Extent)) -> Listed {
        self.0.shared.in_flight.list(self.0.slot, out)
    }

    /// What the programs counted.
    ///
    /// # Errors
    /// If the kernel does not let us read them.
    pub fn counters(&self) -> Result<Counters, ReadError> {
        counters::read(&self.0.shared.counters, self.0.slot, self.0.spec.class)
    }

    /// What the programs could not follow since it was last cleared.
    pub fn taints(&self) -> TaintSet {
        self.0.shared.table.taints(self.0.slot)
    }

    /// Adds to the taints what was found out elsewhere, so that it survives this process too.
    pub fn taint(&self, taints: TaintSet) {
        self.0.shared.table.add_taints(self.0.slot, taints);
    }

    /// Clears `taints`, for which the disk has been compared, and no others.
    pub fn clear_taints(&self, taints: TaintSet) {
        self.0.shared.table.clear_taints(self.0.slot, taints);
    }

    /// How many ring records of it found no room: then the bitmap is due for a harvest.
    ///
    /// # Errors
    /// If the kernel does not let us read the counters.
    pub fn ring_lost(&self) -> Result<u64, ReadError> {
        self.counters().map(|counters| counters.ring_lost)
    }

    /// How tracking of it began, as long as no agent has taken it up.
    pub fn arrival(&self) -> Arrival {
        self.0.maps.meta.arrival()
    }

    /// An agent has taken it up: from now on what is dirty or pending is all there is to know.
    pub fn establish(&self) {
        self.0.maps.meta.arrive(Arrival::Established);
    }

    /// The newest acknowledged epoch, [`Epoch::NONE`] at first.
    pub fn acked(&self) -> Epoch {
        self.0.maps.meta.acked()
    }

    /// Keeps the newest acknowledged epoch.
    pub fn acknowledge(&self, epoch: Epoch) {
        self.0.maps.meta.acknowledge(epoch);
    }

    /// What the agent kept for its cross-check; zeroes at first.
    pub fn baseline(&self) -> Baseline {
        self.0.maps.meta.baseline()
    }

    /// Keeps numbers of the cross-check. Each is stored on its own: after a crash in between, some
    /// are new and some old.
    pub fn keep_baseline(&self, baseline: Baseline) {
        self.0.maps.meta.keep_baseline(baseline);
    }

    fn bitmaps(&self) -> Bitmaps<'_> {
        let maps = &self.0.maps;
        Bitmaps {
            // The last sheet has words that no chunk belongs to.
            dirty: &maps.dirty.words()[..maps.pending.words().len()],
            coarse: maps.coarse.words(),
            pending: maps.pending.words(),
            chunks: self.0.spec.geometry.chunks(),
        }
    }
}

/// The maps of a disk, mapped.
#[derive(Debug)]
pub(crate) struct DiskMaps {
    dirty: Mapped,
    coarse: Mapped,
    pending: Mapped,
    meta: Meta,
}

/// The maps that the programs write, by descriptor.
pub(crate) struct KernelMaps {
    /// The sheets of the dirty bitmap, in order.
    pub(crate) dirty: Vec<MapHandle>,
    pub(crate) coarse: MapHandle,
}

/// A map of a disk could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum DiskMapError {
    /// By libbpf.
    #[error("{}", path.display())]
    Libbpf {
        /// Its pin.
        path: PathBuf,
        /// What was wrong.
        source: libbpf_rs::Error,
    },
    /// By the system.
    #[error("{}", path.display())]
    Io {
        /// Its pin.
        path: PathBuf,
        /// What was wrong.
        source: io::Error,
    },
    /// The record beside the maps is none of ours.
    #[error("{} describes no disk", path.display())]
    Record {
        /// Its pin.
        path: PathBuf,
    },
}

impl DiskMaps {
    /// Makes the maps of a disk in its directory. The record is pinned last.
    pub(crate) fn create(at: &Path, spec: &DiskSpec) -> Result<(Self, KernelMaps), DiskMapError> {
        let chunks = spec.geometry.chunks();
        let of_any_size = libbpf_sys::BPF_F_MMAPABLE | libbpf_sys::BPF_F_INNER_MAP;
        let sheet = |_| create(at, "dirty", SHEET_WORDS, libbpf_sys::BPF_F_MMAPABLE);
        let mut dirty = (0..sheets_of(chunks)).map(sheet).collect::<Result<Vec<_>, _>>()?;
        let mut coarse = create(at, "coarse", coarse_words_of(chunks), of_any_size)?;
        let mut pending = create(at, "pending", words_of(chunks), libbpf_sys::BPF_F_MMAPABLE)?;
        let mut meta = create(at, "meta", u64::from(meta::WORDS), libbpf_sys::BPF_F_MMAPABLE)?;
        let mapped = map_meta(at, &meta)?;
        mapped.write(spec);
        for (index, sheet) in (0..).zip(&mut dirty) {
            pin(at, &sheet_name(index), sheet)?;
        }
        pin(at, "coarse", &mut coarse)?;
        pin(at, "pending", &mut pending)?;
        pin(at, "meta", &mut meta)?;
        let maps = KernelMaps { dirty, coarse };
        Ok((Self::map(at, chunks, &maps, &pending, mapped)?, maps))
    }

    /// Opens the maps of a disk. Nothing if the directory is incomplete: its making, or its
    /// removal, was interrupted.
    pub(crate) fn open(at: &Path) -> Result<Option<(DiskSpec, Self, KernelMaps)>, DiskMapError> {
        if !["meta", "coarse", "pending"].iter().all(|name| at.join(name).exists()) {
            return Ok(None);
        }
        let meta = map_meta(at, &open(at, "meta")?)?;
        let spec = meta.read().ok_or_else(|| DiskMapError::Record { path: at.join("meta") })?;
        let sheets: Vec<String> = (0..sheets_of(spec.geometry.chunks())).map(sheet_name).collect();
        if !sheets.iter().all(|name| at.join(name).exists()) {
            return Ok(None);
        }
        let dirty = sheets.iter().map(|name| open(at, name)).collect::<Result<_, _>>()?;
        let maps = KernelMaps { dirty, coarse: open(at, "coarse")? };
        let pending = open(at, "pending")?;
        let mapped = Self::map(at, spec.geometry.chunks(), &maps, &pending, meta)?;
        Ok(Some((spec, mapped, maps)))
    }

    fn map(
        at: &Path,
        chunks: u64,
        maps: &KernelMaps,
        pending: &MapHandle,
        meta: Meta,
    ) -> Result<Self, DiskMapError> {
        Ok(Self {
            dirty: Mapped::joined(&maps.dirty, SHEET_WORDS)
                .map_err(|source| DiskMapError::Io { path: at.join("dirty_0"), source })?,
            coarse: map(at, "coarse", &maps.coarse, coarse_words_of(chunks))?,
            pending: map(at, "pending", pending, words_of(chunks))?,
            meta,
        })
    }
}

/// Removes a disk's pins, the record first.
pub(crate) fn remove_pins(at: &Path) -> Result<(), crate::pins::DirectoryError> {
    remove(&at.join("meta"))?;
    remove(at)
}

fn create(at: &Path, name: &str, words: u64, flags: u32) -> Result<MapHandle, DiskMapError> {
    let words = u32::try_from(words).expect("at most WORDS_MAX, which the caller checked");
    create_array(&format!("pinnace_{name}"), words, flags)
        .map_err(|source| DiskMapError::Libbpf { path: at.join(name), source })
}

fn pin(at: &Path, name: &str, map: &mut MapHandle) -> Result<(), DiskMapError> {
    let path = at.join(name);
    map.pin(&path).map_err(|source| DiskMapError::Libbpf { path, source })
}

fn open(at: &Path, name: &str) -> Result<MapHandle, DiskMapError> {
    let path = at.join(name);
    MapHandle::from_pinned_path(&path).map_err(|source| DiskMapError::Libbpf { path, source })
}

fn map(at: &Path, name: &str, map: &impl AsFd, words: u64) -> Result<Mapped, DiskMapError> {
    Mapped::new(map, words).map_err(|source| DiskMapError::Io { path: at.join(name), source })
}

fn map_meta(at: &Path, map: &impl AsFd) -> Result<Meta, DiskMapError> {
    Meta::new(map).map_err(|source| DiskMapError::Io { path: at.join("meta"), source })
}
