//! Loading the programs with aya, and pinning everything as `ebpf` does with libbpf.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, of_maps::ArrayOfMaps},
    programs::{BtfTracePoint, links::FdLink},
};
use aya_obj::generated::{BPF_F_MMAPABLE, bpf_map_type::BPF_MAP_TYPE_ARRAY};
use blocks::ByteLen;
use ebpf_object::{
    OBJECT, build,
    device::DiskClass,
    hooks::{Hook, MAPS},
    limits::LAYOUT_VERSION,
    pins::{DirectoryError, Pins},
    ring::RingSize,
    table::{self, DiskTable},
};

/// The ring, as the agent makes it: nobody reads it until the agent runs, and what finds no room is
/// found by a sweep.
const RING: ByteLen = ByteLen(4 << 20);

/// The programs could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The directory of pins.
    #[error("the directory of pinned maps")]
    Directory(#[from] DirectoryError),
    /// Somebody tracks already.
    #[error("tracking programs are in the kernel already")]
    Present,
    /// The kernel does not describe its types.
    #[error("the kernel's type information")]
    Types(#[source] aya::BtfError),
    /// The kernel or its verifier refused, or aya did not understand the object.
    #[error("loading the tracking programs")]
    Object(#[source] Box<aya::EbpfError>),
    /// A program.
    #[error("the program {name}")]
    Program {
        /// Its name.
        name: String,
        /// What was wrong.
        source: Box<aya::programs::ProgramError>,
    },
    /// A map.
    #[error("the map {name}")]
    Map {
        /// Its name.
        name: String,
        /// What was wrong.
        source: Box<aya::maps::MapError>,
    },
    /// Something could not be pinned.
    #[error("{}", path.display())]
    Pin {
        /// Its pin.
        path: PathBuf,
        /// What the system said.
        source: Box<aya::pin::PinError>,
    },
    /// A map could not be mapped, or the processors not counted.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The programs in the kernel, attached and pinned, and no disk yet.
///
/// Dropped, all stays in the kernel; [`Self::unload`] ends it.
#[derive(Debug)]
pub struct Loaded {
    pub(crate) pins: Pins,
    pub(crate) table: DiskTable,
    pub(crate) dirty: ArrayOfMaps<MapData>,
    pub(crate) coarse: ArrayOfMaps<MapData>,
}

impl Loaded {
    /// Loads the programs, pins them in `directory`, and attaches what disks of `classes` need.
    ///
    /// # Errors
    /// If there are some already, or the kernel refuses; then nothing is left there.
    pub fn load(directory: &Path, classes: &[DiskClass]) -> Result<Self, LoadError> {
        let pins = Pins::open(directory)?;
        if pins.version().exists() {
            return Err(LoadError::Present);
        }
        pins.clear()?;
        pins.make_directories()?;
        match load(&pins, classes) {
            Ok(()) => Self::open(pins),
            Err(error) => {
                // Without a version beside it, it would be swept by the next who loads anyway.
                pins.clear()?;
                Err(error)
            }
        }
    }

    fn open(pins: Pins) -> Result<Self, LoadError> {
        let of_maps = |name: &str| {
            let map = MapData::from_pin(pins.map(name)).and_then(Map::from_map_data);
            map.and_then(ArrayOfMaps::try_from).map_err(map_error(name))
        };
        let table = MapData::from_pin(pins.map("table")).map_err(map_error("table"))?;
        let table = DiskTable::new(table.fd())
            .map_err(|source| LoadError::System { what: "mapping the table of disks", source })?;
        Ok(Self { table, dirty: of_maps("dirty")?, coarse: of_maps("coarse")?, pins })
    }

    /// Ends tracking, and removes every pin.
    ///
    /// # Errors
    /// If a pin could not be removed.
    pub fn unload(self) -> Result<(), DirectoryError> {
        self.pins.remove()
    }
}

fn load(pins: &Pins, classes: &[DiskClass]) -> Result<(), LoadError> {
    let types = Btf::from_sys_fs().map_err(LoadError::Types)?;
    let processors =
        aya::util::nr_cpus().map_err(|(what, source)| LoadError::System { what, source })?;
    let ring = RingSize::new(RING, processors).expect("a size as it must be");
    make_table(pins)?;
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&types));
    loader.map_max_entries("ring", ring.entries());
    for (name, name_in_object) in MAPS {
        loader.map_pin_path(name_in_object, pins.map(name));
    }
    let mut object = loader.load(OBJECT).map_err(|error| LoadError::Object(Box::new(error)))?;
    let map = MapData::from_pin(pins.map("ring")).map_err(map_error("ring"))?;
    ring.prepare(map.fd())
        .map_err(|source| LoadError::System { what: "preparing the ring", source })?;
    for hook in Hook::ALL {
        hook.programs()
            .try_for_each(|name| load_program(&mut object, hook, &name, pins, &types))?;
    }
    for hook in Hook::needed_by(classes.iter().copied()) {
        hook.programs().try_for_each(|name| attach(&mut object, &name, pins))?;
    }
    pin_version(pins)
}

/// libbpf lets global data be mapped, and aya does not: so it finds a map that does.
fn make_table(pins: &Pins) -> Result<(), LoadError> {
    let len = u32::try_from(8 * table::WORDS).expect("some KiB");
    let kind = BPF_MAP_TYPE_ARRAY as u32;
    let map = aya_obj::Map::new_from_params(kind, 4, len, 1, BPF_F_MMAPABLE);
    let map = MapData::create(map, "table", None).map_err(map_error("table"))?;
    pin(&pins.map("table"), |path| map.pin(path))
}

fn load_program(
    object: &mut Ebpf,
    hook: Hook,
    name: &str,
    pins: &Pins,
    types: &Btf,
) -> Result<(), LoadError> {
    let program = program(object, name)?;
    program.load(hook.tracepoint(), types).map_err(program_error(name))?;
    pin(&pins.program(name), |path| program.pin(path))
}

fn attach(object: &mut Ebpf, name: &str, pins: &Pins) -> Result<(), LoadError> {
    let program = program(object, name)?;
    let link = program.attach().and_then(|id| program.take_link(id));
    let link = FdLink::from(link.map_err(program_error(name))?);
    pin(&pins.link(name), |path| link.pin(path).map(drop))
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut BtfTracePoint, LoadError> {
    let program = object.program_mut(name).expect("the object is compiled with its names");
    program.try_into().map_err(program_error(name))
}

fn pin_version(pins: &Pins) -> Result<(), LoadError> {
    let make = || {
        let mut map = Array::<_, u64>::try_from(Map::Array(create_array("version", 2, 0)?))?;
        map.set(0, u64::from(LAYOUT_VERSION), 0)?;
        map.set(1, build(), 0)?;
        Ok(map)
    };
    let map = make().map_err(map_error("version"))?;
    pin(&pins.version(), |path| map.pin(path))
}

/// Makes an array map of words.
pub(crate) fn create_array(
    name: &str,
    words: u32,
    flags: u32,
) -> Result<MapData, aya::maps::MapError> {
    let kind = BPF_MAP_TYPE_ARRAY as u32;
    let map = aya_obj::Map::new_from_params(kind, 4, 8, words, flags);
    MapData::create(map, &format!("pinnace_{name}"), None)
}

pub(crate) fn pin(
    path: &Path,
    pin: impl FnOnce(&Path) -> Result<(), aya::pin::PinError>,
) -> Result<(), LoadError> {
    let at = |source| LoadError::Pin { path: path.to_owned(), source: Box::new(source) };
    pin(path).map_err(at)
}

fn map_error(name: &str) -> impl FnOnce(aya::maps::MapError) -> LoadError + use<> {
    let name = name.to_owned();
    move |source| LoadError::Map { name, source: Box::new(source) }
}

fn program_error(name: &str) -> impl FnOnce(aya::programs::ProgramError) -> LoadError + use<> {
    let name = name.to_owned();
    move |source| LoadError::Program { name, source: Box::new(source) }
}
