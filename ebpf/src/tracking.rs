//! The programs in the kernel, and the disks they track.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use blocks::{Mark, Slot, Taint, TaintSet};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::{
    conflicts::{ConflictTable, Spilled},
    cost::RunTime,
    counters::{self, ReadError},
    device::{self, DiskClass},
    disk::{DiskMapError, DiskMaps, KernelMaps, Shared, TrackedDisk, remove_pins},
    hooks::Hook,
    in_flight::InFlightTable,
    limits::DISKS,
    load::{self, Found, LoadError, LoadOptions, Programs},
    pins::{DirectoryError, Pins},
    ring::RingReader,
    shape::{WORDS_MAX, sheet_key, sheets_of, words_of},
    spec::DiskSpec,
    sys,
    table::DiskTable,
    upgrade::{self, Behind, UpgradeError},
};

mod detached;

/// How the programs came to be in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// They were loaded just now: what was written before is not known.
    Fresh,
    /// They were there, and tracked all the while.
    Continued,
}

/// A disk can't be tracked.
#[derive(Debug, thiserror::Error)]
pub enum AddDiskError {
    /// It is tracked already.
    #[error("it is tracked already, in slot {}", .0.0)]
    AlreadyTracked(Slot),
    /// The number is that of no disk.
    #[error("device number 0:0 is no disk's")]
    NoDevice,
    /// No slot is free.
    #[error("{DISKS} disks are tracked already, which is the most there can be")]
    TooManyDisks,
    /// The look-up table has no room for this device number, because of those in it.
    #[error("the device numbers of the disks tracked so far leave no room for this one")]
    Crowded,
    /// The bitmap would be too large.
    #[error("{chunks} chunks are more than can be tracked: choose larger chunks")]
    TooManyChunks {
        /// How many the disk has.
        chunks: u64,
    },
    /// Its maps.
    #[error("the maps of the disk")]
    Maps(#[from] DiskMapError),
    /// The directory of pins.
    #[error("the directory of pinned maps")]
    Directory(#[from] DirectoryError),
    /// The paths of a multipath disk can't be listed.
    #[error("the paths of the disk")]
    Paths(#[source] io::Error),
    /// Programs for its class could not be attached.
    #[error("attaching the programs for disks of its class")]
    Attach(#[source] Box<LoadError>),
    /// The programs' maps.
    #[error("the maps of the tracking programs")]
    Tables(#[from] libbpf_rs::Error),
    /// The counters.
    #[error(transparent)]
    Counters(#[from] ReadError),
}

/// A disk could not be removed whole; it is no longer tracked.
#[derive(Debug, thiserror::Error)]
pub enum RemoveDiskError {
    /// There is none.
    #[error("no disk is tracked in slot {}", .0.0)]
    NotTracked(Slot),
    /// The directory of pins.
    #[error("the directory of pinned maps")]
    Directory(#[from] DirectoryError),
    /// The programs' maps.
    #[error("the maps of the tracking programs")]
    Tables(#[from] libbpf_rs::Error),
}

/// Tracking could not be ended whole.
#[derive(Debug, thiserror::Error)]
#[error("removing the pinned maps and programs")]
pub struct UnloadError(#[from] DirectoryError);

/// One program in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramStatus {
    /// Its name: hook and copy.
    pub name: String,
    /// Events for which the kernel skipped it, because it was running on that processor already.
    /// An event is lost only if all copies were skipped.
    pub misses: u64,
    /// What it cost, while [`crate::cost::Measuring`] existed.
    pub run_time: RunTime,
}

/// The programs, loaded and attached, and the disks they track.
///
/// Dropping it leaves all in the kernel, where tracking goes on; [`Tracking::unload`] ends it.
#[derive(Debug)]
pub struct Tracking {
    pins: Pins,
    shared: Arc<Shared>,
    dirty: MapHandle,
    coarse: MapHandle,
    conflicts: Option<ConflictTable>,
    ring: RingReader,
    disks: BTreeMap<Slot, TrackedDisk>,
}

impl Tracking {
    /// Takes up what is pinned in `directory`, or loads the programs if nothing is.
    ///
    /// # Errors
    /// Among others, if another version's programs are there.
    pub fn open_or_load(directory: &Path) -> Result<(Self, Attached), LoadError> {
        Self::open_or_load_with(directory, LoadOptions::default())
    }

    /// The same, with sizes for the case that the programs are loaded.
    ///
    /// # Errors
    /// Among others, if another version's programs are there.
    pub fn open_or_load_with(
        directory: &Path,
        options: LoadOptions,
    ) -> Result<(Self, Attached), LoadError> {
        Self::open_or_start(directory, || Programs::load(options))
    }

    /// The same with programs that were loaded before, or are only if they are needed.
    ///
    /// # Errors
    /// Among others, if another version's programs are there.
    pub fn open_or_start(
        directory: &Path,
        programs: impl FnOnce() -> Result<Programs, LoadError>,
    ) -> Result<(Self, Attached), LoadError> {
        let pins = Pins::open(directory)?;
        upgrade::recover(&pins)?;
        if let Found::Complete = load::inspect(&pins)? {
            let mut tracking = Self::open(pins)?;
            if tracking.take_up_disks()? {
                return Ok((tracking, Attached::Continued));
            }
            // Programs for a disk that is tracked are gone: what they missed is unknown.
            drop(tracking);
            return Self::begin(Pins::open(directory)?, programs()?);
        }
        Self::begin(pins, programs()?)
    }

    /// Takes up what is pinned in `directory`, if all of it is there. Loads nothing.
    ///
    /// # Errors
    /// Among others, if another version's programs are there.
    pub fn take_up(directory: &Path) -> Result<Option<Self>, LoadError> {
        let pins = Pins::open(directory)?;
        upgrade::recover(&pins)?;
        let Found::Complete = load::inspect(&pins)? else { return Ok(None) };
        let mut tracking = Self::open(pins)?;
        Ok(tracking.take_up_disks()?.then_some(tracking))
    }

    fn begin(pins: Pins, programs: Programs) -> Result<(Self, Attached), LoadError> {
        if let Err(error) = load::start(&pins, programs) {
            // What was pinned has no version beside it and is swept by the next attempt anyway.
            pins.clear()?;
            return Err(error);
        }
        Ok((Self::open(pins)?, Attached::Fresh))
    }

    fn open(pins: Pins) -> Result<Self, LoadError> {
        let map = |name| MapHandle::from_pinned_path(pins.map(name));
        let table = map("table")?;
        let table = DiskTable::new(&table)
            .map_err(|source| LoadError::Pin { path: pins.map("table"), source })?;
        let ring = map("ring")?;
        let ring = RingReader::new(&ring, ring.max_entries())
            .map_err(|source| LoadError::Pin { path: pins.map("ring"), source })?;
        Ok(Self {
            conflicts: Some(open_conflicts(&pins)?),
            shared: Arc::new(Shared {
                table,
                counters: map("counters")?,
                in_flight: open_in_flight(&pins)?,
            }),
            dirty: map("dirty")?,
            coarse: map("coarse")?,
            ring,
            disks: BTreeMap::new(),
            pins,
        })
    }

    /// Whether the programs in the kernel are those that this process would load.
    pub fn is_current(&self) -> bool {
        upgrade::is_current(&self.pins)
    }

    /// Puts the programs of this build in the place of those in the kernel, without a moment in which
    /// a write is not marked. Under load this may take about a second.
    ///
    /// Counters of the disks begin anew, [`Behind`] what they were. Handles on disks and on the
    /// conflict table that were taken before must no longer be used.
    ///
    /// # Errors
    /// The old programs go on then, and are found by [`Self::open_or_load`]; or the new ones do, if
    /// what failed came after they were all attached.
    pub fn upgrade(self) -> Result<(Self, Behind), UpgradeError> {
        let disks: Vec<TrackedDisk> = self.disks().cloned().collect();
        let Self { pins, .. } = self;
        let behind = upgrade::upgrade(&pins, &disks)?;
        let mut upgraded = Self::open(pins)?;
        upgraded.take_up_disks()?;
        Ok((upgraded, behind))
    }

    /// Starts tracking a disk. Its bitmap is live when this returns: every write acknowledged from
    /// then on is marked. Everything written before is the caller's to copy, beginning after.
    ///
    /// For a bio-based disk this waits, up to about a second, for writes under way to complete;
    /// one that takes longer taints the disk when it does.
    ///
    /// # Errors
    /// The disk is not tracked then, and nothing of it is left.
    pub fn add_disk(&mut self, spec: &DiskSpec) -> Result<Slot, AddDiskError> {
        let slot = self.slot_for(spec)?;
        match self.start(slot, spec) {
            Ok(maps) => {
                let shared = Arc::clone(&self.shared);
                self.disks.insert(slot, TrackedDisk::new(slot, *spec, shared, maps));
            }
            Err(error) => {
                // The first error is the one to tell; what stays behind is swept at the next start.
                let _ = self.stop(slot, spec);
                return Err(error);
            }
        }
        if spec.class == DiskClass::BioBased {
            settle(&self.shared.table, slot, spec);
        }
        Ok(slot)
    }

    /// Stops tracking a disk and removes its maps.
    ///
    /// # Errors
    /// If something of it could not be removed.
    pub fn remove_disk(&mut self, slot: Slot) -> Result<(), RemoveDiskError> {
        let disk = self.disks.remove(&slot).ok_or(RemoveDiskError::NotTracked(slot))?;
        self.stop(slot, disk.spec())
    }

    /// Looks at which paths multipath disks have. The programs learn of a path with its first bio;
    /// this tells them of paths that have had none, and that a path is gone.
    pub fn follow_paths(&self) {
        for disk in self.disks() {
            // A disk that is gone has no paths, and is found out elsewhere.
            if let Err(AddDiskError::Crowded) = self.follow_paths_of(disk.slot(), disk.spec()) {
                let unknown = TaintSet::default().with(Taint::UnknownPath);
                self.shared.table.add_taints(disk.slot(), unknown);
            }
        }
    }

    /// The disk in `slot`.
    pub fn disk(&self, slot: Slot) -> Option<&TrackedDisk> {
        self.disks.get(&slot)
    }

    /// All disks, by slot.
    pub fn disks(&self) -> impl Iterator<Item = &TrackedDisk> {
        self.disks.values()
    }

    /// Hands out the marks that came since the last call, and returns how many. Marks of disks
    /// removed meanwhile may be among them.
    pub fn poll_ring(&mut self, out: &mut dyn FnMut(Mark)) -> usize {
        self.ring.poll(out)
    }

    /// The conflict table of all disks, to one taker: nothing the second time.
    pub fn conflicts(&mut self) -> Option<ConflictTable> {
        self.conflicts.take()
    }

    /// The attached programs.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn programs(&self) -> Result<Vec<ProgramStatus>, io::Error> {
        let names = Hook::ALL.into_iter().flat_map(Hook::programs);
        let attached = names.filter(|name| self.pins.link(name).exists());
        attached.map(|name| program_status(&self.pins, name)).collect()
    }

    /// How often any program was skipped; see [`ProgramStatus::misses`].
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn misses(&self) -> Result<u64, io::Error> {
        Ok(self.programs()?.iter().map(|program| program.misses).sum())
    }

    /// Ends tracking: detaches the programs and removes every map and pin. The kernel does so in
    /// its own time, some milliseconds: until then programs may still mark what nobody reads.
    ///
    /// # Errors
    /// If a pin could not be removed.
    pub fn unload(self) -> Result<(), UnloadError> {
        Ok(self.pins.remove()?)
    }

    /// Ends whatever tracking is pinned in `directory`, of this version or another.
    ///
    /// # Errors
    /// If a pin could not be removed, or a process uses it.
    pub fn unload_all(directory: &Path) -> Result<(), UnloadError> {
        Ok(Pins::open(directory)?.remove()?)
    }

    /// Opens the disks that are pinned. Returns false if one of them lacks its programs.
    fn take_up_disks(&mut self) -> Result<bool, LoadError> {
        for slot in self.pins.disks()? {
            match self.open_disk(slot).map_err(io::Error::other) {
                Ok(Some(disk)) => drop(self.disks.insert(slot, disk)),
                // Its addition or its removal was interrupted; nobody was told that it is tracked.
                Ok(None) => {
                    self.shared.table.withdraw_slot(slot);
                    remove_pins(&self.pins.disk(slot))?;
                }
                Err(source) => {
                    return Err(LoadError::Pin { path: self.pins.disk(slot), source });
                }
            }
        }
        let free = (0..DISKS).map(Slot).filter(|slot| !self.disks.contains_key(slot));
        free.for_each(|slot| self.shared.table.withdraw_slot(slot));
        let mut needed = self.needed_hooks().into_iter().flat_map(Hook::programs);
        Ok(needed.all(|name| self.pins.link(&name).exists()))
    }

    /// The hooks without which some disk is not tracked, in the order of attachment.
    fn needed_hooks(&self) -> Vec<Hook> {
        Hook::needed_by(self.disks().map(|disk| disk.spec().class))
    }

    fn open_disk(&self, slot: Slot) -> Result<Option<TrackedDisk>, OpenDiskError> {
        let Some((spec, maps, kernel)) = DiskMaps::open(&self.pins.disk(slot))? else {
            return Ok(None);
        };
        let mut live = self.shared.table.is_published(spec.number, slot);
        for (outer, key, inner) in self.places(slot, &kernel) {
            live = live && is_inner(outer, key, inner)?;
        }
        let shared = Arc::clone(&self.shared);
        Ok(live.then(|| TrackedDisk::new(slot, spec, shared, maps)))
    }

    fn slot_for(&self, spec: &DiskSpec) -> Result<Slot, AddDiskError> {
        let same =
            |disk: &&TrackedDisk| disk.spec().id == spec.id || disk.spec().number == spec.number;
        if let Some(disk) = self.disks().find(same) {
            return Err(AddDiskError::AlreadyTracked(disk.slot()));
        }
        if spec.number.devt() == 0 {
            return Err(AddDiskError::NoDevice);
        }
        let chunks = spec.geometry.chunks();
        if words_of(chunks) > WORDS_MAX {
            return Err(AddDiskError::TooManyChunks { chunks });
        }
        let mut slots = (0..DISKS).map(Slot);
        slots.find(|slot| !self.disks.contains_key(slot)).ok_or(AddDiskError::TooManyDisks)
    }

    fn start(&self, slot: Slot, spec: &DiskSpec) -> Result<DiskMaps, AddDiskError> {
        // Left by an interrupted removal, if anything.
        remove_pins(&self.pins.disk(slot))?;
        self.pins.make_disk(slot)?;
        let (maps, kernel) = DiskMaps::create(&self.pins.disk(slot), spec)?;
        // They stay attached when the last such disk goes: the kernel detaches in its own time, and
        // what is attached anew meanwhile would run in the wrong order.
        let mut besides = Hook::needed_besides(spec.class).iter();
        let attached = besides.try_for_each(|hook| load::attach(&self.pins, *hook));
        attached.map_err(|error| AddDiskError::Attach(Box::new(error)))?;
        self.install(slot, &kernel)?;
        counters::reset(&self.shared.counters, slot)?;
        self.shared.table.describe(slot, spec);
        self.shared.table.publish(spec.number, slot).map_err(|_| AddDiskError::Crowded)?;
        self.follow_paths_of(slot, spec)?;
        Ok(maps)
    }

    fn follow_paths_of(&self, slot: Slot, spec: &DiskSpec) -> Result<(), AddDiskError> {
        if spec.class != DiskClass::Multipath {
            return Ok(());
        }
        let paths = || device::paths(spec.number);
        let followed = self.shared.table.follow_paths(spec.number, slot, paths);
        followed.map_err(AddDiskError::Paths)?.map_err(|_| AddDiskError::Crowded)
    }

    /// Where the programs look for each map of a disk: an outer map, and the key in it.
    fn places<'a>(
        &'a self,
        slot: Slot,
        kernel: &'a KernelMaps,
    ) -> impl Iterator<Item = (&'a MapHandle, u32, &'a MapHandle)> {
        let sheets = (0..).zip(&kernel.dirty);
        let sheets = sheets.map(move |(i, map)| (&self.dirty, sheet_key(slot, i), map));
        sheets.chain([(&self.coarse, slot.0, &kernel.coarse)])
    }

    /// Lets the programs find the bitmaps.
    fn install(&self, slot: Slot, kernel: &KernelMaps) -> libbpf_rs::Result<()> {
        for (outer, key, inner) in self.places(slot, kernel) {
            let descriptor = std::os::fd::AsRawFd::as_raw_fd(&inner.as_fd());
            outer.update(&key.to_ne_bytes(), &descriptor.to_ne_bytes(), MapFlags::ANY)?;
        }
        Ok(())
    }

    /// Undoes [`Self::start`], from any point of it. The disk must not be in `self.disks`.
    fn stop(&self, slot: Slot, spec: &DiskSpec) -> Result<(), RemoveDiskError> {
        // With it go its paths, if it has any.
        self.shared.table.withdraw_slot(slot);
        let sheets = 0..sheets_of(spec.geometry.chunks());
        let sheets = sheets.map(|index| (&self.dirty, sheet_key(slot, index)));
        for (outer, key) in sheets.chain([(&self.coarse, slot.0)]) {
            // Returns after every program that may still use the map has ended.
            match outer.delete(&key.to_ne_bytes()) {
                Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => Err(error)?,
                _ => {}
            }
        }
        Ok(remove_pins(&self.pins.disk(slot))?)
    }
}

/// A pinned disk could not be opened.
#[derive(Debug, thiserror::Error)]
enum OpenDiskError {
    #[error(transparent)]
    Maps(#[from] DiskMapError),
    #[error(transparent)]
    Tables(#[from] libbpf_rs::Error),
    #[error(transparent)]
    System(#[from] io::Error),
}

fn open_in_flight(pins: &Pins) -> Result<InFlightTable, LoadError> {
    let path = pins.map("in_flight");
    let map = MapHandle::from_pinned_path(&path)?;
    let conflicts = MapHandle::from_pinned_path(pins.map("conflicts"))?;
    Spilled::new(&conflicts)
        .and_then(|spilled| InFlightTable::new(&map, map.max_entries(), spilled))
        .map_err(|source| LoadError::Pin { path, source })
}

fn open_conflicts(pins: &Pins) -> Result<ConflictTable, LoadError> {
    let open =
        |path: PathBuf| sys::open_pin(&path).map_err(|source| LoadError::Pin { path, source });
    let programs = Hook::NOTING.into_iter().map(|name| open(pins.program(name)));
    let programs = programs.collect::<Result<Vec<_>, _>>()?;
    let path = pins.map("conflicts");
    ConflictTable::new(&MapHandle::from_pinned_path(&path)?, programs)
        .map_err(|source| LoadError::Pin { path, source })
}

/// Whether the programs find `inner` under `key` in `outer`.
fn is_inner(outer: &MapHandle, key: u32, inner: &MapHandle) -> Result<bool, OpenDiskError> {
    let found = outer.lookup(&key.to_ne_bytes(), MapFlags::ANY)?;
    let id = sys::map_id(inner.as_fd())?;
    Ok(found.is_some_and(|found| found == id.to_ne_bytes()))
}

/// Writes that were under way when a bio-based disk was added complete without an entry in the
/// in-flight table and taint it. Their data is there before the caller copies the disk, if they
/// complete before this returns, so that taint is taken back.
fn settle(table: &DiskTable, slot: Slot, spec: &DiskSpec) {
    const LEAST: Duration = Duration::from_millis(20);
    const MOST: Duration = Duration::from_secs(1);
    let deadline = Instant::now() + MOST;
    loop {
        thread::sleep(LEAST);
        let idle = device::writes_in_flight(spec.number).is_none_or(|writes| writes == 0);
        if idle || Instant::now() > deadline {
            break;
        }
    }
    table.clear_taints(slot, TaintSet::default().with(Taint::UnmatchedCompletion));
}

fn program_status(pins: &Pins, name: String) -> io::Result<ProgramStatus> {
    let program = sys::open_pin(&pins.program(&name))?;
    let info = sys::program_info(program.as_fd())?;
    Ok(ProgramStatus { name, misses: info.recursion_misses, run_time: RunTime::of(&info) })
}
