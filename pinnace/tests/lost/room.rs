//! There is no room for what has to be remembered: a ring of one page.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Result, ensure};
use blocks::{ByteLen, Extent, Sector};
use vm_tests::{BlockDevice, LoopDisk, LoopSpec, Partition, Rig};

use crate::subject::{PATIENCE, ensure_never_compared, number, site, zram};

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
