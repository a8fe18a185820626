//! A machine that was taken over, and strangers: more than sixty attacks on a target that serves
//! others meanwhile. Each is refused in the way that its table says, and after each the target is
//! the same process, has not needed more memory than it may, and holds every byte that it held.

mod attacker;
mod epochs;
mod floods;
mod frames;
mod strangers;
mod words;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use blocks::DiskId;
use vm_tests::{Rig, Site};

use crate::bystander::{Bystander, memory_peak, site};
use attacker::Attacker;

/// What a target may need at most, in KiB: the 512 MiB of frames that one connection may have
/// waiting, and the runtime, the pipelines and QUIC's windows of a few connections beside them.
const MEMORY_MAX_KIB: u64 = 640 << 10;

/// What an attacker does; it fails if the target answers otherwise than it should.
type Strike = dyn Fn(&mut Attacker<'_>) -> Result<()>;

/// One attack, by its name in a table.
struct Attack {
    name: &'static str,
    run: Box<Strike>,
}

fn attack(name: &'static str, run: impl Fn(&mut Attacker<'_>) -> Result<()> + 'static) -> Attack {
    Attack { name, run: Box::new(run) }
}

/// A target under attack, and what must not suffer.
struct Stage<'a> {
    site: &'a Site,
    id: Option<u32>,
    /// The replica of the attacker's own disk, and what it holds.
    kept: (PathBuf, Vec<u8>),
}

impl<'a> Stage<'a> {
    fn set(site: &'a Site, attacker: &mut Attacker<'_>) -> Result<Self> {
        let path = attacker.keep_a_disk()?;
        let content = fs::read(&path).context("reading a replica")?;
        ensure!(content.iter().any(|byte| *byte != 0), "there is nothing to lose");
        Ok(Self { site, id: site.target.id(), kept: (path, content) })
    }

    /// Fails unless the target is as it was.
    fn is_unharmed(&self) -> Result<()> {
        ensure!(self.site.target.id() == self.id, "the target is another process");
        let peak = memory_peak(self.site.target.id())?;
        ensure!(peak < MEMORY_MAX_KIB, "the target needed {peak} KiB");
        let (path, content) = &self.kept;
        ensure!(fs::read(path)? == *content, "a replica has changed");
        let log = self.site.target.log()?;
        ensure!(!log.contains("panicked"), "{log}");
        Ok(())
    }
}

/// Runs attacks against a target that has a bystander to serve, whose replica must follow and be
/// its disk, byte for byte, in the end. The attacker knows the bystander's disk by its identity.
fn withstands(attacks: impl FnOnce(DiskId) -> Vec<Attack>) -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut bystander = Bystander::create(&rig)?;
    let site = site(&rig, None)?;
    bystander.begin(&rig, &site)?;
    let others = site.disk(bystander.name())?["id"].as_str().context("an identity")?.parse()?;
    let mut attacker = Attacker::enrolled(&rig, &site)?;
    let stage = Stage::set(&site, &mut attacker)?;
    for Attack { name, run } in attacks(others) {
        run(&mut attacker)
            .and_then(|()| stage.is_unharmed())
            .with_context(|| format!("{name}\n{}", site.logs()))?;
    }
    println!("the target needed {} KiB at most", memory_peak(site.target.id())?);
    bystander.end(&site).with_context(|| site.logs())
}
