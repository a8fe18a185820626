//! Debian's kernels: fetched, unpacked, and the modules that a guest asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::{
    Userland, complete,
    debian::{Suite, field, run, unpack},
};

/// Always the newest kernel of its suite. The flavour for servers: that for clouds lacks NVMe.
const PACKAGE: &str = "linux-image-amd64";

/// Files of a kernel may lie in several packages; others that it depends on are not needed.
const FAMILY: &[&str] = &["linux-image-", "linux-binary-", "linux-modules-"];

/// A kernel by the suite of Debian that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Series {
    /// 5.10.
    Bullseye,
    /// 6.1.
    Bookworm,
    /// 6.12.
    Trixie,
    /// The newest that Debian offers.
    Newest,
}

impl Series {
    /// All of them, the oldest first.
    pub const ALL: [Self; 4] = [Self::Bullseye, Self::Bookworm, Self::Trixie, Self::Newest];

    fn suite(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Newest => "sid",
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bullseye => "5.10",
            Self::Bookworm => "6.1",
            Self::Trixie => "6.12",
            Self::Newest => "newest",
        })
    }
}

impl std::str::FromStr for Series {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|series| series.to_string() == text)
            .with_context(|| format!("no kernel series {text:?}: 5.10, 6.1, 6.12 or newest"))
    }
}

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    root: PathBuf,
    release: String,
    version: String,
}

impl Kernel {
    /// Takes the newest kernel of a series from the cache, or fetches it.
    pub(super) fn open(cache: &Path, userland: &Userland, series: Series) -> Result<Self> {
        let root = cache.join("kernels").join(series.suite());
        let version = complete(cache, &root.join("complete"), || {
            eprintln!("fetching the kernel of {} ({series})", series.suite());
            let suite = Suite::open(cache, series.suite())?;
            let files = root.join("packages");
            let packages = suite.download(&suite.family(PACKAGE, FAMILY)?, &files)?;
            unpack(&packages, &root)?;
            // The version of the package that the others are for.
            let version = field(packages.first().context("a kernel is a package")?, "Version")?;
            fs::remove_dir_all(files).context("deleting downloaded packages")?;
            let release = release_in(&root)?;
            let mut depmod = userland.command("depmod")?;
            run(depmod.arg("--basedir").arg(root.join(below_usr(&root))).arg(&release))?;
            Ok(version)
        })?;
        let release = release_in(&root)?;
        Ok(Self { root, release, version })
    }

    /// What `uname -r` says in it.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The version of its package.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What a boot loader loads.
    pub(super) fn image(&self) -> PathBuf {
        // Debian has moved it since 6.12.
        let beside_modules = self.modules().join("vmlinuz");
        if beside_modules.exists() {
            return beside_modules;
        }
        self.root.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// The files of these modules and of all that they need, those first that others need, by
    /// their paths below [`Self::modules`]. What is built in, or is not there, has none.
    pub(super) fn closure(&self, wanted: &[&str]) -> Result<Vec<String>> {
        let index = fs::read_to_string(self.modules().join("modules.dep"))
            .context("reading what modules depend on")?;
        Ok(closure(&index, wanted))
    }

    /// The directory of its modules.
    pub(super) fn modules(&self) -> PathBuf {
        self.root.join(below_usr(&self.root)).join("lib/modules").join(&self.release)
    }
}

/// Since some version, modules lie in `usr/lib`.
fn below_usr(root: &Path) -> &'static str {
    if root.join("usr/lib/modules").exists() { "usr" } else { "" }
}

fn release_in(root: &Path) -> Result<String> {
    let mut releases = Vec::new();
    let modules = root.join(below_usr(root)).join("lib/modules");
    for entry in fs::read_dir(modules).context("listing an unpacked kernel")? {
        releases.push(entry?.file_name().to_string_lossy().into_owned());
    }
    ensure!(releases.len() == 1, "one kernel was expected, and there are: {releases:?}");
    Ok(releases.remove(0))
}

/// The closure, from the text of `modules.dep`: `path: paths of what it needs, all of them`.
fn closure(index: &str, wanted: &[&str]) -> Vec<String> {
    let mut by_name = BTreeMap::new();
    for line in index.lines() {
        if let Some((path, needs)) = line.split_once(':') {
            by_name.insert(module_name(path), (path, needs));
        }
    }
    let (mut seen, mut files) = (BTreeSet::new(), Vec::new());
    for name in wanted {
        let Some((path, needs)) = by_name.get(&name.replace('-', "_")) else { continue };
        // What is needed first is named last.
        for file in needs.split_whitespace().rev().chain([*path]) {
            if seen.insert(file.to_owned()) {
                files.push(file.to_owned());
            }
        }
    }
    files
}

/// The kernel takes `-` and `_` in names of modules for the same.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "kernel/block/virtio_blk.ko: kernel/virtio/virtio_ring.ko kernel/virtio/virtio.ko\n\
                         kernel/md/dm-mod.ko.xz:\n\
                         kernel/md/dm-thin-pool.ko.xz: kernel/md/dm-bufio.ko.xz kernel/md/dm-mod.ko.xz\n";

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let found = closure(INDEX, &["dm-thin-pool", "dm_mod", "ext4", "virtio_blk"]);
        let expected = [
            "kernel/md/dm-mod.ko.xz",
            "kernel/md/dm-bufio.ko.xz",
            "kernel/md/dm-thin-pool.ko.xz",
            "kernel/virtio/virtio.ko",
            "kernel/virtio/virtio_ring.ko",
            "kernel/block/virtio_blk.ko",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn series_are_named_by_their_kernels() {
        for series in Series::ALL {
            assert_eq!(series.to_string().parse::<Series>().unwrap(), series);
        }
        assert!("4.19".parse::<Series>().is_err());
    }
}
