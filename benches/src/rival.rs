//! What Pinnace is measured against: other tools, each run as its makers would.
//!
//! Only processes that were started here are ever ended, each through its own handle.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use blocks::ByteLen;
use vm_tests::{Rig, wait_until};

const PATIENCE: Duration = Duration::from_secs(10);

/// A process of ours; dropped, it is killed if it still runs.
struct Process {
    child: Child,
    name: String,
}

impl Process {
    fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { child, name })
    }

    /// Its standard output as another's standard input.
    fn output(&mut self) -> Result<Stdio> {
        let output = self.child.stdout.take();
        Ok(output.with_context(|| format!("the output of {}", self.name))?.into())
    }

    fn finish(mut self) -> Result<()> {
        let status = self.child.wait().with_context(|| format!("waiting for {}", self.name))?;
        ensure!(status.success(), "{}: {status}", self.name);
        Ok(())
    }

    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().with_context(|| format!("looking after {}", self.name))?.is_some())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only once it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command whose input comes from `input` and that says nothing.
fn quiet(program: &str, arguments: &[&str], input: Stdio) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(input).stderr(Stdio::null());
    command
}

/// `nbdcopy` from a disk to `nbdkit` with its file plugin, over a unix socket, told that the
/// destination is empty, until the copy is flushed.
pub(crate) fn nbdcopy(rig: &Rig, disk: &Path, len: ByteLen) -> Result<Duration> {
    let (socket, copy) = (rig.fresh("nbd"), rig.fresh("nbd-copy"));
    let made = Scratch::create(&copy, len)?;
    let serve = ["--foreground", "--unix", &socket.to_string_lossy(), "file"].map(String::from);
    let mut serve =
        Command::new("nbdkit").args(serve).arg(&copy).stdin(Stdio::null()).spawn_as()?;
    wait_until("nbdkit", PATIENCE, || {
        ensure!(!serve.has_ended()?, "nbdkit ended");
        Ok(socket.exists().then_some(()))
    })?;
    let target = format!("nbd+unix:///?socket={}", socket.display());
    let began = Instant::now();
    let arguments = ["--flush", "--destination-is-zero", &disk.to_string_lossy(), &target];
    Process::start(&mut quiet("nbdcopy", &arguments, Stdio::null()))?.finish()?;
    let took = began.elapsed();
    drop((serve, made));
    Ok(took)
}

/// `nbdcopy` from a unix socket to nowhere: a client that only reads.
pub(crate) fn nbdcopy_to_nowhere(socket: &Path) -> Result<Duration> {
    let source = format!("nbd+unix:///?socket={}", socket.display());
    let began = Instant::now();
    Process::start(&mut quiet("nbdcopy", &[&source, "null:"], Stdio::null()))?.finish()?;
    Ok(began.elapsed())
}

/// `dd conv=fsync` from one file to a new one.
pub(crate) fn dd_synced(from: &Path, to: &Path) -> Result<Duration> {
    let (from, to) = (format!("if={}", from.display()), format!("of={}", to.display()));
    let began = Instant::now();
    let arguments = [from.as_str(), to.as_str(), "bs=1M", "conv=fsync"];
    Process::start(&mut quiet("dd", &arguments, Stdio::null()))?.finish()?;
    Ok(began.elapsed())
}

/// `dd | zstd -1 | nc` to `nc -l | zstd -d | dd`, until the last of them has ended; `more` is for
/// the `dd` that reads.
pub(crate) fn pipe(rig: &Rig, disk: &Path, len: ByteLen, more: &[&str]) -> Result<Duration> {
    let copy = rig.fresh("pipe-copy");
    let made = Scratch::create(&copy, len)?;
    // Free a moment ago; nothing else on this machine binds at random.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let of = format!("of={}", copy.display());
    let listen = ["-l", "127.0.0.1", &port];
    let mut hears = quiet("nc", &listen, Stdio::null()).stdout(Stdio::piped()).spawn_as()?;
    let unpack = ["-d", "--stdout", "--quiet"];
    let mut unpacks = quiet("zstd", &unpack, hears.output()?).stdout(Stdio::piped()).spawn_as()?;
    let write = [of.as_str(), "bs=1M", "iflag=fullblock", "conv=notrunc"];
    let writes = quiet("dd", &write, unpacks.output()?).spawn_as()?;
    wait_until("nc", PATIENCE, || {
        ensure!(!hears.has_ended()?, "nc does not listen");
        Ok(is_listening(&port)?.then_some(()))
    })?;

    let began = Instant::now();
    let from = format!("if={}", disk.display());
    let read = [&[from.as_str(), "bs=1M"], more].concat();
    let mut reads = quiet("dd", &read, Stdio::null()).stdout(Stdio::piped()).spawn_as()?;
    let pack = ["-1", "--stdout", "--quiet"];
    let mut packs = quiet("zstd", &pack, reads.output()?).stdout(Stdio::piped()).spawn_as()?;
    let send = ["-N", "127.0.0.1", &port];
    let sends = quiet("nc", &send, packs.output()?).stdout(Stdio::null()).spawn_as()?;
    for process in [reads, packs, sends, hears, unpacks, writes] {
        process.finish()?;
    }
    let took = began.elapsed();
    drop(made);
    Ok(took)
}

/// `rsync --inplace --no-whole-file` from one file to an older copy of it.
pub(crate) fn rsync(from: &Path, to: &Path, more: &[&str]) -> Result<Duration> {
    let began = Instant::now();
    let mut command = Command::new("rsync");
    command.args(["--inplace", "--no-whole-file", "--ignore-times"]).args(more);
    command.arg(from).arg(to).stdin(Stdio::null());
    Process::start(&mut command)?.finish()?;
    Ok(began.elapsed())
}

/// Empties the page cache of a disk, so that each tool reads it as if for the first time.
pub(crate) fn forget_cached(disk: &Path) -> Result<()> {
    let disk = disk.to_string_lossy();
    Process::start(&mut quiet("blockdev", &["--flushbufs", &disk], Stdio::null()))?.finish()
}

/// A file that goes when this is dropped.
pub(crate) struct Scratch(std::path::PathBuf);

impl Scratch {
    /// A new file, all holes.
    pub(crate) fn create(path: &Path, len: ByteLen) -> Result<Self> {
        let file = File::create_new(path).with_context(|| format!("making {}", path.display()))?;
        let made = Self(path.into());
        file.set_len(len.0).context("sizing a file")?;
        Ok(made)
    }

    /// A copy of a file.
    pub(crate) fn copy_of(from: &Path, path: &Path) -> Result<Self> {
        let made = Self(path.into());
        std::fs::copy(from, path).with_context(|| format!("copying to {}", path.display()))?;
        Ok(made)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            eprintln!("removing {}: {error}", self.0.display());
        }
    }
}

trait SpawnAs {
    fn spawn_as(&mut self) -> Result<Process>;
}

impl SpawnAs for Command {
    fn spawn_as(&mut self) -> Result<Process> {
        Process::start(self)
    }
}

/// Whether something listens at a TCP port, without connecting to it.
fn is_listening(port: &str) -> Result<bool> {
    let Ok(port) = port.parse::<u16>() else { bail!("{port} is no port") };
    let table = std::fs::read_to_string("/proc/net/tcp").context("the table of TCP sockets")?;
    let listens = format!(":{port:04X} 00000000:0000 0A");
    Ok(table.lines().any(|line| line.contains(&listens)))
}
