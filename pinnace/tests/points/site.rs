//! A target without an agent, and a machine that is enrolled with it.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vm_tests::{Daemon, DaemonSpec, Rig, wait_until};

pub(crate) const PINNACE: &str = env!("CARGO_BIN_EXE_pinnace");
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A target at work.
pub(crate) struct Site {
    pub(crate) rig: Rig,
    pub(crate) target: Daemon,
    pub(crate) address: SocketAddr,
    pub(crate) store: PathBuf,
    pub(crate) config: PathBuf,
    /// The state of the enrolled machine.
    pub(crate) machine: PathBuf,
}

impl Site {
    /// A target with these lines in its configuration.
    pub(crate) fn start(rig: &Rig, settings: &str) -> Result<Self> {
        let address = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        let (store, config) = (rig.fresh("store"), rig.fresh("target.toml"));
        let socket = rig.fresh("target.sock");
        let text =
            format!("store = {store:?}\nsocket = {socket:?}\nlisten = \"{address}\"\n{settings}\n");
        fs::write(&config, text)?;
        run(&config, &["target", "init"]).and_then(succeeded)?;
        let arguments = ["target", "run", "--config", &config.to_string_lossy()];
        let spec = DaemonSpec {
            name: "target".into(),
            program: PINNACE.into(),
            arguments: arguments.map(Into::into).into(),
            variables: Vec::new(),
        };
        let target = Daemon::start(rig, spec)?;
        let machine = rig.fresh("machine");
        let site = Self { rig: rig.clone(), target, address, store, config, machine };
        site.enroll()?;
        Ok(site)
    }

    fn enroll(&self) -> Result<()> {
        let token = wait_until("the target", PATIENCE, || Ok(self.cli(&["token", "create"]).ok()))
            .with_context(|| self.log())?;
        let config = self.rig.fresh("agent.toml");
        fs::write(&config, format!("state_dir = {:?}\n", self.machine))?;
        let address = self.address.to_string();
        run(&config, &["agent", "enroll", &address, "--token", token.trim()])
            .and_then(succeeded)?;
        Ok(())
    }

    /// Runs a command that has to succeed, and returns what it printed.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<String> {
        self.try_cli(arguments).and_then(succeeded)
    }

    /// Runs a command, whatever comes of it.
    pub(crate) fn try_cli(&self, arguments: &[&str]) -> Result<Output> {
        run(&self.config, arguments)
    }

    /// The same command with JSON as its output.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let printed = self.cli(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&printed).with_context(|| printed)
    }

    /// The points that are listed.
    pub(crate) fn points(&self) -> Result<Vec<Value>> {
        let points = self.json(&["point", "list"])?;
        Ok(points.as_array().context("points are listed")?.clone())
    }

    /// Starts a command that goes on until it is ended.
    pub(crate) fn start_cli(&self, name: &str, arguments: &[&str]) -> Result<Daemon> {
        let config = ["--config", &*self.config.to_string_lossy()];
        let arguments = [arguments, &config].concat();
        let spec = DaemonSpec {
            name: name.into(),
            program: PINNACE.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            variables: Vec::new(),
        };
        Daemon::start(&self.rig, spec)
    }

    pub(crate) fn log(&self) -> String {
        self.target.log().unwrap_or_else(|error| error.to_string())
    }
}

fn run(config: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(PINNACE);
    command.args(arguments).arg("--config").arg(config).stdin(Stdio::null());
    command.output().with_context(|| format!("running pinnace {}", arguments.join(" ")))
}

fn succeeded(output: Output) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Fails unless a command ended with this exit code and said all these words.
pub(crate) fn ended_with(output: &Output, exit: i32, words: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(exit), "{} instead of {exit}: {said}", output.status);
    for word in words {
        ensure!(said.contains(word), "{word:?} is not in: {said}");
    }
    ensure!(!said.contains("panicked"), "{said}");
    Ok(())
}

/// Runs a program that nobody here wrote; it has to succeed.
pub(crate) fn other(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new("timeout").arg("60").arg(program).args(arguments).output()?;
    succeeded(output).with_context(|| format!("{program} {}", arguments.join(" ")))
}
