//! From the programs of one build to those of another, without a moment untracked.
//!
//! What only ever gains bits is shared by both: bitmaps, ring, conflicts, look-up table. What both
//! would change in turn is each its own: counters, and the table of writes under way. So while both
//! are attached every write is marked twice, counted once by each, and matched by each with its own
//! start; neither takes notice of the other.
//!
//! ```text
//!  DIR/next/     maps, programs and links of the new build, while they are being attached
//!  DIR/ready/    the same, once all are attached; from here on it is the old ones that go
//! ```
//!
//! | a crash of the agent | what the next one finds |
//! |---|---|
//! | before `next` becomes `ready`, which is one rename | the old programs at work, and `next`, which it removes |
//! | after | both at work; it goes on moving what is in `ready` over what is there |
//!
//! Moving a link's pin over another is what detaches the old program.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use blocks::Slot;
use libbpf_rs::{MapCore, MapHandle, ObjectBuilder};

use crate::{
    OBJECT,
    counters::{self, Counters, ReadError},
    device::{self, DiskClass},
    disk::TrackedDisk,
    hooks::{Hook, MAPS},
    load::{self, LoadError},
    pins::{self, DirectoryError, Pins},
    sys,
};

/// The maps of which each build has its own.
const OWN_MAPS: [&str; 3] = ["counters", "in_flight", "spilled"];

/// How long writes that began before the new programs saw starts may take to complete, if disks are
/// never seen at rest.
const SETTLED_WITHIN: Duration = Duration::from_secs(1);

/// Looks at both counters; in most of them no completion stands between the two.
const LOOKS: usize = 64;

/// What the programs before had counted of a disk, and those after them have not.
pub type Behind = Vec<(Slot, Counters)>;

/// The new programs could not be put in the place of the old.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The new ones could not be loaded or attached; the old ones go on.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The counters.
    #[error(transparent)]
    Counters(#[from] ReadError),
    /// The directory of pins.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// Removes what an interrupted upgrade had begun, or ends what it had decided.
pub(crate) fn recover(pins: &Pins) -> Result<(), DirectoryError> {
    pins::remove(&pins.path("next"))?;
    finish(pins)
}

/// Attaches the programs of this build beside those that are there, and takes those away.
pub(crate) fn upgrade(pins: &Pins, disks: &[TrackedDisk]) -> Result<Behind, UpgradeError> {
    recover(pins)?;
    let next = pins.path("next");
    for kind in ["maps", "programs", "links"] {
        pins::make_directory(&next.join(kind))?;
    }
    load_beside(pins, &next)?;
    for hook in Hook::ALWAYS {
        attach(&next, hook)?;
    }
    if is_attached(pins, Hook::BioRemap) {
        attach(&next, Hook::BioRemap)?;
    }
    if is_attached(pins, Hook::BioComplete) {
        attach(&next, Hook::BioQueue)?;
        // A completion whose start they have not seen would taint its disk.
        settle(disks);
        attach(&next, Hook::BioComplete)?;
    }
    let behind = behind(pins, &next, disks)?;
    load::pin_version_at(&next.join("version"))?;
    rename(&next, &pins.path("ready"))?;
    finish(pins)?;
    Ok(behind)
}

fn load_beside(pins: &Pins, next: &Path) -> Result<(), LoadError> {
    let mut object = ObjectBuilder::default().open_memory(OBJECT).map_err(LoadError::Object)?;
    for (name, libbpf_name) in MAPS {
        let there = MapHandle::from_pinned_path(pins.map(name))?;
        let mut map = object
            .maps_mut()
            .find(|map| map.name() == libbpf_name)
            .expect("the object is compiled with this crate and has the map");
        let done = match OWN_MAPS.contains(&name) {
            true => map.set_max_entries(there.max_entries()),
            false => map.reuse_fd(there.as_fd()),
        };
        done.map_err(LoadError::Object)?;
    }
    let object = object.load().map_err(LoadError::Object)?;
    for name in OWN_MAPS {
        let map = object.maps().find(|map| map.name() == name);
        load::pin(map.as_ref(), next.join("maps").join(name))?;
    }
    for name in Hook::ALL.into_iter().flat_map(Hook::programs) {
        let program = object.progs().find(|program| program.name() == name.as_str());
        load::pin(program.as_ref(), next.join("programs").join(&name))?;
    }
    Ok(())
}

fn is_attached(pins: &Pins, hook: Hook) -> bool {
    hook.programs().all(|name| pins.link(&name).exists())
}

fn attach(next: &Path, hook: Hook) -> Result<(), LoadError> {
    for name in hook.programs() {
        load::attach_at(&next.join("programs").join(&name), &next.join("links").join(&name))?;
    }
    Ok(())
}

/// Waits until no write is under way that began before, or must have ended.
fn settle(disks: &[TrackedDisk]) {
    let began = Instant::now();
    let of_bios = disks.iter().filter(|disk| disk.spec().class == DiskClass::BioBased);
    for disk in of_bios {
        let at_rest =
            || device::writes_in_flight(disk.spec().number).is_none_or(|writes| writes == 0);
        while !at_rest() && began.elapsed() < SETTLED_WITHIN {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// By how much the new counters are behind the old. The old programs run first, so a write between
/// the two makes the difference too large, never too small.
fn behind(pins: &Pins, next: &Path, disks: &[TrackedDisk]) -> Result<Behind, UpgradeError> {
    let open = |path: PathBuf| MapHandle::from_pinned_path(path).map_err(LoadError::Map);
    let (old, new) = (open(pins.map("counters"))?, open(next.join("maps/counters"))?);
    let mut all = Vec::new();
    for disk in disks {
        let (slot, class) = (disk.slot(), disk.spec().class);
        let mut least: Option<Counters> = None;
        for _ in 0..LOOKS {
            let new = counters::read(&new, slot, class)?;
            let difference = counters::read(&old, slot, class)?.since(&new);
            least = Some(least.map_or(difference, |least| least.least(&difference)));
        }
        all.extend(least.map(|least| (slot, least)));
    }
    Ok(all)
}

/// Moves everything in `ready` to its place. May have been interrupted at any point before.
fn finish(pins: &Pins) -> Result<(), DirectoryError> {
    let ready = pins.path("ready");
    if !ready.exists() {
        return Ok(());
    }
    for name in OWN_MAPS {
        rename(&ready.join("maps").join(name), &pins.map(name))?;
    }
    // Completions first: one that is called after its starts are not would find none of them.
    let complete = [Hook::RequestComplete, Hook::BioComplete];
    let others = Hook::ALL.into_iter().filter(|hook| !complete.contains(hook));
    for name in complete.into_iter().chain(others).flat_map(Hook::programs) {
        rename(&ready.join("programs").join(&name), &pins.program(&name))?;
        rename(&ready.join("links").join(&name), &pins.link(&name))?;
    }
    rename(&ready.join("version"), &pins.version())?;
    pins::remove(&ready)
}

/// Renames, over what is there. What is gone has been renamed before.
fn rename(from: &Path, to: &Path) -> Result<(), DirectoryError> {
    match fs::rename(from, to) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DirectoryError::Io { path: from.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Whether the programs that are pinned are those of this build.
pub(crate) fn is_current(pins: &Pins) -> bool {
    let is_it = |map: MapHandle| load::build_of(&map).is_some_and(|build| build == crate::build());
    sys::open_pin(&pins.version()).is_ok()
        && MapHandle::from_pinned_path(pins.version()).is_ok_and(is_it)
}
