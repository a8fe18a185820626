//! A site whose disks are written to, and the judgement of every point it has made.

use std::io::Cursor;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use blocks::{ByteLen, ChunkSize, DiskId, Geometry, PointRecord};
use oracle::{Initial, Verdict, Window};
use replica::{PointStatus, Store};
use serde_json::Value;
use vm_tests::{
    BlockDevice, Image, LoopDisk, LoopSpec, PointChecker, PointLoad, PointLoadSpec, ReadAnywhere,
    Rig, Site, SiteSpec, Target, WriteLog, ZramDisk, wait_until,
};

/// Small enough that every block is rewritten again and again.
pub(crate) const CONTENDED: ByteLen = ByteLen(16 << 20);
/// Long enough for anything here on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const WRITES_MAX: usize = 4_000_000;

/// Points every second and nothing between them.
const SETTINGS: &str = "interval = \"1h\"\ndirty_threshold_percent = 100\n";

/// A disk of either class, for as long as it is held.
pub(crate) type Held = Box<dyn Deref<Target = BlockDevice>>;

/// A site with disks, protected.
pub(crate) struct Protected {
    pub(crate) site: Site,
    pub(crate) disks: Vec<Held>,
    ids: Vec<DiskId>,
    log: Arc<WriteLog>,
}

/// A point of the store, with its content.
pub(crate) struct Point {
    pub(crate) record: PointRecord,
    status: PointStatus,
    /// In the order of the disks; none of a disk that did not follow at the time.
    images: Vec<Option<Vec<u8>>>,
}

impl Protected {
    /// So many zram disks.
    pub(crate) fn start(rig: &Rig, disks: usize, policy: &str) -> Result<Self> {
        let disks: Result<Vec<Held>> = (0..disks).map(|_| zram(rig, CONTENDED)).collect();
        Self::start_with(rig, disks?, policy, &[])
    }

    /// Any disks, with variables of the agent's environment.
    pub(crate) fn start_with(
        rig: &Rig,
        disks: Vec<Held>,
        policy: &str,
        variables: &[(String, String)],
    ) -> Result<Self> {
        let settings = format!("{SETTINGS}[policy]\n{policy}\n");
        let agent_variables = variables.to_vec();
        let spec = SiteSpec { agent_settings: settings, agent_variables, store: None };
        let program = Path::new(env!("CARGO_BIN_EXE_pinnace"));
        let site = Site::start_program(program, rig, &spec)?;
        let mut ids = Vec::new();
        for disk in &disks {
            site.protect(disk, PATIENCE)?;
            let id = site.disk(disk.name())?["id"].as_str().unwrap_or_default().parse();
            ids.push(id.context("a disk's identity")?);
        }
        let log = Arc::new(WriteLog::create(&rig.fresh("log"), WRITES_MAX)?);
        Ok(Self { site, disks, ids, log })
    }

    /// Starts to write to all disks.
    pub(crate) fn load(&self, spec: PointLoadSpec) -> Result<PointLoad> {
        let target = |(number, disk): (u32, &Held)| Target::whole(number, disk);
        let targets: Vec<Target> = (0..).zip(&self.disks).map(target).collect();
        PointLoad::start(&targets, spec, &self.log)
    }

    /// Waits until so many more points are durable.
    pub(crate) fn wait_for_points(&self, points: u64) -> Result<Value> {
        let made = |status: &Value| status["points"]["made"].as_u64().unwrap_or_default();
        let before = made(&self.site.status()?);
        wait_until(&format!("{points} points"), PATIENCE, || {
            let status = self.site.status()?;
            Ok((made(&status) >= before + points).then_some(status))
        })
        .with_context(|| self.site.logs())
    }

