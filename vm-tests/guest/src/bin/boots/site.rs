//! A target and an agent in the machine, of which the root disk is protected; and how it stops.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use vm_tests::{vm::Guest, wait_until};

/// For a command that does a little.
const SOON: Duration = Duration::from_secs(60);
/// For replication, comparison, and whole disks that are read, on a processor that is translated.
const LATER: Duration = Duration::from_secs(300);

/// Blocks of random content that are written before a stop, and after the agent has stopped.
const WRITE: &str = "for n in 1 2 3 4 5 6; do \
    busybox dd if=/dev/urandom of=/data/file$((n % 4)) bs=7k count=$((n * 9)) seek=$((n * 5)) \
        conv=notrunc 2>/dev/null || exit 1; \
    done; busybox rm -f /data/file$(($$ % 4)); busybox date > /data/last";

/// What an agent began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// What was dirty is known: the rest is left alone.
    Delta,
    /// A gap: all of the disk is compared.
    Comparison,
}

/// The machine at work, with both daemons.
pub(crate) struct Site {
    guest: Guest,
}

impl Site {
    /// Makes the store, enrols the agent, and protects the root disk.
    pub(crate) fn begin(mut guest: Guest, root: &str) -> Result<Self> {
        shell(&mut guest, "pinnace target init")?;
        start_target(&mut guest)?;
        let token = "pinnace agent enroll 127.0.0.1:7414 --token $(pinnace token create)";
        wait_until("the target", SOON, || Ok(shell(&mut guest, token).ok()))?;
        start_agent(&mut guest)?;
        let mut site = Self { guest };
        wait_until("the agent", SOON, || Ok(site.status().ok()))?;
        site.run(&format!("pinnace protect /dev/{root}"))?;
        site.prove_identical()?;
        Ok(site)
    }

    /// Starts both daemons in a machine that has been booted again.
    pub(crate) fn start(mut guest: Guest) -> Result<Self> {
        start_target(&mut guest)?;
        start_agent(&mut guest)?;
        let mut site = Self { guest };
        wait_until("the agent", SOON, || Ok(site.status().ok())).with_context(|| site.logs())?;
        Ok(site)
    }

    /// What the agent has written for the initramfs.
    pub(crate) fn plan(&mut self) -> Result<String> {
        self.run("busybox cat /var/lib/pinnace/agent/early-attach.plan")
    }

    /// What the agent began with, by its own word and by what it sent.
    pub(crate) fn found(&mut self) -> Result<Found> {
        self.settle()?;
        let disk = self.disk()?;
        let log = self.run("busybox cat /run/agent.log")?;
        let began = log.lines().find(|line| line.contains("tracked") && line.contains("coverage"));
        let began =
            began.with_context(|| format!("the agent does not say how it began:\n{log}"))?;
        let number = |path: &str| disk.pointer(path).and_then(Value::as_u64).unwrap_or_default();
        // Only a comparison finds blocks equal. What was sent says the same as what was said.
        let (equal, raw, size) =
            (number("/sent/equal"), number("/sent/raw"), number("/size_bytes"));
        match (began.contains("coverage=Complete"), equal, raw) {
            (true, 0, raw) if raw < size / 2 => Ok(Found::Delta),
            (false, equal, raw) if equal > 0 && raw >= size => Ok(Found::Comparison),
            (_, equal, raw) => bail!("{began}; {equal} bytes equal of {raw}, on a disk of {size}"),
        }
    }

    /// Compares the root disk with its replica, byte for byte. The agent may write its own state
    /// while that is done, and then it is done again; what is lost stays lost.
    pub(crate) fn prove_identical(&mut self) -> Result<()> {
        let mut differs = String::new();
        for _ in 0..10 {
            self.run("busybox sync")?;
            self.settle()?;
            let (name, base) = self.replica()?;
            // The page cache of the whole disk knows nothing of what is written to the partition.
            let compare =
                format!("echo 3 > /proc/sys/vm/drop_caches; busybox cmp /dev/{name} {base}");
            let compared = self.guest.run(&["sh", "-c", &compare], LATER)?;
            if compared.code == Some(0) {
                return Ok(());
            }
            differs = format!("{}{}", compared.out, compared.err);
        }
        bail!("the root disk and its replica differ: {}\n{}", differs.trim(), self.logs())
    }

