//! What can't be followed is never quiet.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use blocks::{
    ByteLen, ChunkIndex, ChunkRange, ChunkSize, Extent, Geometry, Sector, Taint, TaintSet,
};
use ebpf::{DiskSpec, LoadOptions};
use vm_tests::{After, Image, Load, Method, Target, WriteLog, Writer, ZramDisk};

use crate::bench::{Bench, MIB, harvested, open_direct, runs, spec_of, track, write};

#[test]
fn a_range_past_the_end_is_marked_up_to_the_end() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?;
    let mut tracking = bench.load()?;
    let geometry = Geometry::new(8 * 10, 4096, ChunkSize::DEFAULT)?;
    let slot = tracking.add_disk(&DiskSpec { geometry, ..spec_of(&zram, 1)? })?;
    let disk = tracking.disk(slot).expect("just added").clone();

    let file = open_direct(&zram)?;
    write(&file, Extent { start: Sector(64), sectors: 16 }, 1)?;
    assert!(disk.taints().is_empty(), "within");
    write(&file, Extent { start: Sector(72), sectors: 16 }, 1)?;
    write(&file, Extent { start: Sector(8000), sectors: 8 }, 1)?;

    let past = TaintSet::default().with(Taint::OutOfRange);
    assert_eq!(disk.taints(), past);
    let marked = ChunkRange { start: ChunkIndex(8), end: ChunkIndex(10) };
    assert_eq!(runs(&harvested(&disk)), [marked]);

    disk.taint(TaintSet::default().with(Taint::StatisticsOff));
    disk.clear_taints(past);
    assert_eq!(disk.taints(), TaintSet::default().with(Taint::StatisticsOff));
    Ok(())
}

#[test]
fn an_in_flight_table_without_room_taints_and_marks_what_it_can() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(32 * MIB))?;
    let mut tracking = bench.load_with(LoadOptions {
        in_flight_buckets: 1,
        spilled: 1,
        ..LoadOptions::default()
    })?;
    let disk = track(&mut tracking, &zram)?;
    let before = Image::read(zram.path())?;

    // Two writers at once are more than there is room for.
    let log = Arc::new(WriteLog::create(&bench.rig.fresh("log"), 1_000_000)?);
    let writer = |stream| {
        let load = Load {
            method: Method::Direct,
            seed: u64::from(stream),
            smallest: ByteLen(4096),
            largest: ByteLen(64 << 10),
            after: After::Elapsed(Duration::from_secs(1)),
        };
        Writer::start(&Target::whole(0, &zram), stream, load, &log)
    };
    let writers = (0..4).map(writer).collect::<Result<Vec<_>>>()?;
    writers.into_iter().try_for_each(|writer| writer.finish().map(|_| ()))?;

    let taints = disk.taints();
    assert!(taints.contains(Taint::InFlightTableFull), "{taints}");
    assert!(taints.contains(Taint::UnmatchedCompletion), "{taints}");
    let mut missed = before.changed_chunks(&Image::read(zram.path())?, &disk.spec().geometry);
    missed.subtract(&harvested(&disk));
    assert!(missed.is_empty(), "zram leaves a bio's own range alone, so it serves: {missed:?}");
    Ok(())
}
