//! A target and an enrolled agent on this machine, with nothing between them.
//!
//! Unlike a `vm_tests::Site` there is no relay on the path, which would be measured too. The
//! store lies in memory, in the rig, and goes with the installation.

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use vm_tests::{ANY_TIME, Daemon, DaemonSpec, Mounted, NO_POINTS, Rig, pinnace_binary, wait_until};

/// Long enough for any daemon to start on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a status is asked for while something is timed: each answer costs a process, so this
/// is seldom. What is timed ends with an instant that the agent noted, not with the answer.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Without an acknowledgement for as long as this, nothing is going on.
const STALLED: Duration = Duration::from_secs(15);

/// A target and an agent at work.
pub(crate) struct Installation {
    // In the order in which they must end.
    pub(crate) agent: Daemon,
    pub(crate) target: Daemon,
    _pins: Mounted,
    program: PathBuf,
    agent_config: PathBuf,
    target_config: PathBuf,
    _directory: Directory,
}

/// How much of this machine a target gets.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// As much as everybody else.
    AtSpeed,
    /// What everybody else leaves, nearly: as if it were a slow machine of its own.
    Slow,
}

impl Target {
    fn of(self, program: &Path) -> Vec<&Path> {
        match self {
            Self::AtSpeed => vec![program],
            Self::Slow => vec![Path::new("nice"), Path::new("--adjustment=19"), program],
        }
    }
}

/// A directory that goes when this is dropped.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("removing {}: {error}", self.0.display());
        }
    }
}

impl Installation {
    /// Starts both, with `settings` added to the agent's configuration; without a `[policy]` among
    /// them no points are made.
    pub(crate) fn start(rig: &Rig, settings: &str) -> Result<Self> {
        Self::start_with(rig, settings, Target::AtSpeed)
    }

    /// The same with a target of which it can be said how fast it is.
    pub(crate) fn start_with(rig: &Rig, settings: &str, speed: Target) -> Result<Self> {
        let program = pinnace_binary()?;
        let directory = Directory(rig.fresh("installation"));
        let dir = directory.0.as_path();
        fs::create_dir(dir).context("making the installation's directory")?;
        let pins = Mounted::bpf(rig)?;
        let listen = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let (store, socket) = (dir.join("store"), dir.join("target.sock"));
        let text = format!("store = {store:?}\nsocket = {socket:?}\nlisten = \"{listen}\"\n");
        let target_config = dir.join("target.toml");
        fs::write(&target_config, text)?;
        let (state, socket) = (dir.join("agent"), dir.join("agent.sock"));
        let pin_dir = pins.path().join("pinnace");
        let policy = if settings.contains("[policy]") { "" } else { NO_POINTS };
        let text = format!(
            "state_dir = {state:?}\nsocket = {socket:?}\npin_dir = {pin_dir:?}\n{settings}\n{policy}\n{ANY_TIME}"
        );
        let agent_config = dir.join("agent.toml");
        fs::write(&agent_config, text)?;

        command(&program, &target_config, &["target", "init"])?;
        let target = daemon(rig, &speed.of(&program), ("target", &target_config))?;
        let token = wait_until("the target", PATIENCE, || {
            Ok(command(&program, &target_config, &["token", "create"]).ok())
        })
        .with_context(|| target.log().unwrap_or_default())?;
        command(&program, &agent_config, &["agent", "enroll", &listen, "--token", token.trim()])?;
        let agent = daemon(rig, &[&program], ("agent", &agent_config))?;
        let this = Self {
            agent,
            target,
            _pins: pins,
            program,
            agent_config,
            target_config,
            _directory: directory,
        };
        wait_until("the agent", PATIENCE, || {
            Ok(this.status().ok().filter(|status| status["link"]["state"] == "connected"))
        })
        .with_context(|| this.logs())?;
        Ok(this)
    }

    /// Protects a disk and waits until its replica is whole. The time from before the command to
    /// the last acknowledgement.
    pub(crate) fn replicate(&self, name: &str, limit: Duration) -> Result<Duration> {
        let began = SystemTime::now();
        self.ask(&["protect", &format!("/dev/{name}")])?;
        let disk = self.wait_for(name, limit, |disk| disk["state"] == "protected")?;
        durable_since(&disk, began)
    }

    /// Lets a paused disk ship what has gathered. The time from before the command to the
    /// acknowledgement.
    pub(crate) fn ship(&self, name: &str, limit: Duration) -> Result<Duration> {
        let before = self.disk(name)?["sent"]["epochs"].as_u64();
        let began = SystemTime::now();
        self.ask(&["resume", name])?;
        let disk = self.wait_for(name, limit, |disk| {
            is_idle(disk) && disk["sent"]["epochs"].as_u64() > before
        })?;
        durable_since(&disk, began)
    }

    /// Has a disk compared with its replica. The time from before the command to the last
    /// acknowledgement.
    pub(crate) fn resync(&self, name: &str, limit: Duration) -> Result<Duration> {
        let began = SystemTime::now();
        self.ask(&["resync", name, "--now"])?;
        let disk = self.wait_for(name, limit, |disk| disk["state"] == "protected")?;
        durable_since(&disk, began)
    }

