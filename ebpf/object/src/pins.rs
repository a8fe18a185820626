//! The directory of pins: its place on a BPF file system, its lock, and the names in it.
//!
//! ```text
//! DIR/version            layout version and build; pinned last, removed first: without it, the
//!                        rest is what an interrupted load or unload left
//! DIR/maps/NAME          table, dirty, coarse, ring, counters, conflicts, in_flight, spilled
//! DIR/programs/NAME      rq_issue_1, rq_complete_1 and so on
//! DIR/links/NAME         the same names; attached for as long as they exist
//! DIR/disks/SLOT/NAME    dirty, coarse, pending, meta; meta is pinned last
//! ```

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use blocks::Slot;
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::limits::DISKS;

/// Where pins are if nothing else is asked for.
pub const DEFAULT_DIRECTORY: &str = "/sys/fs/bpf/pinnace";

/// Where the BPF file system belongs; mounted there if it is not.
const MOUNT_POINT: &str = "/sys/fs/bpf";

/// The directory of pins could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It is neither on a BPF file system nor where one can be mounted.
    #[error("{0} is not on a BPF file system (mount one there, or use {DEFAULT_DIRECTORY})")]
    NotBpf(PathBuf),
    /// No BPF file system could be mounted.
    #[error("mounting the BPF file system on {MOUNT_POINT}")]
    Mount(#[source] io::Error),
    /// Another process uses it.
    #[error("{0} is in use by another process")]
    Busy(PathBuf),
    /// Anything else.
    #[error("{}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A directory of pins that this process has locked.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    _lock: Flock<File>,
}

impl Pins {
    /// Opens `directory`, making it and mounting the BPF file system if need be.
    pub fn open(directory: &Path) -> Result<Self, DirectoryError> {
        ensure_bpf_file_system(directory)?;
        make_directory(directory)?;
        let at = |source| DirectoryError::Io { path: directory.to_owned(), source };
        let file = File::open(directory).map_err(at)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { directory: directory.to_owned(), _lock: lock }),
            Err((_, nix::Error::EWOULDBLOCK)) => Err(DirectoryError::Busy(directory.to_owned())),
            Err((_, error)) => Err(at(error.into())),
        }
    }

    /// Where the version is pinned.
    pub fn version(&self) -> PathBuf {
        self.path("version")
    }

    /// Where anything else is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where a map is, by the name of its pin.
    pub fn map(&self, name: &str) -> PathBuf {
        self.directory.join("maps").join(name)
    }

    /// Where a program is.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join("programs").join(name)
    }

    /// Where its link is.
    pub fn link(&self, name: &str) -> PathBuf {
        self.directory.join("links").join(name)
    }

    /// The directory of a disk.
    pub fn disk(&self, slot: Slot) -> PathBuf {
        self.directory.join("disks").join(slot.0.to_string())
    }

    /// Makes the directories that [`Self::map`] and the others are in.
    pub fn make_directories(&self) -> Result<(), DirectoryError> {
        ["maps", "programs", "links", "disks"]
            .iter()
            .try_for_each(|name| make_directory(&self.directory.join(name)))
    }

    /// Makes the directory of a disk.
    pub fn make_disk(&self, slot: Slot) -> Result<(), DirectoryError> {
        make_directory(&self.disk(slot))
    }

    /// The slots that have a directory.
    pub fn disks(&self) -> Result<Vec<Slot>, DirectoryError> {
        let path = self.directory.join("disks");
        let at = |source| DirectoryError::Io { path: path.clone(), source };
        let mut slots = Vec::new();
        for entry in fs::read_dir(&path).map_err(at)? {
            let name = entry.map_err(at)?.file_name();
            let slot = name.to_str().and_then(|name| name.parse().ok());
            slots.extend(slot.filter(|slot| *slot < DISKS).map(Slot));
        }
        slots.sort_unstable();
        Ok(slots)
    }

    /// Removes every pin, the version first and the links before what they use.
    pub fn clear(&self) -> Result<(), DirectoryError> {
        remove(&self.version())?;
        ["next", "ready", "links", "programs", "disks", "maps"]
            .iter()
            .try_for_each(|name| remove(&self.directory.join(name)))
    }

    /// Removes every pin and the directory itself.
    pub fn remove(self) -> Result<(), DirectoryError> {
        self.clear()?;
        remove(&self.directory)
    }
}

/// Removes a pin, or a directory with all pins in it. Nothing there is fine.
pub fn remove(path: &Path) -> Result<(), DirectoryError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DirectoryError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Makes a directory for pins, and those above it.
///
/// # Errors
/// If the system refuses.
pub fn make_directory(path: &Path) -> Result<(), DirectoryError> {
    let made = DirBuilder::new().mode(0o700).recursive(true).create(path);
    made.map_err(|source| DirectoryError::Io { path: path.to_owned(), source })
}

/// Mounts the BPF file system on its usual place if `directory` is to be there and it is missing.
fn ensure_bpf_file_system(directory: &Path) -> Result<(), DirectoryError> {
    if on_bpf_file_system(directory)? {
        return Ok(());
    }
    if !directory.starts_with(MOUNT_POINT) {
        return Err(DirectoryError::NotBpf(directory.to_owned()));
    }
    // Each mount is a file system of its own and hides the one below, pins and all: two processes
    // must not both find it missing.
    let parent = Path::new("/sys/fs");
    let at = |source| DirectoryError::Io { path: parent.to_owned(), source };
    let file = File::open(parent).map_err(at)?;
    let _lock =
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| at(error.into()))?;
    if on_bpf_file_system(directory)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), MOUNT_POINT, Some("bpf"), flags, Some("mode=0700"))
        .map_err(|error| DirectoryError::Mount(error.into()))
}

/// Whether `path`, or what exists of it, is on a BPF file system.
fn on_bpf_file_system(path: &Path) -> Result<bool, DirectoryError> {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match statfs(existing) {
        Ok(found) => Ok(found.filesystem_type() == BPF_FS_MAGIC),
        Err(error) => Err(DirectoryError::Io { path: existing.to_owned(), source: error.into() }),
    }
}