    /// Waits until the newest point of every disk is confirmed.
    pub(crate) fn wait_until_confirmed(&self) -> Result<()> {
        wait_until("points to be confirmed", PATIENCE, || {
            for disk in &self.disks {
                if self.site.disk(disk.name())?["last_point"]["confirmed"] != true {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .with_context(|| self.site.logs())
    }

    /// Every point that the store holds whole, once both daemons have ended.
    pub(crate) fn points(&mut self) -> Result<Vec<Point>> {
        let logs = self.site.logs();
        self.site.agent.stop(PATIENCE)?;
        self.site.target.stop(PATIENCE)?;
        let store =
            Store::open(&self.site.store().join("replicas")).context("opening the store")?;
        let mut points = Vec::new();
        let machines = store.machines();
        ensure!(machines.len() == 1, "one machine in the store: {machines:?}\n{logs}");
        for point in machines.iter().flat_map(|machine| store.points(*machine)) {
            if !point.is_there() {
                continue;
            }
            let image = |id: &DiskId| -> Result<Option<Vec<u8>>> {
                let found = point.disks.iter().find(|(disk, _)| disk == id);
                let Some((_, of_disk)) = found else { return Ok(None) };
                let view = store.history(*id)?.view_retracted(of_disk.epoch)?;
                let mut bytes = vec![0; usize::try_from(view.geometry().len().0)?];
                view.read_at(0, &mut bytes)?;
                Ok(Some(bytes))
            };
            let images = self.ids.iter().map(image).collect::<Result<_>>()?;
            points.push(Point { record: point.record, status: point.status(), images });
        }
        ensure!(!points.is_empty(), "the store holds no point\n{logs}");
        Ok(points)
    }

    /// Judges points by what the writers logged, each at its very instant.
    pub(crate) fn judge(&self, points: &[Point]) -> Result<Verdicts> {
        let geometry =
            |(number, disk): (u32, &Held)| Ok((number, disk.geometry(ChunkSize::DEFAULT)?));
        let geometries: Vec<(u32, Geometry)> =
            (0..).zip(&self.disks).map(geometry).collect::<Result<_>>()?;
        let checker = PointChecker::new(&self.log, &geometries, Initial::Zeroes)?;
        let mut verdicts = Verdicts::default();
        for point in points {
            let images: Option<Vec<&Vec<u8>>> = point.images.iter().map(Option::as_ref).collect();
            let Some(images) = images else {
                verdicts.of_some_disks += 1;
                continue;
            };
            let mut images: Vec<_> = images.into_iter().map(Cursor::new).collect();
            let images = (0..).zip(&mut images);
            let mut images: Vec<(u32, &mut dyn ReadAnywhere)> =
                images.map(|(number, image)| (number, image as &mut dyn ReadAnywhere)).collect();
            let window = Window::at(point.record.cut.monotonic);
            verdicts.add(point, checker.judge(&mut images, window)?.verdict);
        }
        Ok(verdicts)
    }
}

/// A zram disk.
pub(crate) fn zram(rig: &Rig, len: ByteLen) -> Result<Held> {
    Ok(Box::new(ZramDisk::create(rig, len)?))
}

/// A loop disk.
pub(crate) fn looped(rig: &Rig, len: ByteLen) -> Result<Held> {
    Ok(Box::new(LoopDisk::create(rig, LoopSpec::new(len))?))
}

impl Point {
    /// Fails unless the disks, which are no longer written to, hold what the point holds.
    pub(crate) fn ensure_equals(&self, disks: &[Held]) -> Result<()> {
        for (disk, image) in disks.iter().zip(&self.images) {
            let image = image.as_ref().with_context(|| format!("{} is not in it", disk.name()))?;
            let now = Image::read(disk.path())?;
            let differs = now.bytes().iter().zip(image).position(|(now, then)| now != then);
            ensure!(differs.is_none(), "{} differs at byte {differs:?}", disk.name());
        }
        Ok(())
    }
}

/// What points are worth.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    pub(crate) valid: usize,
    pub(crate) invalid: Vec<String>,
    /// Not relied on, whatever they hold.
    pub(crate) retracted: usize,
    /// Made while one of the disks did not follow, and not judged.
    pub(crate) of_some_disks: usize,
}

impl Verdicts {
    fn add(&mut self, point: &Point, verdict: Verdict) {
        match verdict {
            _ if matches!(point.status, PointStatus::Retracted(_)) => self.retracted += 1,
            Verdict::Valid(_) => self.valid += 1,
            Verdict::Invalid(why) => self.invalid.push(format!("{:?}: {why}", point.record)),
        }
    }

    /// Adds those of other points.
    pub(crate) fn add_all(&mut self, other: Self) {
        self.valid += other.valid;
        self.invalid.extend(other.invalid);
        self.retracted += other.retracted;
        self.of_some_disks += other.of_some_disks;
    }

    /// Fails if one that is relied on is invalid.
    pub(crate) fn ensure_none_is_invalid(&self) -> Result<()> {
        match self.invalid.first() {
            None => Ok(()),
            Some(first) => bail!(
                "{} of {} points are invalid: {first}",
                self.invalid.len(),
                self.valid + self.invalid.len()
            ),
        }
    }

    /// Fails unless all are valid.
    pub(crate) fn ensure_valid(&self) -> Result<()> {
        self.ensure_none_is_invalid()?;
        let Self { retracted, of_some_disks, .. } = self;
        ensure!(*retracted == 0, "{retracted} points are retracted");
        ensure!(*of_some_disks == 0, "{of_some_disks} points are not of all disks");
        Ok(())
    }
}
