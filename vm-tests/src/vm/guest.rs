//! A guest at work: booted, asked to run commands, ended.
//!
//! The host listens, QEMU connects the guest's second serial port. A guest that says nothing is
//! ended after a limit, and so is one whose owner drops it; a killed run's is swept by the next rig.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Accelerator, MachineSpec, Userland,
    protocol::{Ended, Reply, Request},
};
use crate::{Daemon, DaemonSpec, Rig, wait_until};

/// How often a guest that says nothing is looked after.
const LOOK: Duration = Duration::from_millis(200);

/// How much longer than a command's own limit its answer may take: the guest kills it.
const GRACE: Duration = Duration::from_secs(30);

/// A running machine. Dropped, it is ended as by a pulled plug: its disks keep what QEMU had.
pub struct Guest {
    qemu: Daemon,
    console: PathBuf,
    port: BufReader<UnixStream>,
    release: String,
}

impl Guest {
    /// Boots a machine, and waits for at most `limit` until the guest is up.
    pub fn boot(
        rig: &Rig,
        userland: &Userland,
        accelerator: Accelerator,
        spec: &MachineSpec,
        limit: Duration,
    ) -> Result<Self> {
        let (console, socket) = (rig.fresh("console"), rig.fresh("port"));
        let listener = UnixListener::bind(&socket).context("a socket for the guest's port")?;
        listener.set_nonblocking(true)?;
        let (program, mut arguments) = userland.through_loader("qemu-system-x86_64")?;
        for directory in ["usr/share/qemu", "usr/share/seabios"] {
            arguments.extend(["-L".to_owned(), userland.path(directory).display().to_string()]);
        }
        arguments.extend(spec.arguments(accelerator, &console, &socket));
        let modules = userland.path("usr/lib/x86_64-linux-gnu/qemu").display().to_string();
        let variables = vec![("QEMU_MODULE_DIR".to_owned(), modules)];
        let daemon = DaemonSpec { name: "qemu".to_owned(), program, arguments, variables };
        let mut qemu = Daemon::start(rig, daemon)?;
        let stream = wait_until("QEMU", Duration::from_secs(30), || {
            if let Some(status) = qemu.ended()? {
                bail!("QEMU did not start ({status}): {}", qemu.log()?.trim());
            }
            match listener.accept() {
                Ok((stream, _)) => Ok(Some(stream)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error).context("accepting the guest's port"),
            }
        })?;
        fs::remove_file(&socket).context("removing the socket of a port")?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(LOOK))?;
        let port = BufReader::new(stream);
        let mut guest = Self { qemu, console, port, release: String::new() };
        match guest.reply(limit).context("waiting for the guest to come up")? {
            Reply::Ready { release } => guest.release = release,
            Reply::Ended(_) => bail!("the guest answered before it was up"),
        }
        Ok(guest)
    }

    /// The release of its kernel.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Runs a program in the guest; after `limit` the guest kills it.
    pub fn run(&mut self, command: &[&str], limit: Duration) -> Result<Ended> {
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        let described = command.join(" ");
        let request = Request { command, limit_s: limit.as_secs() };
        let mut line = serde_json::to_string(&request).context("writing a request")?;
        line.push('\n');
        self.port.get_mut().write_all(line.as_bytes()).context("asking the guest")?;
        match self.reply(limit + GRACE).with_context(|| described.clone())? {
            Reply::Ended(ended) => Ok(ended),
            Reply::Ready { .. } => bail!("the guest started anew during {described}"),
        }
    }

    /// The same, and fails with what the program said unless it succeeds; what it printed.
    pub fn check(&mut self, command: &[&str], limit: Duration) -> Result<String> {
        let ended = self.run(command, limit)?;
        let described = command.join(" ");
        ensure!(ended.code == Some(0), "{described} ({:?}): {}", ended.code, ended.err.trim());
        Ok(ended.out)
    }

    /// What its kernel said on the console.
    pub fn console(&self) -> Result<String> {
        let bytes = fs::read(&self.console).context("reading a guest's console")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// QEMU's process.
    pub fn process(&self) -> Option<u32> {
        self.qemu.id()
    }

    /// Kills the machine where it is. What the guest wrote is in the files of its disks, since QEMU
    /// has written it there; for a power cut, something must be left out afterwards.
    pub fn kill(mut self) -> Result<()> {
        self.qemu.kill_9()
    }

    /// Waits until the machine has switched itself off, or rebooted, which ends it too.
    pub fn wait_off(mut self, limit: Duration) -> Result<()> {
        let status = wait_until("the guest to switch itself off", limit, || self.qemu.ended())?;
        ensure!(status.success(), "QEMU ended with {status}: {}", self.qemu.log()?.trim());
        Ok(())
    }

    fn reply(&mut self, limit: Duration) -> Result<Reply> {
        let (mut line, began) = (Vec::new(), Instant::now());
        loop {
            match self.port.read_until(b'\n', &mut line) {
                Ok(0) => bail!("the guest ended. Its console's end:\n{}", self.console_end()?),
                Ok(_) if line.ends_with(b"\n") => {
                    // Firmware and early boot may have left something on the line.
                    if let Ok(reply) = serde_json::from_slice(&line) {
                        return Ok(reply);
                    }
                    line.clear();
                }
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).context("hearing the guest"),
            }
            if began.elapsed() >= limit {
                let end = self.console_end()?;
                bail!(
                    "the guest said nothing for {} s. Its console's end:\n{end}",
                    limit.as_secs()
                );
            }
        }
    }

    fn console_end(&self) -> Result<String> {
        let console = self.console()?;
        let lines: Vec<&str> = console.lines().collect();
        Ok(lines[lines.len().saturating_sub(30)..].join("\n"))
    }
}
