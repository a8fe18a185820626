//! PostgreSQL, on a directory of a rig: the database that is protected, and recovered.
//!
//! It refuses to be root, so it runs as its own user, with no right but to pass through the rig.
//! Clients are run as root, which may use the server's socket.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::User;
use vm_tests::{Daemon, DaemonSpec, Mounted, Rig, wait_until};

const USER: &str = "postgres";
const PATIENCE: Duration = Duration::from_secs(120);
const AS_USER: [&str; 3] = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
/// Debian keeps every version in a directory of its own.
const VERSIONS: &str = "/usr/lib/postgresql";

/// A running server. Dropped, it is asked to end, then killed.
pub struct Server {
    process: Daemon,
    socket: PathBuf,
}

/// Makes a database in a file system, whose other content is left alone.
///
/// # Errors
/// If there is no PostgreSQL on this machine, or if it says that it can't.
pub fn initialise(rig: &Rig, mounted: &Mounted) -> Result<()> {
    rig.let_others_pass()?;
    let data = data_of(mounted);
    owned_directory(&data)?;
    let mut command = Command::new("setpriv");
    command.args(AS_USER).arg(program("initdb")?);
    command.args(["--auth=trust", "--encoding=UTF8", "--locale=C", "-D"]).arg(&data);
    output(command).map(drop)
}

impl Server {
    /// Starts a server on the database of a file system, with settings as `name=value`, and waits
    /// until it answers: its recovery is over then.
    ///
    /// # Errors
    /// If it ends before it answers, with what it said.
    pub fn start(rig: &Rig, mounted: &Mounted, settings: &[&str]) -> Result<Self> {
        rig.let_others_pass()?;
        let socket = rig.fresh("socket");
        owned_directory(&socket)?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut arguments: Vec<String> = AS_USER.map(Into::into).into();
        arguments.extend([text(&program("postgres")?), "-D".into(), text(&data_of(mounted))]);
        arguments.extend(["-k".into(), text(&socket)]);
        for setting in ["listen_addresses="].iter().chain(settings) {
            arguments.extend(["-c".into(), (*setting).into()]);
        }
        // setpriv becomes the server: one process, which is the rig's.
        let program = PathBuf::from("setpriv");
        let spec = DaemonSpec { name: USER.into(), program, arguments, variables: Vec::new() };
        let mut server = Self { process: Daemon::start(rig, spec)?, socket };
        wait_until("PostgreSQL", PATIENCE, || {
            ensure!(server.process.ended()?.is_none(), "PostgreSQL has ended");
            Ok(server.query("SELECT 1").ok())
        })
        .with_context(|| server.process.log().unwrap_or_default())?;
        Ok(server)
    }

    /// A client program of the same PostgreSQL, told how to reach this server.
    ///
    /// # Errors
    /// If there is no such program.
    pub fn client(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(program(name)?);
        command.env("PGHOST", &self.socket).env("PGUSER", USER).env("PGDATABASE", USER);
        Ok(command)
    }

    /// A psql that prints values and nothing else, and ends at the first error.
    ///
    /// # Errors
    /// If there is no psql.
    pub fn psql(&self) -> Result<Command> {
        let mut command = self.client("psql")?;
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        Ok(command)
    }

    /// Runs a client program to its end: what it prints.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.client(name)?;
        command.args(arguments);
        output(command)
    }

    /// What a statement returns.
    ///
    /// # Errors
    /// If the server refuses it.
    pub fn query(&self, statement: &str) -> Result<String> {
        let mut command = self.psql()?;
        command.args(["-c", statement]);
        output(command)
    }

    /// Ends it without waiting for clients, in order: its files are as they should be then.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::SIGINT)?;
        wait_until("the end of PostgreSQL", PATIENCE, || self.process.ended()).map(drop)
    }
}

fn data_of(mounted: &Mounted) -> PathBuf {
    mounted.path().join("data")
}

/// A program of the newest PostgreSQL that is installed.
fn program(name: &str) -> Result<PathBuf> {
    let version = |path: &PathBuf| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let newest = versions.map(|entry| entry.path()).filter(|path| version(path).is_some());
    let of_a_version = newest.max_by_key(version).map(|path| path.join("bin").join(name));
    let mut found = of_a_version.into_iter().chain([Path::new("/usr/bin").join(name)]);
    found.find(|path| path.is_file()).with_context(|| format!("there is no {name} of PostgreSQL"))
}

/// A new directory that is PostgreSQL's alone.
fn owned_directory(path: &Path) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("making {}", path.display()))?;
    let user = User::from_name(USER)?.with_context(|| format!("there is no user {USER}"))?;
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).context("closing a directory")
}

fn output(mut command: Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("running {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} ({}): {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
