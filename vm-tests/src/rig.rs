//! The rig: the directory that owns everything a test makes.
//!
//! `ROOT/<pid>-<n>/` holds backing files, logs, mount points and one record for each thing that
//! lives outside of the directory (zram disks, processes). A lock file in it is held for as long
//! as the rig lives, so that a sweep can tell a rig at work from one whose process was killed.
//!
//! Invariants: a record is written as soon as its thing exists; a rig is born and swept under one
//! lock, so that a sweep never meets a half-born rig. Disks and mounts keep the directory alive.

use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, bail, ensure};

mod leftovers;

/// Set to `1`, this skips the tests that need real devices, and they say so.
pub const SKIP_VARIABLE: &str = "PINNACE_SKIP_DEVICE_TESTS";

/// Where rigs live, if not `/dev/shm/pinnace-rig`.
const ROOT_VARIABLE: &str = "PINNACE_RIG_DIR";

/// A place for devices, mounts and processes, all gone when it and they are dropped.
#[derive(Clone)]
pub struct Rig(Arc<RigDirectory>);

struct RigDirectory {
    path: PathBuf,
    names: AtomicU64,
    /// Held, not used: the sweep tries this lock.
    _lock: File,
}

impl Rig {
    /// A new rig, after a sweep of what killed runs left behind.
    ///
    /// `None` when the tests of real devices are skipped by [`SKIP_VARIABLE`]. Without root this
    /// is an error: a test whose layer can't run has not passed.
    pub fn start() -> Result<Option<Self>> {
        if std::env::var_os(SKIP_VARIABLE).is_some_and(|value| value == "1") {
            eprintln!("skipped: {SKIP_VARIABLE}=1");
            return Ok(None);
        }
        ensure!(
            nix::unistd::geteuid().is_root(),
            "tests of real devices need root (or {SKIP_VARIABLE}=1 to skip them)"
        );
        let root = root()?;
        let _birth = lock(&root.join("lock"))?;
        leftovers::sweep(&root)?;
        Self::create(&root).map(Some)
    }

    /// Its directory, in memory.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Lets processes of other users pass through its directory, to what is theirs below. They can't
    /// list it, and everything else in it stays as closed as it is.
    pub fn let_others_pass(&self) -> Result<()> {
        let root = self.path().parent().context("a rig lies in the rigs' directory")?;
        for path in [root, self.path()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o711))
                .with_context(|| format!("opening {}", path.display()))?;
        }
        Ok(())
    }

    /// A path in the rig that nothing uses yet, starting with `prefix`.
    pub fn fresh(&self, prefix: &str) -> PathBuf {
        let number = self.0.names.fetch_add(1, Ordering::Relaxed);
        self.0.path.join(format!("{prefix}-{number}"))
    }

    /// Records a thing that lives outside of the directory, for the sweep.
    pub(crate) fn record(&self, thing: &Thing) -> Result<Recorded> {
        let path = self.0.path.join(thing.to_string());
        fs::write(&path, "").with_context(|| format!("recording {}", path.display()))?;
        Ok(Recorded { path, _rig: self.clone() })
    }

    fn create(root: &Path) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{}-{number}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).context("making the rig's directory")?;
        let lock = lock(&path.join("lock"))?;
        Ok(Self(Arc::new(RigDirectory { path, names: AtomicU64::new(0), _lock: lock })))
    }
}

impl Drop for RigDirectory {
    fn drop(&mut self) {
        if let Err(error) = leftovers::clean(&self.path) {
            eprintln!("the rig {} is left for the next sweep: {error:#}", self.path.display());
        }
    }
}

/// Cleans up after rigs whose process is gone. Every new rig does this by itself.
pub fn sweep() -> Result<()> {
    let root = root()?;
    let _birth = lock(&root.join("lock"))?;
    leftovers::sweep(&root)
}

/// Something outside of the rig's directory, by an identity that is never used twice in a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    /// `/dev/zramN`, and the kernel's sequence number of that disk.
    Zram { number: u32, sequence: u64 },
    /// A process, and its start time in ticks since boot.
    Process { id: u32, started: u64 },
}

/// A record, removed when this is dropped.
pub(crate) struct Recorded {
    path: PathBuf,
    _rig: Rig,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // A record that stays is found stale by the sweep, which checks the identity.
        let _ = fs::remove_file(&self.path);
    }
}

impl std::fmt::Display for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Zram { number, sequence } => write!(f, "zram.{number}.{sequence}"),
            Self::Process { id, started } => write!(f, "process.{id}.{started}"),
        }
    }
}

impl Thing {
    /// The thing that a record of this name stands for.
    fn from_name(name: &str) -> Option<Self> {
        let mut parts = name.split('.');
        let (kind, first, second) = (parts.next()?, parts.next()?, parts.next()?);
        let (first, second) = (first.parse().ok()?, second.parse().ok()?);
        match kind {
            "zram" => Some(Self::Zram { number: first, sequence: second }),
            "process" => Some(Self::Process { id: first, started: second }),
            _ => None,
        }
    }
}

fn root() -> Result<PathBuf> {
    let path = std::env::var_os(ROOT_VARIABLE)
        .map_or_else(|| PathBuf::from("/dev/shm/pinnace-rig"), PathBuf::from);
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("making {}", path.display()));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(&path).context("looking at the rigs' directory")?;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
        bail!("{} is not a directory of ours", path.display());
    }
    Ok(path)
}

fn lock(path: &Path) -> Result<File> {
    let file = File::options().write(true).create(true).truncate(false).open(path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_named_for_their_things() {
        let things =
            [Thing::Zram { number: 3, sequence: 99 }, Thing::Process { id: 7, started: 12345 }];
        for thing in things {
            assert_eq!(Thing::from_name(&thing.to_string()), Some(thing));
        }
        for foreign in ["lock", "loop-0", "zram.x.1", "zram.1", "other.1.2"] {
            assert_eq!(Thing::from_name(foreign), None);
        }
    }
}
