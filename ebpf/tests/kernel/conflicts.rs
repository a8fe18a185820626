//! What is issued after a flip is told, and what was issued before is not.

use std::{
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use blocks::{ByteLen, ChunkIndex, ChunkRange, Extent, Sector};
use ebpf::{ConflictTable, TrackedDisk, Tracking};
use vm_tests::{
    After, BlockDevice, Load, LoopDisk, LoopSpec, Method, Outcome, Partition, Target, WriteLog,
    Writer, ZramDisk, monotonic_now, wait_until,
};

use crate::bench::{
    Bench, GIB, MIB, discard, open_direct, polled, spec_of, track, write, zero_out,
};

const METHODS: [Method; 6] = [
    Method::Direct,
    Method::Buffered,
    Method::Mapped,
    Method::Ring,
    Method::Discard,
    Method::ZeroOut,
];

/// How long each method writes. Some are slow on some devices.
const LEAST: Duration = Duration::from_millis(250);
const MOST: Duration = Duration::from_secs(5);

fn extent(start: u64, sectors: u64) -> Extent {
    Extent { start: Sector(start), sectors }
}

fn chunks(start: u64, end: u64) -> ChunkRange {
    ChunkRange { start: ChunkIndex(start), end: ChunkIndex(end) }
}

fn all(disk: &TrackedDisk) -> ChunkRange {
    chunks(0, disk.spec().geometry.chunks())
}

fn table(tracking: &mut Tracking) -> ConflictTable {
    tracking.conflicts().expect("it is taken for the first time")
}

/// Flips again and again while `target` is written in every way. Whatever was put into the log
/// after a flip, and completed, must be told before the next.
fn flip_under_load(
    bench: &Bench,
    table: &mut ConflictTable,
    target: &Target,
    disk: &TrackedDisk,
) -> Result<()> {
    let geometry = disk.spec().geometry;
    let misses = table.misses()?;
    for (seed, method) in (0..).zip(METHODS) {
        let log = Arc::new(WriteLog::create(&bench.rig.fresh("log"), 1_000_000)?);
        let load = Load {
            method,
            seed,
            smallest: ByteLen(4096),
            largest: ByteLen(256 << 10),
            after: After::Elapsed(MOST),
        };
        let writer = Writer::start(target, 1, load, &log)?;
        let began = Instant::now();
        let (mut seen, mut halves) = (0, 0);
        while began.elapsed() < LEAST || (seen < 20 || halves < 4) && began.elapsed() < MOST {
            table.flip();
            let flipped = monotonic_now();
            thread::sleep(Duration::from_millis(7));
            let records = log.records();
            let after = records.iter().filter(|record| {
                record.issued > flipped && matches!(record.outcome, Outcome::Completed(_))
            });
            let before = seen;
            for record in after {
                seen += 1;
                let chunks = geometry.chunks_of(record.issue.extent);
                ensure!(table.conflicted(disk.slot(), chunks), "{method:?}: {record:?} not told");
            }
            halves += u64::from(seen > before);
            ensure!(!table.overflowed(), "{method:?}: no range is that long");
            table.clear_other();
        }
        writer.stop();
        writer.finish()?;
        println!("{method:?}: {seen} writes after {halves} flips");
        ensure!(seen >= 20 && halves >= 4, "{method:?}: {seen} writes show little");
    }
    // It is writes that are told: when there are none, nothing is.
    table.flip();
    ensure!(!table.conflicted(disk.slot(), all(disk)), "nothing was written");
    ensure!(table.misses()? == misses, "programs were skipped");
    Ok(())
}

#[test]
fn what_is_issued_after_a_flip_is_told_on_zram() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(64 * MIB))?;
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, &zram)?;
    let mut table = table(&mut tracking);
    flip_under_load(&bench, &mut table, &Target::whole(0, &zram), &disk)?;
    assert_eq!(disk.counters()?.outstanding(), 0);
    Ok(())
}

#[test]
fn what_is_issued_after_a_flip_is_told_on_a_loop() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let whole = LoopDisk::create(&bench.rig, LoopSpec::new(ByteLen(64 * MIB)))?;
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, &whole)?;
    let mut table = table(&mut tracking);
    flip_under_load(&bench, &mut table, &Target::whole(0, &whole), &disk)?;
    // Where a kernel hides completions, issues are ahead for good.
    assert!(disk.counters()?.outstanding() >= 0, "{:?}", disk.counters()?);
    Ok(())
}

#[test]
fn writes_to_a_partition_conflict_where_they_are_on_the_disk() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let whole = LoopDisk::create(&bench.rig, LoopSpec::new(ByteLen(64 * MIB)))?;
    // Not on a boundary of chunks.
    let part = Partition::create(&whole, 1, extent(32 * 2048 + 3, 16 * 2048))?;
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, &whole)?;
    let mut table = table(&mut tracking);
    flip_under_load(&bench, &mut table, &Target::partition(0, &part), &disk)?;

    table.flip();
    write(&open_direct(&part)?, extent(0, 8), 1)?;
    let first = 32 * 256;
    assert!(table.conflicted(disk.slot(), chunks(first, first + 1)));
    assert!(table.conflicted(disk.slot(), chunks(first + 1, first + 2)));
    assert!(!table.conflicted(disk.slot(), chunks(0, first)));
    assert!(!table.conflicted(disk.slot(), chunks(first + 2, 64 * 256)));
    Ok(())
}

