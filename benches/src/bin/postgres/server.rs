//! PostgreSQL, as its own user, on a directory of the rig.
//!
//! The rig is closed to other users, and PostgreSQL refuses to be root. It runs as `postgres` with
//! the one capability that lets it pass through directories that are not its own.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::User;
use vm_tests::{Daemon, DaemonSpec, Rig, wait_until};

const USER: &str = "postgres";
const PATIENCE: Duration = Duration::from_secs(120);
/// What is run as the user: reading and searching directories only.
const AS_USER: [&str; 5] = [
    "--reuid=postgres",
    "--regid=postgres",
    "--clear-groups",
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
];

/// A running server. Dropped, it is asked to end, then killed.
pub(crate) struct Server {
    process: Daemon,
    socket: PathBuf,
}

/// Where the database lies in a file system.
pub(crate) fn data_of(mount: &Path) -> PathBuf {
    mount.join("data")
}

/// Makes a database in a file system.
pub(crate) fn initialise(mount: &Path) -> Result<PathBuf> {
    let data = data_of(mount);
    owned_directory(&data)?;
    let mut command = Command::new("setpriv");
    command.args(AS_USER).arg(program("initdb")?).args(["-A", "trust", "-D"]).arg(&data);
    let output = command.stdin(Stdio::null()).output().context("running initdb")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "initdb ({}): {said}", output.status);
    Ok(data)
}

impl Server {
    /// Starts a server, and waits until it answers: recovery from its log is over then.
    pub(crate) fn start(rig: &Rig, data: &Path) -> Result<Self> {
        let socket = rig.fresh("socket");
        owned_directory(&socket)?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut arguments: Vec<String> = AS_USER.map(Into::into).into();
        arguments.extend([text(&program("postgres")?), "-D".into(), text(data)]);
        arguments.extend(["-k".into(), text(&socket)]);
        for setting in [
            "listen_addresses=",
            "fsync=on",
            "synchronous_commit=on",
            "full_page_writes=on",
            "shared_buffers=16MB",
            "max_wal_size=64MB",
            "min_wal_size=32MB",
        ] {
            arguments.extend(["-c".into(), setting.into()]);
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

    /// A client that prints values and nothing else, and ends at the first error.
    pub(crate) fn psql(&self) -> Command {
        let mut command = Command::new("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", USER]);
        command.arg("-h").arg(&self.socket);
        command
    }

    /// What a statement returns.
    pub(crate) fn query(&self, statement: &str) -> Result<String> {
        let output = self.psql().arg("-c").arg(statement).stdin(Stdio::null()).output();
        let output = output.context("running psql")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{statement}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Ends it at once, without waiting for clients.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::SIGINT)?;
        wait_until("the end of PostgreSQL", PATIENCE, || self.process.ended()).map(drop)
    }
}

/// A program of the newest PostgreSQL: Debian keeps each version's in a directory of its own.
fn program(name: &str) -> Result<PathBuf> {
    let version = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u32>().ok())
    };
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|entry| entry.path()).filter(|path| version(path).is_some());
    let newest = newest.max_by_key(version).map(|path| path.join("bin").join(name));
    let found = newest.into_iter().chain([Path::new("/usr/bin").join(name)]);
    found.into_iter().find(|path| path.is_file()).with_context(|| format!("no {name} here"))
}

fn owned_directory(path: &Path) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("making {}", path.display()))?;
    let user = User::from_name(USER)?.with_context(|| format!("no user {USER}"))?;
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(path, mode).context("closing a directory")
}
