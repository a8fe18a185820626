//! Loading the programs and pinning everything, once per boot.
//!
//! A loaded object is pinned and let go: afterwards all is opened from the pins, as a later
//! process does. Programs for bio-based disks are loaded and pinned here, but attached only when the
//! first such disk is tracked, so that machines without one pay nothing for them.

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use blocks::ByteLen;
use libbpf_rs::{
    MapCore, MapFlags, MapHandle, MapType, Object, ObjectBuilder, OpenObject, libbpf_sys,
};

use crate::{
    OBJECT, build,
    hooks::{Hook, MAPS},
    in_flight,
    kernel::Release,
    limits::LAYOUT_VERSION,
    pins::{DirectoryError, Pins},
    ring::RingSize,
    sys,
};

/// The oldest kernel with all that the programs use: `request_queue.disk` is the newest of it.
const KERNEL: (u32, u32) = (5, 15);

/// Sizes that are fixed when the programs are loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// The ring's length: a power of two. More if there are very many processors.
    pub ring: ByteLen,
    /// Buckets for writes under way to bio-based disks, of four each: 1 to 1024. They are fast, and
    /// what finds no room is spilled.
    pub in_flight_buckets: u32,
    /// How many more writes to bio-based disks can be under way at once.
    pub spilled: u32,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { ring: ByteLen(4 << 20), in_flight_buckets: in_flight::BUCKETS, spilled: 1 << 16 }
    }
}

