//! A site with a stamped disk: its writers log what they do, so that its points can be judged.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blocks::{ByteLen, DiskId};
use replica::{MachinePoint, Store};
use vm_tests::{
    BlockDevice, PointLoad, PointLoadSpec, Rig, Site, SiteSpec, Target, WriteLog, ZramDisk,
    monotonic_now, wait_until,
};

/// Long enough for anything here on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const WRITES_MAX: usize = 8_000_000;

/// A site and its stamped disk, protected.
pub(crate) struct Stage {
    pub(crate) site: Site,
    pub(crate) disk: ZramDisk,
    pub(crate) id: DiskId,
    pub(crate) log: Arc<WriteLog>,
}

/// How a stage is set.
pub(crate) struct Setting<'a> {
    /// The agent.
    pub(crate) program: &'a Path,
    /// Lines of its configuration.
    pub(crate) settings: &'a str,
    /// A mistake that it is to make.
    pub(crate) mistake: Option<&'a str>,
    /// The length of the stamped disk.
    pub(crate) len: ByteLen,
}

impl Stage {
    pub(crate) fn set(rig: &Rig, setting: &Setting<'_>) -> Result<Self> {
        let disk = ZramDisk::create(rig, setting.len)?;
        let mistake = |name: &&str| ("PINNACE_CUT_MISTAKE".to_owned(), (*name).to_owned());
        let spec = SiteSpec {
            agent_settings: setting.settings.into(),
            agent_variables: setting.mistake.as_ref().map(mistake).into_iter().collect(),
            ..SiteSpec::default()
        };
        let site = Site::start_program(setting.program, rig, &spec)?;
        let id = protect(&site, &disk)?;
        let log = Arc::new(WriteLog::create(&rig.fresh("log"), WRITES_MAX)?);
        Ok(Self { site, disk, id, log })
    }

    /// Starts to write to all of the stamped disk.
    pub(crate) fn load(&self, spec: PointLoadSpec) -> Result<PointLoad> {
        PointLoad::start(&[Target::whole(0, &self.disk)], spec, &self.log)
    }

    /// How many points were made and refused so far.
    pub(crate) fn counts(&self) -> Result<Counts> {
        let status = self.site.status()?;
        let count = |name: &str| status["points"][name].as_u64().unwrap_or_default();
        Ok(Counts { made: count("made"), refused: count("refused") })
    }

    /// Waits a while for the newest point of a disk to be confirmed; it may never be.
    pub(crate) fn await_confirmation(&self, disk: &BlockDevice) -> Result<bool> {
        let confirmed = wait_until("confirmation", Duration::from_secs(10), || {
            let confirmed = self.site.disk(disk.name())?["last_point"]["confirmed"] == true;
            Ok(confirmed.then_some(()))
        });
        Ok(confirmed.is_ok())
    }

    /// Ends both daemons and opens the store that they leave.
    pub(crate) fn store(&mut self) -> Result<Store> {
        self.site.agent.stop(PATIENCE)?;
        self.site.target.stop(PATIENCE)?;
        Store::open(&self.site.store().join("replicas")).context("opening the store")
    }
}

/// Points made and refused.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) made: u64,
    pub(crate) refused: u64,
}

/// Protects a disk, and waits until its replica follows: its identity.
pub(crate) fn protect(site: &Site, disk: &BlockDevice) -> Result<DiskId> {
    site.protect(disk, PATIENCE)?;
    let id = site.disk(disk.name())?["id"].as_str().unwrap_or_default().parse();
    id.context("a disk's identity")
}

/// Every point that the store holds whole, with a cut at `since` or later.
pub(crate) fn points(store: &Store, since: blocks::MonotonicNs) -> Result<Vec<MachinePoint>> {
    let machines = store.machines();
    ensure!(machines.len() == 1, "one machine in the store: {machines:?}");
    let mut points = store.points(machines[0]);
    points.retain(|point| point.is_there() && point.record.cut.monotonic >= since);
    Ok(points)
}

/// Now, by the clock of cuts.
pub(crate) fn now() -> blocks::MonotonicNs {
    monotonic_now()
}