    /// Stops everything in order: the agent first, then what still writes, then what systemd does
    /// last.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.run(WRITE)?;
        self.run(&format!("{}; {}", end("agent"), end("target")))?;
        // Nobody but the programs in the kernel sees these.
        self.run(WRITE)?;
        power_off(self.guest, "/lib/systemd/system-shutdown/pinnace.shutdown poweroff")
    }

    /// Pulls the plug while files are written.
    pub(crate) fn cut(mut self) -> Result<()> {
        let forever = format!("(while :; do {WRITE}; busybox sync; done) >/dev/null 2>&1 &");
        self.run(&forever)?;
        std::thread::sleep(Duration::from_millis(700));
        self.guest.kill()
    }

    /// What both daemons, the hooks and the kernel have said.
    pub(crate) fn logs(&mut self) -> String {
        let said = self.run("busybox cat /run/agent.log /run/target.log").unwrap_or_default();
        format!("{said}\nconsole:\n{}", self.guest.console().unwrap_or_default())
    }

    /// Waits until the replica follows and nothing is dirty.
    fn settle(&mut self) -> Result<()> {
        let mut clean = 0;
        let began = Instant::now();
        while clean < 3 {
            let disk = self.disk()?;
            let idle = disk["dirty_bytes"] == 0 && disk["in_flight_bytes"] == 0;
            clean = if idle && disk["state"] == "protected" { clean + 1 } else { 0 };
            if began.elapsed() > LATER {
                bail!("the replica does not follow: {disk}\n{}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }

    fn status(&mut self) -> Result<Value> {
        let text = self.run("pinnace status --json")?;
        serde_json::from_str(&text).context("the agent's status")
    }

    /// The status of the root disk, the only one that is protected.
    fn disk(&mut self) -> Result<Value> {
        let status = self.status()?;
        status["disks"].get(0).cloned().with_context(|| format!("no disk is protected: {status}"))
    }

    /// The name of the root disk in this boot, and where its replica lies.
    fn replica(&mut self) -> Result<(String, String)> {
        let name = self.disk()?["name"].as_str().context("a disk has a name")?.to_owned();
        let target: Value = serde_json::from_str(&self.run("pinnace target status --json")?)?;
        let base = target.pointer("/disks/0/base").and_then(Value::as_str);
        Ok((name, base.with_context(|| format!("no replica: {target}"))?.to_owned()))
    }

    fn run(&mut self, script: &str) -> Result<String> {
        shell(&mut self.guest, script)
    }
}

/// A boot of a system that knows nothing of Pinnace, and writes one small file.
pub(crate) fn write_as_another(mut guest: Guest) -> Result<()> {
    shell(&mut guest, "busybox date > /data/another")?;
    power_off(guest, ":")
}

/// Unmounts what can be unmounted, mounts the root for reading, and runs what systemd would run then.
fn power_off(mut guest: Guest, last: &str) -> Result<()> {
    shell(&mut guest, "busybox umount /srv && busybox mount -o remount,ro /")?;
    let closed = shell(&mut guest, last)?;
    ensure!(last == ":" || closed.contains(": closed, with"), "the log stays open: {closed}");
    shell(&mut guest, "busybox poweroff -f -d 1 &")?;
    guest.wait_off(SOON)
}

fn start_target(guest: &mut Guest) -> Result<()> {
    shell(guest, "pinnace target run >/run/target.log 2>&1 & echo $! > /run/target.pid").map(drop)
}

fn start_agent(guest: &mut Guest) -> Result<()> {
    shell(guest, "pinnace agent run >/run/agent.log 2>&1 & echo $! > /run/agent.pid").map(drop)
}

/// Tells a daemon to end, and waits until it has.
fn end(daemon: &str) -> String {
    format!(
        "busybox kill $(busybox cat /run/{daemon}.pid); \
         while [ -d /proc/$(busybox cat /run/{daemon}.pid) ]; do busybox sleep 0.1; done"
    )
}

fn shell(guest: &mut Guest, script: &str) -> Result<String> {
    guest.check(&["sh", "-c", script], LATER)
}