/// A single write of each kind, and what it conflicts with, in both halves.
fn each_kind(device: &BlockDevice) -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, device)?;
    let mut table = table(&mut tracking);
    assert!(tracking.conflicts().is_none(), "there is one taker");
    let file = open_direct(device)?;
    // The first may be refused by the driver, and then be done by writing.
    zero_out(&file, extent(1600, 32))?;
    let before = disk.counters()?.issued;
    for round in 0..4 {
        table.flip();
        assert!(!table.conflicted(disk.slot(), all(&disk)), "round {round}");
        write(&file, extent(80, 16), 1)?;
        discard(&file, extent(800, 8))?;
        zero_out(&file, extent(1600, 32))?;
        for conflict in [chunks(10, 11), chunks(11, 12), chunks(100, 101), chunks(200, 204)] {
            assert!(table.conflicted(disk.slot(), conflict), "{conflict:?} in round {round}");
        }
        for other in [chunks(0, 10), chunks(12, 100), chunks(101, 200), chunks(204, 4096)] {
            assert!(!table.conflicted(disk.slot(), other), "{other:?} in round {round}");
        }
        assert!(!table.overflowed());
    }
    // Reads are none.
    table.flip();
    std::os::unix::fs::FileExt::read_exact_at(&fs::File::open(device.path())?, &mut [0; 4096], 0)?;
    assert!(!table.conflicted(disk.slot(), all(&disk)));
    assert_eq!(disk.counters()?.outstanding(), 0);
    assert_eq!(disk.counters()?.issued - before, 4 * (16 + 8 + 32));
    Ok(())
}

#[test]
fn each_kind_of_write_conflicts_on_zram() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    each_kind(&*ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?)
}

#[test]
fn each_kind_of_write_conflicts_on_a_loop() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let spec = LoopSpec { logical_block: 4096, ..LoopSpec::new(ByteLen(16 * MIB)) };
    each_kind(&*LoopDisk::create(&bench.rig, spec)?)
}

#[test]
fn long_ranges_conflict_where_they_are_or_with_everything() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    // Nothing but discards touches it, so it takes no memory.
    let zram = ZramDisk::create(&bench.rig, ByteLen(GIB))?;
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, &zram)?;
    let mut table = table(&mut tracking);
    let file = open_direct(&zram)?;

    // As many words as are noted one by one: the first and the last of them in part.
    let (first, last) = (63, 63 * 64 + 1);
    table.flip();
    discard(&file, extent(first * 8, (last - first) * 8))?;
    assert!(!table.overflowed());
    assert!((first..last).all(|chunk| table.conflicted(disk.slot(), chunks(chunk, chunk + 1))));
    assert!(!table.conflicted(disk.slot(), chunks(0, first)));
    assert!(!table.conflicted(disk.slot(), chunks(last, last + 63)));

    // One chunk more touches one word more.
    table.flip();
    discard(&file, extent(first * 8, (64 * 64 + 1 - first) * 8))?;
    assert!(table.overflowed());
    assert!(table.conflicted(disk.slot(), chunks(200_000, 200_001)));
    table.flip();
    assert!(!table.overflowed() && !table.conflicted(disk.slot(), all(&disk)));
    assert!(disk.taints().is_empty(), "{}", disk.taints());
    Ok(())
}

#[test]
fn disks_and_processes_share_the_table() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?;
    let on_loop = LoopDisk::create(&bench.rig, LoopSpec::new(ByteLen(16 * MIB)))?;
    let mut tracking = bench.load()?;
    let one = tracking.add_disk(&spec_of(&zram, 1)?)?;
    let other = tracking.add_disk(&spec_of(&on_loop, 2)?)?;
    let mut first = table(&mut tracking);
    first.flip();
    write(&open_direct(&zram)?, extent(8, 8), 1)?;
    assert!(first.conflicted(one, chunks(1, 2)) && !first.conflicted(other, chunks(1, 2)));
    drop((first, tracking));
    write(&open_direct(&on_loop)?, extent(16, 8), 1)?;

    let mut tracking = bench.take_up()?;
    let mut second = table(&mut tracking);
    assert!(second.conflicted(other, chunks(2, 3)), "it went on without a process");
    for _ in 0..3 {
        second.flip();
        assert!(!second.conflicted(one, chunks(0, 4096)));
        assert!(!second.conflicted(other, chunks(0, 4096)));
        write(&open_direct(&on_loop)?, extent(24, 8), 1)?;
        assert!(second.conflicted(other, chunks(3, 4)) && !second.conflicted(one, chunks(3, 4)));
    }
    polled(&mut tracking);
    Ok(())
}

/// What these tests, and the accounting of issues, are for: without the program that notes, a
/// write after the flip goes untold, and the counters tell.
fn without_the_program(device: &BlockDevice, program: &str) -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, device)?;
    let mut table = table(&mut tracking);
    let file = open_direct(device)?;
    write(&file, extent(8, 8), 1)?;
    let at_rest = disk.counters()?.outstanding();
    fs::remove_file(bench.pins().join("links").join(program))?;
    // The kernel detaches in its own time.
    wait_until("a write goes untold", Duration::from_secs(10), || {
        table.flip();
        write(&file, extent(8, 8), 1)?;
        Ok((!table.conflicted(disk.slot(), chunks(1, 2))).then_some(()))
    })?;
    let outstanding = disk.counters()?.outstanding();
    ensure!(outstanding < at_rest, "{outstanding} after {at_rest}: nobody would know");
    Ok(())
}

#[test]
fn a_missing_program_is_found_by_counting_on_zram() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?;
    without_the_program(&zram, "bio_queue_1")
}

#[test]
fn a_missing_program_is_found_by_counting_on_a_loop() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let on_loop = LoopDisk::create(&bench.rig, LoopSpec::new(ByteLen(16 * MIB)))?;
    without_the_program(&on_loop, "rq_issue_1")
}
