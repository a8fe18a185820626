//! The oracles agree with each other, and notice what they are there to notice.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use blocks::{Bitmap, ByteLen, ChunkSize, Extent, Geometry, SECTOR_SIZE, Sector};
use vm_tests::{
    After, BlockDevice, Image, Load, LoopDisk, LoopSpec, Method, Outcome, Partition, Record, Rig,
    Stamp, Target, WriteLog, Writer, ZramDisk,
};

const MIB: u64 = 1 << 20;

struct Observed {
    log: Arc<WriteLog>,
    after: Image,
    changed: Bitmap,
    geometry: Geometry,
}

impl Observed {
    fn logged(&self) -> Bitmap {
        self.log.chunks(0, &self.geometry)
    }

    /// Chunks that changed although no logged write touched them.
    fn unexplained(&self, records: &[Record]) -> u64 {
        let mut unexplained = self.changed.clone();
        unexplained.subtract(&Record::chunks(records, 0, &self.geometry));
        unexplained.count()
    }
}

fn load(method: Method, seed: u64, smallest: u64) -> Load {
    let writes = if method == Method::Mapped { 60 } else { 200 };
    Load {
        method,
        seed,
        smallest: ByteLen(smallest),
        largest: ByteLen(4 * MIB),
        after: After::Writes(writes),
    }
}

/// Runs the loads one after the other on `target`, a part or the whole of `disk`.
fn observe(rig: &Rig, disk: &BlockDevice, target: &Target, methods: &[Method]) -> Result<Observed> {
    let geometry = disk.geometry(ChunkSize::DEFAULT)?;
    let log = Arc::new(WriteLog::create(&rig.fresh("log"), 10_000)?);
    let before = Image::read(disk.path())?;
    for (stream, method) in (0..).zip(methods) {
        let load = load(*method, u64::from(stream) + 1, u64::from(target.logical_block));
        let report = Writer::start(target, stream, load, &log)?.finish()?;
        ensure!(report.writes >= 60, "{method:?}: {report:?}");
    }
    let after = Image::read(disk.path())?;
    let changed = before.changed_chunks(&after, &geometry);
    Ok(Observed { log, after, changed, geometry })
}

#[test]
fn the_log_equals_the_difference_on_zram() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    for method in [Method::Direct, Method::Buffered, Method::Mapped, Method::Ring] {
        let disk = ZramDisk::create(&rig, ByteLen(64 * MIB))?;
        let observed = observe(&rig, &disk, &Target::whole(0, &disk), &[method])?;
        ensure!(observed.changed == observed.logged(), "{method:?}: the sets differ");
    }
    Ok(())
}

#[test]
fn the_log_equals_the_difference_on_a_loop_of_small_blocks() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    for method in [Method::Direct, Method::Buffered, Method::Mapped, Method::Ring] {
        let disk = LoopDisk::create(&rig, LoopSpec::new(ByteLen(32 * MIB)))?;
        let observed = observe(&rig, &disk, &Target::whole(0, &disk), &[method])?;
        ensure!(observed.changed == observed.logged(), "{method:?}: the sets differ");
    }
    Ok(())
}

#[test]
fn erasing_changes_nothing_outside_of_the_log() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(ByteLen(32 * MIB)))?;
    observe(&rig, &disk, &Target::whole(0, &disk), &[Method::Direct])?;
    for method in [Method::Discard, Method::ZeroOut] {
        let observed = observe(&rig, &disk, &Target::whole(0, &disk), &[method, Method::Direct])?;
        ensure!(observed.unexplained(&observed.log.records()) == 0, "{method:?}");
        ensure!(!observed.changed.is_empty(), "{method:?} did nothing");
    }
    Ok(())
}

#[test]
fn a_partition_is_logged_where_it_lies_on_the_disk() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(ByteLen(32 * MIB)))?;
    let extent = Extent { start: Sector(2056), sectors: 16384 };
    let partition = Partition::create(&disk, 1, extent)?;
    let target = Target::partition(0, &partition);
    let observed = observe(&rig, &disk, &target, &[Method::Direct, Method::Buffered])?;
    ensure!(observed.changed == observed.logged(), "the sets differ");
    let inside = observed.geometry.chunks_of(extent);
    let first = observed.changed.runs().next().context("something changed")?;
    ensure!(first.start >= inside.start, "{first:?} lies before {inside:?}");
    Ok(())
}

