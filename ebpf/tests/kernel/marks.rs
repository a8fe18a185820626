//! What a single operation marks, exactly, and what it tells through the ring.

use anyhow::Result;
use blocks::{ByteLen, ChunkIndex, ChunkRange, ChunkSize, Extent, Geometry, MarkKind, Sector};
use ebpf::{DiskSpec, LoadOptions};
use vm_tests::{ZramDisk, monotonic_now};

use crate::bench::{
    Bench, GIB, MIB, discard, harvested, open_direct, pending, polled, runs, spec_of, track, write,
    zero_out,
};

/// By so much a record's time may be early.
const TICK_NS_MAX: u64 = 10_000_000;

fn extent(start: u64, sectors: u64) -> Extent {
    Extent { start: Sector(start), sectors }
}

fn chunks(start: u64, end: u64) -> ChunkRange {
    ChunkRange { start: ChunkIndex(start), end: ChunkIndex(end) }
}

#[test]
fn each_kind_of_write_is_told_once_until_harvested() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?;
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, &zram)?;
    let file = open_direct(&zram)?;

    let began = monotonic_now().0 - TICK_NS_MAX;
    write(&file, extent(8, 16), 1)?;
    write(&file, extent(8, 8), 2)?;
    discard(&file, extent(800, 8))?;
    zero_out(&file, extent(1600, 32))?;
    let ended = monotonic_now().0;

    let marks = polled(&mut tracking);
    let told: Vec<_> = marks.iter().map(|mark| (mark.slot, mark.extent, mark.kind)).collect();
    let slot = disk.slot();
    let expected = [
        (slot, extent(8, 16), MarkKind::Write),
        (slot, extent(800, 8), MarkKind::Discard),
        (slot, extent(1600, 32), MarkKind::Zeroes),
    ];
    assert_eq!(told, expected);
    assert!(marks.iter().all(|mark| (began..=ended).contains(&mark.at.0)));

    assert_eq!(runs(&harvested(&disk)), [chunks(1, 3), chunks(100, 101), chunks(200, 204)]);
    assert!(harvested(&disk).is_empty());

    // Half of the range is dirty already: the whole is told.
    write(&file, extent(8, 8), 3)?;
    write(&file, extent(8, 16), 4)?;
    assert_eq!(polled(&mut tracking).len(), 2);

    let counters = disk.counters()?;
    assert_eq!((counters.written, counters.discarded, counters.other), (16 + 8 + 8 + 16, 8, 32));
    assert_eq!(counters.events, 6);
    Ok(())
}

#[test]
fn pending_bits_stay_until_dropped() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?;
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, &zram)?;
    let file = open_direct(&zram)?;

    write(&file, extent(0, 64), 1)?;
    assert!(pending(&disk).is_empty(), "only a harvest fills it");
    harvested(&disk);
    assert_eq!(runs(&pending(&disk)), [chunks(0, 8)]);
    disk.drop_pending(0, 0b1111);
    assert_eq!(runs(&pending(&disk)), [chunks(4, 8)]);
    disk.drop_pending(1 << 40, 1);
    disk.fill_pending();
    assert_eq!(runs(&pending(&disk)), [chunks(0, disk.spec().geometry.chunks())]);
    Ok(())
}

#[test]
fn large_ranges_are_marked_exactly_at_both_ends() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    // Nothing but discards touches it, so it takes no memory.
    let zram = ZramDisk::create(&bench.rig, ByteLen(8 * GIB))?;
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, &zram)?;
    let file = open_direct(&zram)?;

    // 64 words and one bit, the least that is split; then more than 3 GiB; then across words of
    // the coarse bitmap, up to the end of the disk.
    let end = disk.spec().geometry.chunks();
    for (first, last) in [(63, 63 + 4034), (4095, 4097 + 800_000), (4096 * 63 - 5, end)] {
        discard(&file, extent(first * 8, (last - first) * 8))?;
        assert_eq!(runs(&harvested(&disk)), [chunks(first, last)]);
        assert_eq!(runs(&pending(&disk)), [chunks(first, last)]);
        pending(&disk).words().for_each(|(index, bits)| disk.drop_pending(index, bits));
    }
    assert!(disk.taints().is_empty(), "{}", disk.taints());
    Ok(())
}

#[test]
fn larger_chunks_are_marked_where_they_are_touched() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?;
    let mut tracking = bench.load()?;
    let chunk = ChunkSize::from_bytes(64 << 10)?;
    let spec = spec_of(&zram, 1)?;
    let geometry = Geometry::new(zram.sectors(), 4096, chunk)?;
    let slot = tracking.add_disk(&DiskSpec { geometry, ..spec })?;
    let disk = tracking.disk(slot).expect("just added").clone();

    let file = open_direct(&zram)?;
    // The last block of chunk 0 and the first of chunk 1; then one block of chunk 200.
    write(&file, extent(120, 16), 1)?;
    write(&file, extent(200 * 128 + 64, 8), 1)?;
    assert_eq!(runs(&harvested(&disk)), [chunks(0, 2), chunks(200, 201)]);
    Ok(())
}

#[test]
fn a_full_ring_loses_no_bit_and_is_counted() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?;
    let options = LoadOptions { ring: ByteLen(4096), ..LoadOptions::default() };
    let mut tracking = bench.load_with(options)?;
    let disk = track(&mut tracking, &zram)?;
    let file = open_direct(&zram)?;

    let writes = 1000;
    (0..writes).try_for_each(|i| write(&file, extent(i * 16, 8), 1))?;
    let told = polled(&mut tracking).len() as u64;
    let lost = disk.ring_lost()?;
    assert!(told > 0 && lost > 0, "{told} told, {lost} lost");
    assert_eq!(told + lost, writes);
    assert_eq!(harvested(&disk).count(), writes);

    // And it goes on when there is room again.
    write(&file, extent(8, 8), 1)?;
    assert_eq!(polled(&mut tracking).len(), 1);
    assert!(disk.taints().is_empty());
    Ok(())
}
