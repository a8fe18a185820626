//! What the tasks need beside cargo: by what it is recognised, and the packages that bring it.
//!
//! Recognised by file and not by package, so that what was installed in another way counts too.

use std::path::Path;

use crate::{
    command::{is_installed, is_installed_by_version},
    machine,
};

/// What something is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building the product and running the demo.
    Demo,
    /// Running all tests.
    Test,
    /// Measuring, against other tools.
    Bench,
    /// Recovering a database, in measurements or in a test: it brings a server to the machine.
    Database,
    /// Measuring all there is to measure.
    Everything,
}

impl Purpose {
    /// What measurements need that are made for this purpose, of which only some are wanted; if none
    /// is named, all are. A database is brought only if it is among them.
    pub(crate) fn of_measurements(self, only: &[String]) -> Self {
        let database = only.is_empty() || only.iter().any(|name| name == DATABASE);
        match self {
            _ if !database => self,
            Self::Bench | Self::Everything => Self::Everything,
            Self::Demo | Self::Test | Self::Database => Self::Database,
        }
    }

    /// Whether this purpose needs what is needed for `other`.
    fn includes(self, other: Self) -> bool {
        match self {
            Self::Demo => other == Self::Demo,
            Self::Test => other == Self::Test || Self::Demo.includes(other),
            Self::Bench => other == Self::Bench || Self::Test.includes(other),
            Self::Database => other == Self::Database || Self::Test.includes(other),
            Self::Everything => true,
        }
    }
}

/// Something that has to be there.
#[derive(Debug)]
pub(crate) struct Need {
    purpose: Purpose,
    probe: Probe,
    /// Why, in a few words.
    pub(crate) why: &'static str,
    apt: &'static str,
    dnf: &'static str,
}

