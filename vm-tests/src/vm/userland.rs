//! Programs for guests, and QEMU itself: unpacked from one Debian suite, and run where they lie.
//!
//! Nothing of this is installed, so it is the same on every machine, and conflicts with nothing that
//! is. A program is started through the dynamic loader that lies beside it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{
    complete,
    debian::{Suite, field, run, unpack},
};

/// The suite that they come from.
const SUITE: &str = "trixie";

const PACKAGES: &[&str] = &[
    "btrfs-progs",
    "busybox-static",
    "dmsetup",
    "e2fsprogs",
    "kmod",
    "mdadm",
    "qemu-system-x86",
    "seabios",
    "xfsprogs",
];

/// Where Debian keeps libraries.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "ld-linux-x86-64.so.2";

/// The unpacked tree.
#[derive(Clone, Debug)]
pub struct Userland {
    root: PathBuf,
    qemu: String,
}

/// A program with the libraries that it loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closure {
    pub(super) program: PathBuf,
    pub(super) libraries: Vec<PathBuf>,
}

impl Userland {
    /// Takes the tree from the cache, or makes it.
    pub(super) fn open(cache: &Path) -> Result<Self> {
        let root = cache.join("userland");
        let qemu = complete(cache, &cache.join("userland.complete"), || {
            eprintln!("fetching QEMU and the guests' programs ({SUITE})");
            let suite = Suite::open(cache, SUITE)?;
            let packages = suite.download_closure(PACKAGES)?;
            unpack(&packages, &root)?;
            let named = |path: &&PathBuf| {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                name.starts_with("qemu-system-x86_")
            };
            let qemu = packages.iter().find(named).context("the package of QEMU")?;
            let version = field(qemu, "Version")?;
            suite.clean()?;
            Ok(version)
        })?;
        Ok(Self { root, qemu })
    }

    /// The version of QEMU, as its package has it.
    pub fn qemu_version(&self) -> &str {
        &self.qemu
    }

    /// Where a program lies.
    pub(super) fn find(&self, name: &str) -> Result<PathBuf> {
        let places = ["usr/bin", "usr/sbin", "bin", "sbin"];
        let mut paths = places.iter().map(|place| self.root.join(place).join(name));
        paths
            .find_map(|path| path.is_file().then_some(path))
            .with_context(|| format!("{name} is not among the guests' programs"))
    }

    /// A file or directory of the tree.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A program of the tree and its libraries.
    pub(super) fn closure(&self, name: &str) -> Result<Closure> {
        let (loader, mut arguments) = self.through_loader(name)?;
        arguments.insert(0, "--list".to_owned());
        Closure::from_loader(self.find(name)?, Command::new(loader).args(arguments))
    }

    /// A command that runs a program of the tree on this machine.
    pub(super) fn command(&self, name: &str) -> Result<Command> {
        let (loader, arguments) = self.through_loader(name)?;
        let mut command = Command::new(loader);
        command.args(arguments);
        Ok(command)
    }

    /// The loader and its first arguments, for a program of the tree.
    pub(super) fn through_loader(&self, name: &str) -> Result<(PathBuf, Vec<String>)> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let libraries = self.root.join(LIBRARIES);
        let loader = libraries.join(LOADER);
        let arguments = ["--library-path".to_owned(), text(libraries), text(self.find(name)?)];
        Ok((loader, arguments.into()))
    }
}

impl Closure {
    /// Of a program of this machine.
    pub(super) fn of_host(program: &Path) -> Result<Self> {
        let mut list = Command::new(Path::new("/lib64").join(LOADER));
        Self::from_loader(program.to_owned(), list.arg("--list").arg(program))
    }

    fn from_loader(program: PathBuf, list: &mut Command) -> Result<Self> {
        let told = run(list).with_context(|| format!("the libraries of {}", program.display()))?;
        let libraries = libraries_in(&told)?;
        Ok(Self { program, libraries })
    }
}

/// The paths in what the loader lists: `name => path (address)`, or `path (address)`.
fn libraries_in(listing: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in listing.lines().map(str::trim) {
        ensure!(!line.ends_with("not found"), "{line}");
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        let path = path.split_once(" (").map_or(path, |(path, _)| path);
        // What has no path is the kernel's own.
        if path.starts_with('/') {
            libraries.push(PathBuf::from(path));
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_listed_by_path() {
        let listing = "\tlinux-vdso.so.1 (0x00007f)\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = libraries_in(listing).unwrap();
        let expected =
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(found, expected);
        assert!(libraries_in("\tlibx.so.1 => not found\n").is_err());
    }
}
