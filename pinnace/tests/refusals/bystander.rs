//! A site at work, and the disk that must not suffer from what is refused.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use vm_tests::{Bursts, EVERY_METHOD, Rig, Site, SiteSpec, Target, ZramDisk, fill};

pub(crate) const PINNACE: &str = env!("CARGO_BIN_EXE_pinnace");
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

const DISK: ByteLen = ByteLen(64 << 20);
const IN_USE: ByteLen = ByteLen(16 << 20);

/// A site with a store at `store`, or in the rig.
pub(crate) fn site(rig: &Rig, store: Option<&Path>) -> Result<Site> {
    let agent_settings = "interval = \"300ms\"\nsegment = \"16 MiB\"\n".into();
    let spec = SiteSpec { agent_settings, store: store.map(Path::to_owned), ..SiteSpec::default() };
    Site::start_program(Path::new(PINNACE), rig, &spec)
}

/// A protected disk in use.
pub(crate) struct Bystander {
    // Dropped before its disk.
    writers: Option<Bursts>,
    pub(crate) disk: ZramDisk,
}

impl Bystander {
    /// A disk with content. To be made before the site, and so dropped after it.
    pub(crate) fn create(rig: &Rig) -> Result<Self> {
        let disk = ZramDisk::create(rig, DISK)?;
        fill(rig, &Target::whole(0, &disk), 40)?;
        Ok(Self { writers: None, disk })
    }

    /// Protects it and puts it to use.
    pub(crate) fn begin(&mut self, rig: &Rig, site: &Site) -> Result<()> {
        site.protect(&self.disk, PATIENCE)?;
        let target = Target::whole(0, &self.disk).front(IN_USE);
        self.writers = Some(Bursts::start(rig, target, EVERY_METHOD, 41)?);
        Ok(())
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.disk.name()
    }

    /// Fails unless its replica follows still, and is the same in the end.
    pub(crate) fn end_with_gaps(&mut self, site: &Site) -> Result<()> {
        site.wait_for_epochs(self.name(), 2, PATIENCE)?;
        if let Some(writers) = self.writers.take() {
            writers.stop()?;
        }
        site.prove(&self.disk, PATIENCE)
    }

    /// The same, and it must not have had a gap.
    pub(crate) fn end(mut self, site: &Site) -> Result<()> {
        self.end_with_gaps(site)?;
        let status = site.disk(self.name())?;
        ensure!(status["tracking"]["gaps"] == 0, "it had a gap: {status}");
        Ok(())
    }
}

/// Fails unless a command ended with this exit code and said all these words.
pub(crate) fn refused(output: &Output, exit: i32, words: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(exit), "{} instead of {exit}: {said}", output.status);
    for word in words {
        ensure!(said.contains(word), "{word:?} is not in: {said}");
    }
    ensure!(said.starts_with("pinnace: ") && !said.contains("panicked"), "{said}");
    Ok(())
}

/// The most memory that a process ever had, in KiB.
pub(crate) fn memory_peak(id: Option<u32>) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", id.context("it runs")?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.context("a process has a peak of memory")
}
