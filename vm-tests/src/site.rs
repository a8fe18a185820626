//! A target and an enrolled agent, real processes, with a path between them that can be cut.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    BlockDevice, Daemon, DaemonSpec, Mounted, Relay, Rig, first_difference, pinnace_binary,
    wait_until,
};

/// Long enough for any daemon to start or stop on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The agent looks at the statistics of its disks twice a second.
const TWO_LOOKS: Duration = Duration::from_millis(1200);

/// Settings of an agent that makes no point by itself: without points the base of a replica follows
/// its disk, so that the two can be compared.
pub const NO_POINTS: &str = "[policy]\npoint_interval = \"0s\"\n";

/// Settings of an agent that compares disks at whatever time of the day.
pub const ANY_TIME: &str = "[resync]\nwindow = \"always\"\n";

/// What is particular about a site.
#[derive(Clone, Debug, Default)]
pub struct SiteSpec {
    /// Lines added to the agent's configuration. Points are made only if there is a `[policy]`.
    pub agent_settings: String,
    /// Variables of the agent's environment.
    pub agent_variables: Vec<(String, String)>,
    /// Where the target's store is; in the rig unless given.
    pub store: Option<PathBuf>,
}

/// A target and an agent at work.
pub struct Site {
    /// The agent's process.
    pub agent: Daemon,
    /// The target's process.
    pub target: Daemon,
    /// The path between the two.
    pub relay: Relay,
    /// Where the target listens, behind the relay.
    pub listen: SocketAddr,
    program: PathBuf,
    dir: PathBuf,
    store: PathBuf,
    agent_config: PathBuf,
    target_config: PathBuf,
    // Last: pins vanish with their file system, after the processes are gone.
    pins: Mounted,
}

impl Site {
    /// Makes a target, starts it, enrols an agent with it and starts that; all with the binary
    /// that [`pinnace_binary`] finds.
    pub fn start(rig: &Rig, spec: &SiteSpec) -> Result<Self> {
        Self::start_program(&pinnace_binary()?, rig, spec)
    }

    /// The same with another binary.
    pub fn start_program(program: &Path, rig: &Rig, spec: &SiteSpec) -> Result<Self> {
        let program = program.to_owned();
        let dir = rig.fresh("site");
        fs::create_dir(&dir).context("making the site's directory")?;
        let pins = Mounted::bpf(rig)?;
        let listen = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        let relay = Relay::start(listen)?;
        let store = spec.store.clone().unwrap_or_else(|| dir.join("store"));
        let target_config = dir.join("target.toml");
        let text = format!(
            "store = {store:?}\nsocket = {:?}\nlisten = \"{listen}\"\n",
            dir.join("target.sock")
        );
        fs::write(&target_config, text)?;
        let agent_config = dir.join("agent.toml");
        let resync = if spec.agent_settings.contains("[resync]") { "" } else { ANY_TIME };
        let policy = if spec.agent_settings.contains("[policy]") { "" } else { NO_POINTS };
        let text = format!(
            "state_dir = {:?}\nsocket = {:?}\npin_dir = {:?}\n{}\n{policy}\n{resync}",
            dir.join("agent"),
            dir.join("agent.sock"),
            pins.path().join("pinnace"),
            spec.agent_settings
        );
        fs::write(&agent_config, text)?;
        let role = |name: &str, config: &Path, variables| DaemonSpec {
            name: name.into(),
            program: program.clone(),
            arguments: [name, "run", "--config", &config.to_string_lossy()].map(Into::into).into(),
            variables,
        };
        checked(&program, &target_config, &["target", "init"])?;
        let target = Daemon::start(rig, role("target", &target_config, Vec::new()))?;
        let token = wait_until("the target", PATIENCE, || {
            Ok(checked(&program, &target_config, &["token", "create"]).ok())
        })
        .with_context(|| target.log().unwrap_or_default())?;
        let address = relay.address().to_string();
        let enroll = ["agent", "enroll", &address, "--token", token.trim()];
        checked(&program, &agent_config, &enroll)?;
        let agent = Daemon::start(rig, role("agent", &agent_config, spec.agent_variables.clone()))?;
        let site = Self {
            agent,
            target,
            relay,
            listen,
            program,
            dir,
            store,
            agent_config,
            target_config,
            pins,
        };
        wait_until("the agent", PATIENCE, || Ok(site.status().ok()))
            .with_context(|| site.agent.log().unwrap_or_default())?;
        Ok(site)
    }

    /// Runs a command of the agent's command line; an error holds what it printed.
    pub fn agent(&self, arguments: &[&str]) -> Result<String> {
        checked(&self.program, &self.agent_config, arguments)
    }

    /// Runs a command of the target's command line; an error holds what it printed.
    pub fn target(&self, arguments: &[&str]) -> Result<String> {
        checked(&self.program, &self.target_config, arguments)
    }

    /// Runs a command of the agent's command line, whatever comes of it.
    pub fn try_agent(&self, arguments: &[&str]) -> Result<Output> {
        run(&self.program, &self.agent_config, arguments)
    }

    /// Runs a command of the target's command line, whatever comes of it.
    pub fn try_target(&self, arguments: &[&str]) -> Result<Output> {
        run(&self.program, &self.target_config, arguments)
    }

    /// Where the agent keeps its state.
    pub fn agent_state(&self) -> PathBuf {
        self.dir.join("agent")
    }

    /// Where the target's store is.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Where the agent pins its programs and maps.
    pub fn pins(&self) -> PathBuf {
        self.pins.path().join("pinnace")
    }