/// How to see that something is there.
#[derive(Debug)]
enum Probe {
    /// A program of this name.
    Program(&'static str),
    /// A program, also under a name with its version (`clang-19`).
    Versioned(&'static str),
    /// A program that loads kernel modules, unless what they bring is there already.
    Loader(&'static str),
    /// A file at this path.
    File(&'static str),
    /// A program of PostgreSQL, which Debian keeps in a directory for each version.
    Postgres(&'static str),
    /// A header below `/usr/include`.
    Header(&'static str),
    /// A library for linking.
    Library(&'static str),
}

/// The package managers that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    /// Debian, Ubuntu.
    Apt,
    /// Fedora.
    Dnf,
}

/// One need, by its purpose, its probe, its reason, and its packages.
macro_rules! need {
    ($purpose:ident, $probe:ident($name:literal), $why:literal, $apt:literal, $dnf:literal) => {
        Need {
            purpose: Purpose::$purpose,
            probe: Probe::$probe($name),
            why: $why,
            apt: $apt,
            dnf: $dnf,
        }
    };
}

const NEEDS: &[Need] = &[
    need!(Demo, Program("cc"), "C compiler", "build-essential", "gcc"),
    need!(Demo, Program("make"), "builds libbpf", "build-essential", "make"),
    need!(Demo, Program("pkg-config"), "builds libbpf", "pkg-config", "pkgconf-pkg-config"),
    need!(Demo, Versioned("clang"), "compiles BPF programs", "clang", "clang"),
    need!(Demo, Header("libelf.h"), "libbpf reads ELF", "libelf-dev", "elfutils-libelf-devel"),
    need!(
        Demo,
        Library("libelf.a"),
        "libbpf is linked statically",
        "libelf-dev",
        "elfutils-libelf-devel-static"
    ),
    need!(Demo, Header("zlib.h"), "libelf unpacks", "zlib1g-dev", "zlib-ng-compat-devel"),
    need!(
        Demo,
        Library("libz.a"),
        "libbpf is linked statically",
        "zlib1g-dev",
        "zlib-ng-compat-static"
    ),
    need!(Demo, Program("lsblk"), "finds disks", "util-linux", "util-linux"),
    need!(Demo, Loader("modprobe"), "loads loop and zram", "kmod", "kmod"),
    need!(Demo, Program("mkfs.ext4"), "makes file systems", "e2fsprogs", "e2fsprogs"),
    need!(Demo, Program("mkfs.xfs"), "makes file systems", "xfsprogs", "xfsprogs"),
    need!(Test, Program("apt-get"), "fetches kernels", "apt", "apt"),
    need!(Test, Program("dpkg-deb"), "unpacks kernels", "dpkg", "dpkg"),
    need!(
        Test,
        File("/usr/share/keyrings/debian-archive-keyring.gpg"),
        "checks kernels",
        "debian-archive-keyring",
        "debian-keyring"
    ),
    need!(Test, Program("c++"), "builds the fuzzers' engine", "build-essential", "gcc-c++"),
    need!(Test, Program("nbdcopy"), "reads what is exported", "libnbd-bin", "libnbd"),
    need!(Test, Program("nbdsh"), "reads what is exported", "python3-libnbd", "python3-libnbd"),
    need!(Test, Program("qemu-img"), "compares and converts images", "qemu-utils", "qemu-img"),
    need!(Test, Program("qemu-io"), "writes to what is exported", "qemu-utils", "qemu-img"),
    need!(Bench, Program("fio"), "makes load", "fio", "fio"),
    need!(Bench, Program("nbdkit"), "is measured against", "nbdkit", "nbdkit"),
    need!(Bench, Program("rsync"), "is measured against", "rsync", "rsync"),
    need!(Bench, Program("nc"), "is measured against", "netcat-openbsd", "netcat"),
    need!(Bench, Program("zstd"), "is measured against", "zstd", "zstd"),
    need!(Database, Postgres("initdb"), "is recovered", "postgresql", "postgresql-server"),
    need!(Database, Postgres("psql"), "asks the database", "postgresql-client", "postgresql"),
    need!(Database, Postgres("pgbench"), "makes load", "postgresql", "postgresql-contrib"),
    need!(Database, Postgres("pg_amcheck"), "looks for damage", "postgresql", "postgresql-contrib"),
];

/// The measurements of this name are those of a database.
const DATABASE: &str = "postgres";

const LIBRARY_DIRECTORIES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
];

/// What is needed for `purpose` and is not there.
pub(crate) fn missing(purpose: Purpose) -> Vec<&'static Need> {
    let is_missing = |need: &&Need| purpose.includes(need.purpose) && !need.probe.is_there();
    NEEDS.iter().filter(is_missing).collect()
}

/// The packages that bring `needs`, each once.
pub(crate) fn packages(needs: &[&'static Need], manager: Manager) -> Vec<&'static str> {
    let mut packages: Vec<_> = needs.iter().map(|need| need.package(manager)).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

impl Manager {
    /// The manager of this machine, if it is known.
    pub(crate) fn of_this_machine() -> Option<Self> {
        if is_installed("apt-get") {
            return Some(Self::Apt);
        }
        is_installed("dnf").then_some(Self::Dnf)
    }
}

impl Need {
    /// What is looked for.
    pub(crate) fn name(&self) -> &'static str {
        match self.probe {
            Probe::Program(name)
            | Probe::Versioned(name)
            | Probe::Loader(name)
            | Probe::File(name)
            | Probe::Postgres(name)
            | Probe::Header(name)
            | Probe::Library(name) => name,
        }
    }

    /// The package that brings it.
    pub(crate) fn package(&self, manager: Manager) -> &'static str {
        match manager {
            Manager::Apt => self.apt,
            Manager::Dnf => self.dnf,
        }
    }
}

impl Probe {
    fn is_there(&self) -> bool {
        let below = |directory: &str, name| Path::new(directory).join(name).exists();
        match self {
            Self::Program(name) => is_installed(name),
            Self::Versioned(name) => is_installed(name) || is_installed_by_version(name),
            Self::Loader(name) => is_installed(name) || machine::makes_disks(),
            Self::File(path) => Path::new(path).exists(),
            Self::Postgres(name) => is_installed(name) || is_in_a_version(name),
            Self::Header(name) => below("/usr/include", name) || below("/usr/local/include", name),
            Self::Library(name) => LIBRARY_DIRECTORIES.iter().any(|path| below(path, name)),
        }
    }
}

/// Whether a version of PostgreSQL in a directory of its own has this program.
fn is_in_a_version(program: &str) -> bool {
    let versions = Path::new("/usr/lib/postgresql").read_dir().into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin").join(program)).any(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_listed_once() {
        let all: Vec<_> = NEEDS.iter().collect();
        let packages = packages(&all, Manager::Apt);
        let count = |name| packages.iter().filter(|package| **package == name).count();
        assert_eq!((count("build-essential"), count("libelf-dev"), count("fio")), (1, 1, 1));
    }

    #[test]
    fn a_demo_needs_less_than_tests_and_only_a_database_needs_a_server() {
        let needs = |purpose: Purpose| {
            let is_needed = |need: &&Need| purpose.includes(need.purpose);
            NEEDS.iter().filter(is_needed).map(Need::name).collect::<Vec<_>>()
        };
        assert!(needs(Purpose::Demo).len() < needs(Purpose::Test).len());
        assert!(needs(Purpose::Test).len() < needs(Purpose::Bench).len());
        assert!(!needs(Purpose::Bench).contains(&"initdb"));
        assert!(needs(Purpose::Database).contains(&"initdb"));
        assert!(needs(Purpose::Database).contains(&"mkfs.ext4"));
        let of = |only: &[&str]| {
            Purpose::Bench
                .of_measurements(&only.iter().map(|name| (*name).into()).collect::<Vec<_>>())
        };
        assert_eq!((of(&[]), of(&["delta"])), (Purpose::Everything, Purpose::Bench));
    }

    #[test]
    fn what_is_not_there_is_seen() {
        assert!(!Probe::Program("no-such-program-here").is_there());
        assert!(!Probe::Header("no/such/header.h").is_there());
        assert!(!Probe::Library("libnosuch.a").is_there());
        assert!(Probe::Program("sh").is_there());
    }
}
