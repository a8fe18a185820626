//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{AgentConfig, Interval, Required, TargetConfig};
use crate::exit::{Exit, Failure};

mod agent;
mod disks;
mod output;
mod point;
mod resync;
mod status;
mod target;
mod verify;

/// Keeps a second copy of this machine's disks, seconds behind the first.
#[derive(Parser)]
#[command(name = "pinnace", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
pub(crate) struct Global {
    /// Configuration file [default: /etc/pinnace/agent.toml, or target.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to print results
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Print JSON (the same as `-o json`)
    #[arg(long, global = true)]
    json: bool,
    /// How long to wait for the daemon's answer
    #[arg(long, global = true, default_value = "60s", value_name = "TIME")]
    timeout: Interval,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Wide,
    Json,
    Jsonl,
}

#[derive(Subcommand)]
enum Command {
    /// The agent: tracks and ships this machine's disks
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// The target: keeps the replica disks of other machines
    #[command(subcommand)]
    Target(target::TargetCommand),
    /// Enrolment tokens (on the target)
    #[command(subcommand)]
    Token(target::TokenCommand),
    /// Recovery points: made on the protected machine, kept on the target
    #[command(subcommand)]
    Point(point::PointCommand),
    /// Protect disks of this machine
    Protect(disks::Protect),
    /// Stop protecting a disk; its replica stays on the target
    Unprotect(disks::Unprotect),
    /// Stop shipping for a while; tracking goes on
    Pause(disks::Which),
    /// Ship again after a pause, and try again at once what failed or was refused
    Resume(disks::Which),
    /// Compare a disk with its replica and send what differs, or decide between the two
    Resync(resync::Resync),
    /// Hold a disk against its replica while both are at work
    Verify(verify::Verify),
    /// What is protected, and what could be
    #[command(subcommand)]
    Disk(disks::DiskCommand),
    /// Where every protected disk stands
    Status(status::StatusArgs),
    /// Configuration files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Thaws file systems when the agent can't; started by the agent itself
    #[command(hide = true)]
    FreezeGuard {
        /// The longest freeze, in milliseconds
        limit: u64,
        /// Where they are mounted
        mounts: Vec<PathBuf>,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check the configuration of a role, and say what is wrong with file and line
    Check {
        /// The role; without it, every role whose file exists
        #[arg(value_enum)]
        role: Option<Role>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Agent,
    Target,
}

impl Global {
    fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }

    fn agent(&self) -> Result<AgentConfig> {
        let (path, required) = self.file(AgentConfig::PATH);
        AgentConfig::load(path, required).map_err(|error| misconfigured(&error))
    }

    fn target(&self) -> Result<TargetConfig> {
        let (path, required) = self.file(TargetConfig::PATH);
        TargetConfig::load(path, required).map_err(|error| misconfigured(&error))
    }

    fn file<'a>(&'a self, default: &'a str) -> (&'a Path, Required) {
        match &self.config {
            Some(path) => (path, Required::Yes),
            None => (Path::new(default), Required::No),
        }
    }

    fn timeout(&self) -> Duration {
        self.timeout.0
    }
}

/// Settings that are wrong are a mistake in what was asked for, as a wrong flag is.
fn misconfigured(error: &anyhow::Error) -> anyhow::Error {
    Failure::new(Exit::Usage, format!("{error:#}")).into()
}

/// Carries out what the command line asks for.
pub(crate) fn execute(cli: &Cli) -> Result<()> {
    let global = &cli.global;
    match &cli.command {
        Command::Agent(command) => agent::execute(global, command),
        Command::Target(command) => target::execute(global, command),
        Command::Token(command) => target::token(global, command),
        Command::Point(command) => point::execute(global, command),
        Command::Protect(protect) => disks::protect(global, protect),
        Command::Unprotect(unprotect) => disks::unprotect(global, unprotect),
        Command::Pause(which) => disks::pause(global, which),
        Command::Resume(which) => disks::resume(global, which),
        Command::Resync(resync) => resync::execute(global, resync),
        Command::Verify(verify) => verify::execute(global, verify),
        Command::Disk(command) => disks::execute(global, command),
        Command::Status(args) => status::execute(global, *args),
        Command::Config(ConfigCommand::Check { role }) => check_config(global, *role),
        Command::FreezeGuard { limit, mounts } => {
            crate::agent::freeze_guard(Duration::from_millis(*limit), mounts)
        }
        Command::Completions { shell } => {
            let mut command = <Cli as clap::CommandFactory>::command();
            clap_complete::generate(*shell, &mut command, "pinnace", &mut std::io::stdout());
            Ok(())
        }
    }
}

fn check_config(global: &Global, role: Option<Role>) -> Result<()> {
    let wanted = |this, default: &str| match role {
        Some(role) => role == this,
        // A file that was named without a role is an agent's or a target's by its name.
        None => match &global.config {
            Some(path) => {
                let is_target = path.file_name().is_some_and(|name| name == "target.toml");
                is_target == (this == Role::Target)
            }
            None => Path::new(default).exists(),
        },
    };
    let mut checked = 0;
    if wanted(Role::Agent, AgentConfig::PATH) {
        global.agent()?;
        println!("agent: ok");
        checked += 1;
    }
    if wanted(Role::Target, TargetConfig::PATH) {
        global.target()?;
        println!("target: ok");
        checked += 1;
    }
    if checked == 0 {
        println!("no configuration file: the defaults apply");
    }
    Ok(())
}
