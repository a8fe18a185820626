//! Running programs: from the root of the repository, shown, and with errors that name them.

use std::{
    convert::Infallible,
    env,
    ffi::OsStr,
    fmt::Write,
    io::{BufRead, BufReader},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// A command that runs in the root of the repository.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(repository());
    command
}

/// The cargo that runs this task, with these arguments.
///
/// What cargo tells a program of its own package is taken out of the environment again: build scripts
/// that ask for it would have all above them built anew, here and after every build by hand.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_this_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    for (name, _) in env::vars_os() {
        let told =
            name.to_str().is_some_and(|name| of_this_package.iter().any(|of| name.starts_with(of)));
        if told {
            cargo.env_remove(name);
        }
    }
    cargo.args(arguments);
    cargo
}

/// A command as root: itself if this is root, else behind sudo.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(command(program));
    }
    ensure!(is_installed("sudo"), "this needs root: run it as root, or install sudo");
    let mut sudo = command("sudo");
    sudo.arg("--preserve-env").arg(program);
    Ok(sudo)
}

/// Runs to the end. An exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    eprintln!("$ {shown}");
    let status = command.status().with_context(|| format!("starting {shown}"))?;
    succeeded(status, &shown)
}

/// What came of a program whose output was read.
pub(crate) struct Ran {
    /// What it printed on standard output, which was shown too.
    pub(crate) printed: String,
    /// Whether its exit code was 0.
    pub(crate) succeeded: bool,
}

impl Ran {
    /// The name of the first test that failed, if it ran tests.
    pub(crate) fn first_failed(&self) -> Option<&str> {
        self.verdicts().find(|(_, verdict)| *verdict == "FAILED").map(|(name, _)| name)
    }

    /// Whether a test of this name passed, whatever its module.
    pub(crate) fn passed(&self, test: &str) -> bool {
        self.verdicts().any(|(name, verdict)| verdict == "ok" && name.ends_with(test))
    }

    /// Tests and what came of them. What a test prints may stand between the two.
    fn verdicts(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut running = "";
        self.printed.lines().filter_map(move |line| {
            let line = line.trim();
            let verdict = match line.strip_prefix("test ").and_then(|l| l.split_once(" ... ")) {
                Some((name, verdict)) => {
                    running = name;
                    verdict
                }
                None => line,
            };
            matches!(verdict, "ok" | "FAILED").then_some((running, verdict))
        })
    }
}

/// Runs to the end, shows what it prints, and returns that.
pub(crate) fn read(command: &mut Command) -> Result<Ran> {
    let shown = show(command);
    eprintln!("$ {shown}");
    let starting = || format!("starting {shown}");
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(starting)?;
    let output = child.stdout.take().expect("it was asked for");
    let mut printed = String::new();
    for line in BufReader::new(output).lines() {
        let line = line.with_context(|| format!("reading what {shown} prints"))?;
        println!("{line}");
        writeln!(printed, "{line}").expect("a string takes any text");
    }
    let status = child.wait().with_context(|| format!("waiting for {shown}"))?;
    Ok(Ran { printed, succeeded: status.success() })
}

/// Runs for at most `limit`; what runs longer is killed, and an error.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    let shown = show(command);
    eprintln!("$ {shown}");
    let mut child = command.spawn().with_context(|| format!("starting {shown}"))?;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("waiting for {shown}"))? {
            return succeeded(status, &shown);
        }
        if started.elapsed() >= limit {
            child.kill().and_then(|()| child.wait()).with_context(|| format!("ending {shown}"))?;
            bail!("{shown} did not end within {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Becomes the command, so that its signals and its exit code are its own.
pub(crate) fn become_command(command: &mut Command) -> Result<Infallible> {
    let shown = show(command);
    eprintln!("$ {shown}");
    Err(command.exec()).with_context(|| format!("starting {shown}"))
}

/// Whether a program is installed, also where only root's path leads.
pub(crate) fn is_installed(program: &str) -> bool {
    search_path().iter().any(|directory| directory.join(program).is_file())
}

/// Whether a program is installed under a name like `clang-19`.
pub(crate) fn is_installed_by_version(program: &str) -> bool {
    let is_it = |name: &str| {
        let version = name.strip_prefix(program).and_then(|rest| rest.strip_prefix('-'));
        version.is_some_and(|version| version.parse::<u32>().is_ok())
    };
    let entries = search_path().into_iter().filter_map(|path| path.read_dir().ok()).flatten();
    entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_it))
}

fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(more).collect()
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    // The owner of a process's own directory in /proc is its effective user.
    Path::new("/proc/self").metadata().is_ok_and(|found| found.uid() == 0)
}

/// The root of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository")
}

/// Where cargo puts the executables of a profile (`debug`, `release`).
pub(crate) fn built(profile: &str) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    repository().join(target).join(profile)
}

/// A command as it would be typed.
pub(crate) fn show(command: &Command) -> String {
    let mut shown = Path::new(command.get_program()).file_name().map_or_else(
        || command.get_program().to_string_lossy().into_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    for argument in command.get_args() {
        write!(shown, " {}", argument.to_string_lossy()).expect("a string takes any text");
    }
    shown
}

fn succeeded(status: ExitStatus, shown: &str) -> Result<()> {
    ensure!(status.success(), "{shown}: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_of_tests_are_read_whatever_they_print() {
        let printed = "running 3 tests\ntest a::one ... ok\ntest b::two ... 3 of 4 points\nFAILED\n\
                       test c::three ... FAILED\n\ntest result: FAILED. 1 passed; 2 failed\n";
        let ran = Ran { printed: printed.into(), succeeded: false };
        assert_eq!(ran.first_failed(), Some("b::two"));
        assert!(ran.passed("one") && !ran.passed("two") && !ran.passed("three"));
    }
}
