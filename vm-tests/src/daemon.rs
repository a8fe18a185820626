//! Processes under test: started in the rig, killed at will, never left behind.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    Rig,
    rig::{Recorded, Thing},
};

/// How a daemon is started, and started again.
#[derive(Clone, Debug)]
pub struct DaemonSpec {
    /// A word for the log file and for messages.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables set for it, beside those of this process.
    pub variables: Vec<(String, String)>,
}

/// A running process of the rig. Dropped, it is asked to end, then killed.
pub struct Daemon {
    spec: DaemonSpec,
    rig: Rig,
    log: PathBuf,
    running: Option<(Child, Recorded)>,
}

impl Daemon {
    /// Starts a process whose output goes to a log in the rig.
    pub fn start(rig: &Rig, spec: DaemonSpec) -> Result<Self> {
        let log = rig.fresh(&format!("{}-log", spec.name));
        let mut daemon = Self { spec, rig: rig.clone(), log, running: None };
        daemon.restart()?;
        Ok(daemon)
    }

    /// Starts it again after it ended; its output is appended to the log.
    pub fn restart(&mut self) -> Result<()> {
        if self.running.is_some() {
            bail!("{} is running", self.spec.name);
        }
        let output = File::options().create(true).append(true).open(&self.log);
        let output = output.context("opening the log of a daemon")?;
        let mut child = Command::new(&self.spec.program)
            .args(&self.spec.arguments)
            .envs(self.spec.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("a second handle of the log")?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {}", self.spec.program.display()))?;
        let id = child.id();
        let recorded = process_started(id)
            .context("a process that has just been started is in /proc")
            .and_then(|started| self.rig.record(&Thing::Process { id, started }));
        match recorded {
            Ok(recorded) => self.running = Some((child, recorded)),
            Err(error) => {
                child.kill().and_then(|()| child.wait()).context("after a failed start")?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.running.as_ref().map(|(child, _)| child.id())
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some((child, _)) = &mut self.running else { return Ok(None) };
        let status = child.try_wait().context("looking after a daemon")?;
        if status.is_some() {
            self.running = None;
        }
        Ok(status)
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn kill_9(&mut self) -> Result<()> {
        if let Some((mut child, _record)) = self.running.take() {
            child.kill().with_context(|| format!("killing {}", self.spec.name))?;
            child.wait().with_context(|| format!("waiting for {}", self.spec.name))?;
        }
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.id().with_context(|| format!("{} is not running", self.spec.name))?;
        kill(Pid::from_raw(i32::try_from(id)?), signal).context("sending a signal")
    }

    /// Asks it to end, and fails if it has not after `limit`; then it still runs.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let name = format!("the end of {}", self.spec.name);
        wait_until(&name, limit, || self.ended())
    }

    /// Everything it has printed.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(&self.log).context("reading the log of a daemon")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let stopped = self.running.is_some() && self.stop(Duration::from_secs(5)).is_err();
        if stopped && let Err(error) = self.kill_9() {
            eprintln!("{error:#}");
        }
    }
}

/// Asks until there is an answer, every 20 ms, and fails with what was waited for after `limit`.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if started.elapsed() >= limit {
            bail!("waited {} s for {what}", limit.as_secs_f32());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a program that prints one JSON value, and fails with what it says if it fails.
pub fn query_json(program: &Path, arguments: &[&str]) -> Result<serde_json::Value> {
    let describe = || format!("{} {}", program.display(), arguments.join(" "));
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(describe)?;
    if !output.status.success() {
        bail!("{} ({}): {}", describe(), output.status, String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{} printed no JSON", describe()))
}

/// The binary under test: `PINNACE_BIN`, or `pinnace` beside this executable's directory.
pub fn pinnace_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("PINNACE_BIN") {
        return Ok(PathBuf::from(path));
    }
    let this = std::env::current_exe().context("the path of this executable")?;
    let beside = this.ancestors().skip(1).take(2).map(|directory| directory.join("pinnace"));
    beside.into_iter().find(|path| path.is_file()).with_context(|| {
        format!("no pinnace beside {}; build it, or set PINNACE_BIN", this.display())
    })
}

/// When a process started, in ticks since boot: with its id, an identity.
pub(crate) fn process_started(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat")).ok()?;
    // The name, in parentheses, may hold anything; after it come the fields from the third on.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_start_time_and_a_foreign_number_has_none() {
        assert!(process_started(std::process::id()).is_some());
        assert_eq!(process_started(u32::MAX), None);
    }
}