    /// Protects a disk, and waits until its replica follows.
    pub fn protect(&self, disk: &BlockDevice, limit: Duration) -> Result<Value> {
        self.agent(&["protect", &disk.path().to_string_lossy()])?;
        self.wait_for_state(disk.name(), "protected", limit)
    }

    /// Waits until so many more epochs of a disk are durable.
    pub fn wait_for_epochs(&self, name: &str, epochs: u64, limit: Duration) -> Result<Value> {
        let epoch = |disk: &Value| disk["epoch"].as_u64().unwrap_or_default();
        let before = epoch(&self.disk(name)?);
        wait_until(&format!("{epochs} epochs of {name}"), limit, || {
            let disk = self.disk(name)?;
            Ok((epoch(&disk) >= before + epochs).then_some(disk))
        })
        .with_context(|| self.logs())
    }

    /// Waits until the agent answers, as after a restart.
    pub fn wait_for_agent(&self) -> Result<Value> {
        wait_until("the agent", PATIENCE, || Ok(self.status().ok())).with_context(|| self.logs())
    }

    /// The agent's status.
    pub fn status(&self) -> Result<Value> {
        serde_json::from_str(&self.agent(&["status", "--json"])?).context("the agent's status")
    }

    /// The status of one disk, by its name.
    pub fn disk(&self, name: &str) -> Result<Value> {
        let status = self.status()?;
        let disks = status["disks"].as_array().context("a status lists disks")?;
        let found = disks.iter().find(|disk| disk["name"] == name);
        found.cloned().with_context(|| format!("{name} is not protected"))
    }

    /// Waits until a disk is in a state, given as in the JSON (`"protected"`).
    pub fn wait_for_state(&self, name: &str, state: &str, limit: Duration) -> Result<Value> {
        let what = format!("{name} to be {state}");
        wait_until(&what, limit, || {
            let disk = self.disk(name)?;
            Ok((disk["state"] == state).then_some(disk))
        })
        .with_context(|| self.logs())
    }

    /// Waits until everything written to the disk before this call is durable on the target.
    ///
    /// The disk must be quiet. An epoch that is sealed after this call holds whatever was written
    /// before it, so two acknowledged looks at nothing dirty are enough.
    pub fn drain(&self, name: &str, limit: Duration) -> Result<()> {
        let mut clean = 0;
        wait_until(&format!("{name} to drain"), limit, || {
            let disk = self.disk(name)?;
            let idle = disk["dirty_bytes"] == 0 && disk["in_flight_bytes"] == 0;
            clean = if idle && disk["state"] == "protected" { clean + 1 } else { 0 };
            Ok((clean >= 10).then_some(()))
        })
        .with_context(|| self.logs())
    }

    /// Where the replica of a disk lies, by the disk's name; of the first if it has several.
    pub fn replica(&self, name: &str) -> Result<PathBuf> {
        let found = self.replicas(name)?.into_iter().next();
        found.with_context(|| format!("the target has no {name}"))
    }

    /// Every replica of a disk of this name: one that was protected twice has two.
    pub fn replicas(&self, name: &str) -> Result<Vec<PathBuf>> {
        let status: Value = serde_json::from_str(&self.target(&["target", "status", "--json"])?)?;
        let disks = status["disks"].as_array().context("a status lists disks")?;
        let found = disks.iter().filter(|disk| disk["name"] == name);
        Ok(found.filter_map(|disk| disk["base"].as_str()).map(PathBuf::from).collect())
    }

    /// Compares a disk with its replica, byte for byte.
    pub fn compare(&self, name: &str) -> Result<()> {
        let disk = Path::new("/dev").join(name);
        match first_difference(&disk, &self.replica(name)?)? {
            None => Ok(()),
            Some(difference) => {
                bail!("{name} and its replica differ: {difference}\n{}", self.logs())
            }
        }
    }

    /// Proves that the replica of a disk that is no longer written to is the disk, byte for byte.
    ///
    /// What tracking could not see is found by the agent's look at the kernel's statistics, so two
    /// such looks are waited for before the disk is drained.
    pub fn prove(&self, disk: &BlockDevice, limit: Duration) -> Result<()> {
        self.settle(disk, limit)?;
        self.compare(disk.name())
    }

    /// Waits until all that was written to a disk is in its replica; the first half of
    /// [`Self::prove`].
    pub fn settle(&self, disk: &BlockDevice, limit: Duration) -> Result<()> {
        disk.wait_idle()?;
        std::thread::sleep(TWO_LOOKS);
        self.drain(disk.name(), limit)
    }

    /// What both daemons have printed.
    pub fn logs(&self) -> String {
        let of = |daemon: &Daemon| daemon.log().unwrap_or_else(|error| error.to_string());
        format!("agent:\n{}\ntarget:\n{}", of(&self.agent), of(&self.target))
    }
}

fn run(program: &Path, config: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).arg("--config").arg(config).stdin(Stdio::null());
    command.output().with_context(|| format!("running pinnace {}", arguments.join(" ")))
}

fn checked(program: &Path, config: &Path, arguments: &[&str]) -> Result<String> {
    let output = run(program, config, arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pinnace {} ({}): {said}", arguments.join(" "), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A number in a status, by its JSON pointer (`/sent/raw`); 0 if there is none.
pub fn number(status: &Value, path: &str) -> u64 {
    status.pointer(path).and_then(Value::as_u64).unwrap_or_default()
}
