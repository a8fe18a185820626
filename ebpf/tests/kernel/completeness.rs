//! No write is missed: the whole device compared before and after, and the writer's own log.

use std::sync::Arc;

use anyhow::Result;
use blocks::{Bitmap, ByteLen, Extent, Sector};
use ebpf::{TrackedDisk, device};
use vm_tests::{
    After, BlockDevice, Image, Load, LoopDisk, LoopSpec, Method, Partition, Target, WriteLog,
    Writer, ZramDisk,
};

use crate::bench::{Bench, MIB, harvested, track};

const METHODS: [Method; 6] = [
    Method::Direct,
    Method::Buffered,
    Method::Mapped,
    Method::Ring,
    Method::Discard,
    Method::ZeroOut,
];

/// Writes to `target` on `device` in every way, and returns what must have been marked: what the
/// log says and what has changed.
fn write_in_every_way(
    bench: &Bench,
    device: &BlockDevice,
    target: &Target,
    disk: &TrackedDisk,
) -> Result<Bitmap> {
    let geometry = disk.spec().geometry;
    let before = Image::read(device.path())?;
    let log = Arc::new(WriteLog::create(&bench.rig.fresh("log"), 20_000)?);
    for (seed, method) in (0..).zip(METHODS) {
        let load = Load {
            method,
            seed,
            smallest: ByteLen(4096),
            largest: ByteLen(64 << 10),
            after: After::Writes(500),
        };
        Writer::start(target, 1, load, &log)?.finish()?;
    }
    let mut expected = before.changed_chunks(&Image::read(device.path())?, &geometry);
    expected.union_with(&log.chunks(0, &geometry));
    assert!(expected.count() > 500, "the load did something");
    Ok(expected)
}

#[test]
fn on_zram_every_write_is_marked_and_counted() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(256 * MIB))?;
    let accounting = device::probe(zram.path())?.accounting;
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, &zram)?;
    let before = device::probe(zram.path())?.statistics()?;

    let mut missed = write_in_every_way(&bench, &zram, &Target::whole(0, &zram), &disk)?;
    missed.subtract(&harvested(&disk));
    assert!(missed.is_empty(), "{missed:?} missed");

    let after = device::probe(zram.path())?.statistics()?;
    let kept = accounting.kept(&after) - accounting.kept(&before);
    assert_eq!(accounting.counted(&disk.counters()?), kept);
    assert!(disk.taints().is_empty(), "{}", disk.taints());
    assert_eq!(tracking.misses()?, 0);
    Ok(())
}

fn kept(device: &BlockDevice) -> Result<u64> {
    let found = device::probe(device.path())?;
    Ok(found.accounting.kept(&found.statistics()?))
}

/// Misses only what the cross-check flags. A loop device has had users before: its statistics were
/// `kept_before` when tracking began.
fn check_loop(
    device: &BlockDevice,
    disk: &TrackedDisk,
    kept_before: u64,
    missed: &Bitmap,
) -> Result<()> {
    let kept = kept(device)? - kept_before;
    let counted = device::probe(device.path())?.accounting.counted(&disk.counters()?);
    assert!(counted <= kept, "counted {counted}, kept {kept}");
    if counted == kept {
        assert!(missed.is_empty(), "{missed:?} missed, and the cross-check is silent");
    } else {
        println!("this kernel hid {} sectors; {missed:?} missed", kept - counted);
    }
    assert!(disk.taints().is_empty(), "{}", disk.taints());
    Ok(())
}

#[test]
fn on_a_loop_a_write_is_marked_or_the_cross_check_flags_it() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let disk_under_test = LoopDisk::create(&bench.rig, LoopSpec::new(ByteLen(64 * MIB)))?;
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, &disk_under_test)?;
    let target = Target::whole(0, &disk_under_test);
    let kept_before = kept(&disk_under_test)?;
    let mut missed = write_in_every_way(&bench, &disk_under_test, &target, &disk)?;
    missed.subtract(&harvested(&disk));
    check_loop(&disk_under_test, &disk, kept_before, &missed)
}

#[test]
fn writes_to_a_partition_are_marked_where_they_are_on_the_disk() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let whole = LoopDisk::create(&bench.rig, LoopSpec::new(ByteLen(64 * MIB)))?;
    // Not on a boundary of chunks.
    let extent = Extent { start: Sector(32 * 2048 + 3), sectors: 16 * 2048 };
    let part = Partition::create(&whole, 1, extent)?;
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, &whole)?;
    let target = Target::partition(0, &part);
    let kept_before = kept(&whole)?;
    let mut missed = write_in_every_way(&bench, &whole, &target, &disk)?;

    let marked = harvested(&disk);
    let mut outside = marked.clone();
    outside.remove_range(disk.spec().geometry.chunks_of(extent));
    assert!(outside.is_empty(), "{outside:?} outside of the partition");
    missed.subtract(&marked);
    check_loop(&whole, &disk, kept_before, &missed)
}