/// Tracking could not be started or taken up.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The directory of pins.
    #[error("the directory of pinned maps")]
    Directory(#[from] DirectoryError),
    /// Another version of this program left its maps there.
    #[error(
        "the programs in the kernel have layout version {found}, this program needs \
         {LAYOUT_VERSION}: stop tracking with the version that started it, then compare the disks"
    )]
    Layout {
        /// The version that is there.
        found: u64,
    },
    /// The kernel is older than what the programs need.
    #[error("kernel {release} is too old for tracking, which needs 5.15 or later")]
    OldKernel {
        /// Its release.
        release: String,
    },
    /// The kernel's release could not be read.
    #[error("the kernel's release")]
    Release(#[source] io::Error),
    /// The kernel does not describe its types.
    #[error("this kernel has no type information (/sys/kernel/btf/vmlinux): CONFIG_DEBUG_INFO_BTF")]
    NoTypeInformation,
    /// A size is out of range.
    #[error("a ring of {0}: a power of two from 4 KiB to 1 GiB is needed")]
    RingSize(ByteLen),
    /// The kernel, or its verifier, refused the programs.
    #[error("loading the tracking programs")]
    Object(#[source] libbpf_rs::Error),
    /// A pinned object could not be made, opened or attached.
    #[error("{}", path.display())]
    Pin {
        /// Its pin.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A map could not be read.
    #[error("a map of the tracking programs")]
    Map(#[from] libbpf_rs::Error),
}

/// What the directory of pins holds.
pub(crate) enum Found {
    /// All that is needed to continue.
    Complete,
    /// Nothing, or what an interrupted load or unload left.
    Nothing,
}

/// Looks at the pins.
pub(crate) fn inspect(pins: &Pins) -> Result<Found, LoadError> {
    let path = pins.version();
    let map = match sys::open_pin(&path) {
        Ok(_) => MapHandle::from_pinned_path(&path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(source) => return Err(LoadError::Pin { path, source }),
    };
    let value = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
    let found = value.try_into().map_or(0, u64::from_le_bytes);
    if found != u64::from(LAYOUT_VERSION) {
        return Err(LoadError::Layout { found });
    }
    let mut needed = Hook::ALWAYS.into_iter().flat_map(Hook::programs);
    let attached = needed.all(|name| pins.link(&name).exists());
    Ok(if attached { Found::Complete } else { Found::Nothing })
}

/// The programs in the kernel, verified, neither pinned nor attached: they cost nothing but memory,
/// and go when this is dropped.
pub struct Programs {
    object: Object,
    ring: RingSize,
}

impl Programs {
    /// Loads the programs. The kernel's verifier takes its time, some tenths of a second.
    ///
    /// # Errors
    /// If this kernel can't run them.
    pub fn load(options: LoadOptions) -> Result<Self, LoadError> {
        check_kernel()?;
        let ring = RingSize::new(options.ring, libbpf_rs::num_possible_cpus()?);
        let ring = ring.ok_or(LoadError::RingSize(options.ring))?;
        let mut object = ObjectBuilder::default().open_memory(OBJECT).map_err(LoadError::Object)?;
        size(&mut object, "ring", ring.entries())?;
        size(&mut object, "in_flight", options.in_flight_buckets.clamp(1, in_flight::BUCKETS))?;
        size(&mut object, "spilled", options.spilled)?;
        Ok(Self { object: object.load().map_err(LoadError::Object)?, ring })
    }
}

/// Pins all that was loaded, and attaches what is always needed.
pub(crate) fn start(pins: &Pins, programs: Programs) -> Result<(), LoadError> {
    let Programs { object, ring } = programs;
    pins.clear()?;
    pins.make_directories()?;
    for (name, libbpf_name) in MAPS {
        let map = object.maps().find(|map| map.name() == libbpf_name);
        pin(map.as_ref(), pins.map(name))?;
    }
    let path = pins.map("ring");
    MapHandle::from_pinned_path(&path)
        .map_err(io::Error::other)
        .and_then(|map| ring.prepare(&map))
        .map_err(|source| LoadError::Pin { path, source })?;
    for name in Hook::ALL.into_iter().flat_map(Hook::programs) {
        let program = object.progs().find(|program| program.name() == name.as_str());
        pin(program.as_ref(), pins.program(&name))?;
    }
    Hook::ALWAYS.into_iter().try_for_each(|hook| attach(pins, hook))?;
    pin_version_at(&pins.version())
}

fn check_kernel() -> Result<(), LoadError> {
    let release = Release::running().map_err(LoadError::Release)?;
    if release.is_before(KERNEL) {
        return Err(LoadError::OldKernel { release: release.to_string() });
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(LoadError::NoTypeInformation);
    }
    Ok(())
}

/// Attaches and pins the copies of a hook that are not yet, in order. An interrupted attachment
/// left the first ones, so what is missing comes after them.
pub(crate) fn attach(pins: &Pins, hook: Hook) -> Result<(), LoadError> {
    let mut missing = hook.programs().filter(|name| !pins.link(name).exists());
    missing.try_for_each(|name| attach_at(&pins.program(&name), &pins.link(&name)))
}

/// Attaches the program that is pinned at `program`, and pins its link.
pub(crate) fn attach_at(program: &Path, link: &Path) -> Result<(), LoadError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| LoadError::Pin { path, source }
    };
    let program = sys::open_pin(program).map_err(at(program))?;
    let attached = sys::attach(program.as_fd());
    attached.and_then(|attached| sys::pin(attached.as_fd(), link)).map_err(at(link))
}

fn size(object: &mut OpenObject, name: &str, entries: u32) -> Result<(), LoadError> {
    let map = object.maps_mut().find(|map| map.name() == name);
    let mut map = map.expect("the object is compiled with this crate and has the map");
    map.set_max_entries(entries).map_err(LoadError::Object)
}

pub(crate) fn pin(object: Option<&impl AsFd>, path: PathBuf) -> Result<(), LoadError> {
    let object = object.expect("the object is compiled with this crate and has it");
    sys::pin(object.as_fd(), &path).map_err(|source| LoadError::Pin { path, source })
}

/// Pins the layout version, and beside it which build the programs are of.
pub(crate) fn pin_version_at(path: &Path) -> Result<(), LoadError> {
    let mut map = create_array("pinnace_version", 2, 0)?;
    for (key, word) in [(0u32, u64::from(LAYOUT_VERSION)), (1, build())] {
        map.update(&key.to_ne_bytes(), &word.to_le_bytes(), MapFlags::ANY)?;
    }
    map.pin(path)?;
    Ok(())
}

/// The number of the programs that a version was pinned with; see [`build`].
pub(crate) fn build_of(version: &MapHandle) -> Option<u64> {
    let value = version.lookup(&1u32.to_ne_bytes(), MapFlags::ANY).ok()??;
    value.try_into().map(u64::from_le_bytes).ok()
}

/// Makes an array map of words.
pub(crate) fn create_array(name: &str, words: u32, flags: u32) -> libbpf_rs::Result<MapHandle> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: flags,
        ..Default::default()
    };
    MapHandle::create(MapType::Array, Some(name), 4, 8, words, &options)
}