#[test]
fn a_dropped_record_is_noticed() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = ZramDisk::create(&rig, ByteLen(64 * MIB))?;
    let target = Target::whole(0, &disk);
    let log = Arc::new(WriteLog::create(&rig.fresh("log"), 100)?);
    let before = Image::read(disk.path())?;
    let load = Load {
        method: Method::Direct,
        seed: 5,
        smallest: ByteLen(4096),
        largest: ByteLen(65536),
        after: After::Writes(20),
    };
    Writer::start(&target, 0, load, &log)?.finish()?;
    let after = Image::read(disk.path())?;
    let geometry = disk.geometry(ChunkSize::DEFAULT)?;
    let changed = before.changed_chunks(&after, &geometry);
    let observed = Observed { log, after, changed, geometry };

    let records = observed.log.records();
    ensure!(observed.unexplained(&records) == 0, "nothing was dropped yet");
    let noticed = (0..records.len()).filter(|dropped| {
        let mut others = records.clone();
        others.remove(*dropped);
        observed.unexplained(&others) > 0
    });
    // 20 small writes on 64 MiB: hardly any lies wholly below the others.
    ensure!(noticed.count() >= 18, "dropped records go unnoticed");
    Ok(())
}

#[test]
fn every_sector_holds_the_last_write_of_the_log() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(ByteLen(16 * MIB)))?;
    let observed = observe(&rig, &disk, &Target::whole(0, &disk), &[Method::Direct])?;
    let records = observed.log.records();
    ensure!(records.iter().all(|record| matches!(record.outcome, Outcome::Completed(_))));
    let size = usize::try_from(SECTOR_SIZE)?;
    for (sector, bytes) in (0..).zip(observed.after.bytes().chunks(size)) {
        let holds = |record: &&Record| {
            let extent = record.issue.extent;
            extent.start <= Sector(sector) && Sector(sector) < extent.end()
        };
        match records.iter().rfind(holds) {
            None => ensure!(bytes.iter().all(|byte| *byte == 0), "sector {sector}"),
            Some(last) => {
                let stamp = Stamp::read(bytes).with_context(|| format!("sector {sector}"))?;
                let place = (stamp.sector, stamp.write, u64::from(stamp.index));
                let start = last.issue.extent.start.0;
                ensure!(place == (sector, last.issue.write, sector - start), "{stamp:?}");
                ensure!(stamp.run == observed.log.run() && stamp.acknowledged + 1 == stamp.write);
            }
        }
    }
    Ok(())
}

#[test]
fn writers_of_one_log_share_it_without_loss() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = ZramDisk::create(&rig, ByteLen(16 * MIB))?;
    let target = Target::whole(0, &disk);
    let log = Arc::new(WriteLog::create(&rig.fresh("log"), 10_000)?);
    let mut writers = Vec::new();
    for stream in 0..4 {
        let load = Load {
            method: if stream % 2 == 0 { Method::Direct } else { Method::Ring },
            seed: u64::from(stream),
            smallest: ByteLen(4096),
            largest: ByteLen(16384),
            after: After::Writes(1000),
        };
        writers.push(Writer::start(&target, stream, load, &log)?);
    }
    for writer in writers {
        ensure!(writer.finish()?.writes == 1000);
    }
    let records = log.records();
    for stream in 0..4 {
        let mut writes: Vec<u64> = records
            .iter()
            .filter(|record| record.issue.stream == stream)
            .map(|record| record.issue.write)
            .collect();
        writes.sort_unstable();
        ensure!(writes == (1..=1000).collect::<Vec<_>>(), "stream {stream}");
    }
    Ok(())
}

#[test]
fn a_full_log_stops_its_writer() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = ZramDisk::create(&rig, ByteLen(MIB))?;
    let log = Arc::new(WriteLog::create(&rig.fresh("log"), 5)?);
    let load = Load {
        method: Method::Direct,
        seed: 1,
        smallest: ByteLen(4096),
        largest: ByteLen(4096),
        after: After::Writes(6),
    };
    let error = Writer::start(&Target::whole(0, &disk), 0, load, &log)?.finish().err();
    let error = error.context("the sixth write has no room")?;
    ensure!(error.to_string().contains("full"), "{error:#}");
    Ok(())
}
