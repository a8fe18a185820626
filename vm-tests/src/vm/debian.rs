//! Debian's packages, fetched by apt and unpacked, never installed.
//!
//! apt runs with lists, cache and status of its own for each suite, in the cache directory, so that
//! it neither sees nor changes what is installed. It checks signatures against Debian's keyring.
//! The mirror is the one that this machine installs from.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// Where packages come from, if not from where this machine's apt gets its own.
const MIRROR_VARIABLE: &str = "PINNACE_DEBIAN_MIRROR";

/// Brought by the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite of the archive, with apt's files for it in a directory of its own.
pub(super) struct Suite {
    name: String,
    apt: PathBuf,
}

impl Suite {
    /// Opens a suite (`bookworm`, `sid`), and fetches its lists if there are none yet.
    pub(super) fn open(cache: &Path, name: &str) -> Result<Self> {
        let apt = cache.join("apt").join(name);
        let suite = Self { name: name.to_owned(), apt };
        let complete = suite.apt.join("updated");
        if !complete.exists() {
            suite.configure()?;
            let mut update = suite.tool("apt-get", &["update", "--quiet", "--quiet"]);
            // Without this a suite that can't be had is only a warning.
            run(update.args(["--option", "APT::Update::Error-Mode=any"]))?;
            File::create(complete).context("noting that the lists are there")?;
        }
        Ok(suite)
    }

    /// The packages named `prefix...` that `package` depends on, itself included.
    pub(super) fn family(&self, package: &str, prefixes: &[&str]) -> Result<Vec<String>> {
        let only_depends =
            ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"];
        let mut ask = self.tool("apt-cache", &["depends", "--recurse"]);
        ask.args(only_depends.map(|kind| format!("--no-{kind}"))).arg(package);
        let told = run(&mut ask)?;
        // A line that is not indented names a package; <...> is a virtual one.
        let named = told.lines().filter(|line| !line.starts_with([' ', '<', '|']));
        let mut family: Vec<String> = named
            .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
            .map(str::to_owned)
            .collect();
        family.sort_unstable();
        family.dedup();
        ensure!(!family.is_empty(), "{package} is not in {}", self.name);
        Ok(family)
    }

    /// Downloads exactly these packages; their files.
    pub(super) fn download(&self, packages: &[String], into: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(into).context("making a directory for packages")?;
        let mut download = self.tool("apt-get", &["download", "--quiet", "--quiet"]);
        run(download.args(packages).current_dir(into))?;
        packages_in(into)
    }

    /// Downloads these packages and all that they depend on; their files.
    pub(super) fn download_closure(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let arguments = [
            "install",
            "--quiet",
            "--quiet",
            "--yes",
            "--download-only",
            "--no-install-recommends",
        ];
        run(self.tool("apt-get", &arguments).args(packages))?;
        packages_in(&self.apt.join("cache/archives"))
    }

    /// Deletes what was downloaded.
    pub(super) fn clean(&self) -> Result<()> {
        run(&mut self.tool("apt-get", &["clean"])).map(drop)
    }

    fn configure(&self) -> Result<()> {
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing (package debian-archive-keyring): packages can't be checked"
        );
        for directory in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.apt.join(directory)).context("making apt's directories")?;
        }
        // Nothing is installed, as far as this apt knows.
        fs::write(self.apt.join("status"), "").context("writing apt's status")?;
        let source = format!("deb [signed-by={KEYRING}] {} {} main\n", mirror()?, self.name);
        fs::write(self.apt.join("sources.list"), source).context("writing apt's sources")
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> Command {
        let apt = self.apt.display();
        let mut command = Command::new(program);
        command.args(arguments).env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
        for option in [
            format!("Dir::Etc::sourcelist={apt}/sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            "Dir::Etc::preferences=-".to_owned(),
            "Dir::Etc::preferencesparts=-".to_owned(),
            format!("Dir::State::lists={apt}/lists"),
            format!("Dir::State::status={apt}/status"),
            format!("Dir::State::extended_states={apt}/extended_states"),
            format!("Dir::Cache={apt}/cache"),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures=amd64".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ] {
            command.args(["--option", &option]);
        }
        command
    }
}

/// Unpacks packages into a directory.
pub(super) fn unpack(packages: &[PathBuf], into: &Path) -> Result<()> {
    fs::create_dir_all(into).context("making a directory to unpack into")?;
    packages.iter().try_for_each(|package| {
        run(Command::new("dpkg-deb").arg("-x").args([package, into])).map(drop)
    })
}

/// A field of a package, such as `Version`.
pub(super) fn field(package: &Path, name: &str) -> Result<String> {
    let told = run(Command::new("dpkg-deb").arg("--field").arg(package).arg(name))?;
    Ok(told.trim().to_owned())
}

/// Runs a program; what it printed, or an error with what it complained about.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn packages_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).context("listing downloaded packages")?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "deb")).collect())
}

/// The mirror that this machine's apt installs Debian from.
fn mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var(MIRROR_VARIABLE) {
        return Ok(mirror);
    }
    let format = ["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"];
    let told = run(Command::new("apt-get").args(format))?;
    find_mirror(&told).with_context(|| {
        format!("apt gets no Debian from anywhere on this machine: set {MIRROR_VARIABLE}")
    })
}

/// The first archive with a suite of Debian itself, not of its updates.
fn find_mirror(targets: &str) -> Option<String> {
    const SUITES: [&str; 9] =
        ["stable", "testing", "unstable", "sid", "bullseye", "bookworm", "trixie", "forky", "duke"];
    let mut targets = targets.lines().filter_map(|line| line.split_once(' '));
    targets.find(|(_, suite)| SUITES.contains(suite)).map(|(mirror, _)| mirror.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_a_suite_and_not_of_its_updates() {
        let targets = "http://b.example/debian-security/ bookworm-security\n\
                       http://a.example/debian/ bookworm-updates\n\
                       http://c.example/debian/ bookworm\n";
        assert_eq!(find_mirror(targets).as_deref(), Some("http://c.example/debian/"));
        assert_eq!(find_mirror("http://archive.example/ubuntu/ noble\n"), None);
    }
}