    /// Waits until a disk's replica is whole and nothing is left to send, but not longer than
    /// `limit`. An error if nothing is acknowledged any more.
    pub(crate) fn watch(&self, name: &str, limit: Duration) -> Result<()> {
        let began = Instant::now();
        let mut advanced = (0, began);
        while began.elapsed() < limit {
            let disk = self.disk(name)?;
            if disk["state"] == "protected" && is_idle(&disk) {
                return Ok(());
            }
            let epochs = disk["sent"]["epochs"].as_u64().unwrap_or(0);
            if epochs > advanced.0 {
                advanced = (epochs, Instant::now());
            }
            ensure!(advanced.1.elapsed() < STALLED, "replication stands still: {disk}");
            sleep(ASK_EVERY);
        }
        Ok(())
    }

    /// A command of the agent's command line.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
        command(&self.program, &self.agent_config, arguments)
    }

    /// The agent's status.
    pub(crate) fn status(&self) -> Result<Value> {
        serde_json::from_str(&self.ask(&["status", "--json"])?).context("the agent's status")
    }

    /// The status of one disk, by its name.
    pub(crate) fn disk(&self, name: &str) -> Result<Value> {
        let status = self.status()?;
        let mut disks = status["disks"].as_array().into_iter().flatten();
        let found = disks.find(|disk| disk["name"] == name);
        found.cloned().with_context(|| format!("{name} is not protected"))
    }

    /// The instants of all points that the target holds.
    pub(crate) fn points(&self) -> Result<Vec<jiff::Timestamp>> {
        let text = command(&self.program, &self.target_config, &["point", "list", "--json"])?;
        let points: Vec<Value> = serde_json::from_str(&text).context("the target's points")?;
        let time = |point: &Value| point["time"].as_str()?.parse().ok();
        let times = points.iter().map(|point| time(point).context("the instant of a point"));
        times.collect()
    }

    /// Where the replica of a disk lies.
    pub(crate) fn replica(&self, name: &str) -> Result<PathBuf> {
        let text = command(&self.program, &self.target_config, &["target", "status", "--json"])?;
        let status: Value = serde_json::from_str(&text).context("the target's status")?;
        let mut disks = status["disks"].as_array().into_iter().flatten();
        let found = disks.find(|disk| disk["name"] == name);
        let base = found.and_then(|disk| disk["base"].as_str());
        Ok(base.with_context(|| format!("the target has no {name}"))?.into())
    }

    /// Writes what a disk is now into an image, as its target has it: as a recovery point, since
    /// the replica itself does not follow any more once there is one.
    pub(crate) fn export(&self, name: &str, image: &Path) -> Result<()> {
        self.ask(&["point", "create"])?;
        let (point, image) = (format!("{name}@latest"), image.to_string_lossy());
        let export = ["point", "export", &point, "--overwrite", "--to", &image];
        command(&self.program, &self.target_config, &export).map(drop)
    }

    fn wait_for(
        &self,
        name: &str,
        limit: Duration,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let began = SystemTime::now();
        loop {
            let disk = self.disk(name)?;
            if is_it(&disk) {
                return Ok(disk);
            }
            if began.elapsed().is_ok_and(|waited| waited >= limit) {
                bail!("waited {limit:?} for {name}, which is {disk}\n{}", self.logs());
            }
            sleep(ASK_EVERY);
        }
    }

    /// What both daemons have printed.
    pub(crate) fn logs(&self) -> String {
        let of = |daemon: &Daemon| daemon.log().unwrap_or_else(|error| error.to_string());
        format!("agent:\n{}\ntarget:\n{}", of(&self.agent), of(&self.target))
    }
}

/// A daemon; `words` are the program, and what it is started through before it.
fn daemon(rig: &Rig, words: &[&Path], (role, config): (&str, &Path)) -> Result<Daemon> {
    let words = words.iter().map(|word| word.to_string_lossy().into_owned());
    let mut arguments: Vec<String> = words.collect();
    let (name, program) = (role.into(), arguments.remove(0).into());
    arguments.extend([role, "run", "--config", &config.to_string_lossy()].map(Into::into));
    Daemon::start(rig, DaemonSpec { name, program, arguments, variables: Vec::new() })
}

fn command(program: &Path, config: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).arg("--config").arg(config).stdin(Stdio::null());
    let words = arguments.join(" ");
    let output = command.output().with_context(|| format!("running pinnace {words}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pinnace {words} ({}): {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_idle(disk: &Value) -> bool {
    disk["dirty_bytes"] == 0 && disk["in_flight_bytes"] == 0
}

/// How long after `began` the agent noted the disk's last acknowledgement.
fn durable_since(disk: &Value, began: SystemTime) -> Result<Duration> {
    let noted = disk["last_durable"].as_str().context("nothing is durable")?;
    let noted: jiff::Timestamp = noted.parse().context("the instant of an acknowledgement")?;
    SystemTime::from(noted).duration_since(began).context("nothing became durable")
}
