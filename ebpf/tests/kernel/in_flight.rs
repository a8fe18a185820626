//! Writes under way to bio-based disks: listed, and not lost when they find no room.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use blocks::{ByteLen, Extent};
use ebpf::{Listed, LoadOptions, TrackedDisk, Tracking};
use vm_tests::{Image, WriteLog, ZramDisk};

use crate::bench::{Bench, MIB, harvested, track, writers_at_full_speed};

const WRITERS: u32 = 8;
const ROUNDS_MAX: usize = 20;

/// Writes at full speed from several threads, and calls `meanwhile` again and again.
fn write_meanwhile(
    bench: &Bench,
    zram: &ZramDisk,
    mut meanwhile: impl FnMut(),
) -> Result<Arc<WriteLog>> {
    const TIME: Duration = Duration::from_millis(800);
    let log = Arc::new(WriteLog::create(&bench.rig.fresh("log"), 1_000_000)?);
    let writers = writers_at_full_speed(zram, WRITERS, TIME, &log)?;
    let began = Instant::now();
    while began.elapsed() < TIME {
        meanwhile();
    }
    for writer in writers {
        writer.finish()?;
    }
    Ok(log)
}

fn listed(disk: &TrackedDisk) -> (Vec<Extent>, Listed) {
    let mut extents = Vec::new();
    let listed = disk.in_flight(&mut |extent| extents.push(extent));
    (extents, listed)
}

/// Every write is marked and counted once, whatever copy does it.
fn check_complete(tracking: &Tracking, disk: &TrackedDisk, logs: &[Arc<WriteLog>]) -> Result<()> {
    let records = logs.iter().flat_map(|log| log.records());
    let written: u64 = records.map(|record| record.issue.extent.sectors).sum();
    let counters = disk.counters()?;
    ensure!((counters.written, counters.issued) == (written, written), "{counters:?}, {written}");
    ensure!(disk.taints().is_empty(), "{}", disk.taints());
    ensure!(tracking.misses()? == 0, "programs were skipped");
    ensure!(listed(disk) == (Vec::new(), Listed::All), "nothing is in flight any more");
    Ok(())
}

#[test]
fn writes_under_way_are_listed() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(64 * MIB))?;
    let other = ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?;
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, &zram)?;
    let slot = tracking.add_disk(&crate::bench::spec_of(&other, 2)?)?;
    let idle = tracking.disk(slot).expect("just added").clone();
    assert_eq!(listed(&disk), (Vec::new(), Listed::All));

    let (mut seen, mut lists, mut logs) = (Vec::new(), 0, Vec::new());
    // Where others use the processors, those who look may seldom run while somebody writes.
    while seen.len() <= 20 && logs.len() < ROUNDS_MAX {
        logs.push(write_meanwhile(&bench, &zram, || {
            seen.extend(listed(&disk).0);
            lists += 1;
            assert_eq!(listed(&idle).0, [], "another disk's are not its own");
        })?);
    }
    println!("{} extents in {lists} lists", seen.len());
    ensure!(seen.len() > 20, "{} in {lists} lists", seen.len());
    let written = logs.iter().flat_map(|log| log.records()).map(|record| record.issue.extent);
    let written: std::collections::HashSet<Extent> = written.collect();
    let invented = seen.iter().find(|extent| !written.contains(extent));
    ensure!(invented.is_none(), "{invented:?} was never written");
    check_complete(&tracking, &disk, &logs)
}

#[test]
fn what_finds_no_room_is_spilled_and_not_lost() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(64 * MIB))?;
    // One bucket in a thousand is there.
    let options = LoadOptions { in_flight_buckets: 1, ..LoadOptions::default() };
    let mut tracking = bench.load_with(options)?;
    let disk = track(&mut tracking, &zram)?;
    let before = Image::read(zram.path())?;
    let (mut partial, mut logs) = (0, Vec::new());
    // As above: who looks may seldom run.
    while partial == 0 && logs.len() < ROUNDS_MAX {
        logs.push(write_meanwhile(&bench, &zram, || {
            partial += u64::from(listed(&disk).1 == Listed::Some);
        })?);
    }
    ensure!(partial > 0, "a list says when it is not whole");
    let geometry = disk.spec().geometry;
    let mut missed = before.changed_chunks(&Image::read(zram.path())?, &geometry);
    logs.iter().for_each(|log| missed.union_with(&log.chunks(0, &geometry)));
    missed.subtract(&harvested(&disk));
    ensure!(missed.is_empty(), "{missed:?} missed");
    check_complete(&tracking, &disk, &logs)
}
