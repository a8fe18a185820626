//! There is no room for what has to be remembered: a ring of one page, a table of eight entries.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::Barrier;

use anyhow::{Result, ensure};
use blocks::{ByteLen, Extent, Sector};
use nix::libc;
use vm_tests::{BlockDevice, LoopDisk, LoopSpec, Partition, Rig};

use crate::subject::{
    PATIENCE, ensure_never_compared, hide, mend_and_prove, number, said, site, zram,
};

/// Small writes to so many places: fewer chunks than would make a delta a comparison.
const PLACES: u64 = 6_000;
const TIMES: u64 = 4;
const PARTITIONS: u64 = 60;
/// 1 MiB each.
const SECTORS: u64 = 2048;

/// Small writes all over the parts of a disk, in an order that looks like chance.
fn write_everywhere(parts: &[File]) -> Result<()> {
    let count = u64::try_from(parts.len())?;
    let mut at: u64 = 1;
    for write in 0..PLACES * TIMES {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let place = (at >> 33) % PLACES;
        let part = &parts[usize::try_from(place % count)?];
        part.write_all_at(&write.to_le_bytes().repeat(64), place / count * 4096)?;
        if write % 1000 == 0 {
            parts.iter().try_for_each(File::sync_data)?;
        }
    }
    Ok(parts.iter().try_for_each(File::sync_data)?)
}

fn open(device: &BlockDevice) -> std::io::Result<File> {
    File::options().write(true).open(device.path())
}

/// The ring holds some hundred marks, and nobody is told of the others but by the bitmap: that
/// costs a sweep, and no comparison.
#[test]
fn a_ring_of_one_page_loses_hints_and_no_write() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 33)?;
    let site = site(&rig, "[tracking]\nring = \"4 KiB\"\n")?;
    site.protect(&disk, PATIENCE)?;
    write_everywhere(&[open(&disk)?])?;
    site.prove(&disk, PATIENCE)?;
    let status = site.disk(disk.name())?;
    ensure!(number(&status, "/tracking/ring_lost") > 0, "the ring held everything: {status}");
    ensure_never_compared(&site)
}

/// The same, by way of many partitions, on a disk of the other class.
#[test]
fn small_writes_to_many_partitions_are_all_found() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(ByteLen(64 << 20)))?;
    let part = |n| {
        let extent = Extent { start: Sector(n * SECTORS), sectors: SECTORS };
        Partition::create(&disk, i32::try_from(n + 1)?, extent)
    };
    let parts = (0..PARTITIONS).map(part).collect::<Result<Vec<_>>>()?;
    let site = site(&rig, "[tracking]\nring = \"4 KiB\"\n")?;
    site.protect(&disk, PATIENCE)?;
    let files = parts.iter().map(|part| open(part)).collect::<std::io::Result<Vec<_>>>()?;
    write_everywhere(&files)?;
    drop(files);
    site.prove(&disk, PATIENCE)?;
    let status = site.disk(disk.name())?;
    ensure!(number(&status, "/tracking/ring_lost") > 0, "the ring held everything: {status}");
    Ok(())
}

/// More than the table has entries.
const THREADS: usize = 32;

/// As direct writes ask for.
#[repr(align(4096))]
struct Aligned([u8; 4096]);

/// A write from each of so many threads. A direct write's bio lies on its thread's stack, so these are
/// at so many addresses, even where each is done before the next begins.
fn write_from_threads(disk: &BlockDevice) -> std::io::Result<()> {
    let all = Barrier::new(THREADS);
    let write = |thread: u64| {
        let file = File::options().write(true).custom_flags(libc::O_DIRECT).open(disk.path())?;
        let written = file.write_all_at(&Aligned([0x77; 4096]).0, thread * 16_384);
        // Nobody ends before all have written: the next would get its stack.
        all.wait();
        written
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..).take(THREADS).map(|thread| scope.spawn(move || write(thread))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a writer"))
    })
}

/// Writes of which no end is seen fill the table of eight, as writes do that are under way for good.
/// Whatever is written then finds no room, and that taints the disk.
#[test]
fn a_table_of_eight_writes_is_too_small_and_says_so() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 34)?;
    let site = site(&rig, "[tracking]\nin_flight = 8\n")?;
    site.protect(&disk, PATIENCE)?;
    let hidden = hide(&site, "bio_complete", "rq_issue_1")?;
    write_from_threads(&disk)?;
    mend_and_prove(&site, &disk, &hidden)?;
    let before = site.agent.log()?.matches(FULL).count();
    write_everywhere(&[open(&disk)?])?;
    said(&site, FULL, before + 1)?;
    site.wait_for_state(disk.name(), "protected", PATIENCE)?;
    site.prove(&disk, PATIENCE)
}

const FULL: &str = "in-flight table full";
