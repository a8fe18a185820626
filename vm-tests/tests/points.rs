//! The harness that judges recovery points: it accepts what is one instant and has the power to
//! refuse what is not.

use std::{io::Cursor, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use blocks::{ByteLen, ChunkSize, Geometry};
use oracle::{Initial, Limits, Published, RunChecker, Verdict, Window, check, check_chains};
use vm_tests::{
    Image, PointChecker, PointLoad, PointLoadSpec, Rate, Rig, Target, WriteLog, ZramDisk,
    monotonic_now,
};

/// Small, so that at full speed every block is rewritten many times a second.
const CONTENDED: ByteLen = ByteLen(16 << 20);
const WRITES_MAX: usize = 10_000_000;
const POINTS: u32 = 10;

struct Setup {
    disks: Vec<ZramDisk>,
    log: Arc<WriteLog>,
}

impl Setup {
    fn new(rig: &Rig, disks: usize) -> Result<Self> {
        let disks = (0..disks).map(|_| ZramDisk::create(rig, CONTENDED)).collect::<Result<_>>()?;
        let log = Arc::new(WriteLog::create(&rig.fresh("log"), WRITES_MAX)?);
        Ok(Self { disks, log })
    }

    fn targets(&self) -> Vec<Target> {
        (0..).zip(&self.disks).map(|(number, disk)| Target::whole(number, disk)).collect()
    }

    fn geometries(&self) -> Result<Vec<(u32, Geometry)>> {
        let geometry =
            |(number, disk): (u32, &ZramDisk)| Ok((number, disk.geometry(ChunkSize::DEFAULT)?));
        (0..).zip(&self.disks).map(geometry).collect()
    }

    fn images(&self) -> Result<Vec<Image>> {
        self.disks.iter().map(|disk| Image::read(disk.path())).collect()
    }

    fn checker(&self) -> Result<PointChecker> {
        PointChecker::new(&self.log, &self.geometries()?, Initial::Zeroes)
    }
}

fn numbered(images: &[Image]) -> Vec<(u32, &Image)> {
    (0..).zip(images).collect()
}

/// The streams of the load that makes point number `point`.
fn spec(rate: Rate, point: u32) -> PointLoadSpec {
    let spec = PointLoadSpec::new(rate);
    PointLoadSpec { first_stream: point * spec.streams(), seed: u64::from(point) + 1, ..spec }
}

#[test]
fn points_of_disks_at_rest_are_valid() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let setup = Setup::new(&rig, 2)?;
    let started = monotonic_now();
    let mut points = Vec::new();
    for point in 0..POINTS {
        let load = PointLoad::start(&setup.targets(), spec(Rate::Full, point), &setup.log)?;
        std::thread::sleep(Duration::from_millis(200));
        load.stop()?;
        let requested = monotonic_now();
        let images = setup.images()?;
        let published = monotonic_now();
        // At rest any instant is as good as the next; it is the first one that is claimed.
        points.push((Published { requested, window: Window::at(requested), published }, images));
    }
    let checker = setup.checker()?;
    let limits = Limits { window: Duration::ZERO, age: Duration::from_secs(10) };
    let mut run = RunChecker::new(checker.history(), limits, started);
    for (point, images) in &points {
        let judged = checker.judge_images(&numbered(images), point.window)?;
        let chains = judged.chains.context("no chain is broken")?;
        ensure!(chains.chains > 2 && chains.shown > 100, "the chains show little: {chains:?}");
        let feasible = judged.verdict.into_result()?;
        run.point(*point, &feasible)?;
    }
    let report = run.finish(monotonic_now())?;
    println!("{report:?}, {} writes", checker.history().len());
    ensure!(checker.history().len() > 10_000, "{} writes", checker.history().len());

    // And the harness can tell the points apart: each is invalid at the time of the next.
    for pair in points.windows(2) {
        let judged = checker.judge_images(&numbered(&pair[0].1), pair[1].0.window)?;
        ensure!(matches!(judged.verdict, Verdict::Invalid(_)), "an old point passed as a new one");
    }
    Ok(())
}

#[test]
fn reading_while_others_write_is_no_point() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let setup = Setup::new(&rig, 1)?;
    let load = PointLoad::start(&setup.targets(), spec(Rate::Full, 0), &setup.log)?;
    std::thread::sleep(Duration::from_millis(200));
    let mut fuzzy = Vec::new();
    for _ in 0..POINTS {
        fuzzy.push(setup.images()?);
    }
    let report = load.stop()?;
    let checker = setup.checker()?;
    let (mut broken, mut impossible) = (0, 0);
    for images in &fuzzy {
        let mut image = Cursor::new(images[0].bytes());
        let observed = PointChecker::observe(checker.history().layout(), &mut [(0, &mut image)])?;
        let broken_chain = check_chains(checker.history(), &observed).err();
        // Whatever instant would be claimed: it is none. Each rule has that power by itself.
        let no_instant = check(checker.history(), &observed, Window::ANY).into_result().err();
        for (count, reason) in [(&mut broken, broken_chain), (&mut impossible, no_instant)] {
            let Some(reason) = reason else { continue };
            if *count == 0 {
                println!("{reason}");
            }
            *count += 1;
        }
    }
    println!("of {POINTS}: {broken} by the chains, {impossible} by the check; {report:?}");
    ensure!(broken + 1 >= POINTS && impossible + 1 >= POINTS, "no power: {broken}, {impossible}");
    Ok(())
}

#[test]
fn a_paced_load_keeps_its_rate() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let setup = Setup::new(&rig, 1)?;
    let rate = Rate::PerSecond(ByteLen(20 << 20));
    let spec = PointLoadSpec { log_tail: false, ..spec(rate, 0) };
    let load = PointLoad::start(&setup.targets(), spec, &setup.log)?;
    std::thread::sleep(Duration::from_secs(1));
    let report = load.stop()?;
    // A busy machine may be late; nothing makes it early by more than one write a writer.
    ensure!(report.bytes < 21 << 20 && report.bytes > 8 << 20, "{report:?}");
    let kinds = setup.log.records();
    let unique = kinds.iter().filter(|record| record.issue.kind == oracle::WriteKind::Data).count();
    ensure!(unique * 100 >= kinds.len() * 95, "{unique} of {} are unique", kinds.len());
    Ok(())
}
