//! Nothing goes wrong: initial replication under load, deltas, and the same bytes in the end.

use anyhow::{Result, ensure};
use blocks::{ByteLen, Extent, Sector};
use vm_tests::{
    Bursts, FileWorkload, Filesystem, LoopDisk, LoopSpec, Method, Mounted, Pace, Partition, Rig,
    Target, fill,
};

use crate::subject::{IN_USE, PATIENCE, ensure_no_gap, number, site, use_disk, zram};

#[test]
fn stamped_writers_on_zram_lose_nothing() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 1)?;
    let site = site(&rig)?;
    let writers = use_disk(&rig, &disk, 1)?;
    site.protect(&disk, PATIENCE)?;
    let seeded = site.disk(disk.name())?;
    let after = site.wait_for_epochs(disk.name(), 6, PATIENCE)?;
    let written = writers.stop()?;
    ensure!(written.writes > 300, "the writers hardly wrote: {written:?}");
    site.prove(&disk, PATIENCE)?;
    ensure_no_gap(&site, &disk)?;
    // A delta holds what changed: six of them are far from six times the part in use.
    let deltas = number(&after, "/sent/raw") - number(&seeded, "/sent/raw");
    ensure!(deltas <= 6 * IN_USE.0 + (4 << 20), "the deltas read {}", ByteLen(deltas));
    let zero = number(&after, "/sent/zero");
    ensure!(zero > 0, "untouched parts of the disk were sent as data");
    Ok(())
}

#[test]
fn an_ext4_on_a_loop_disk_arrives_whole() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(ByteLen(256 << 20)))?;
    Filesystem::Ext4.make(&disk)?;
    let site = site(&rig)?;
    let mounted = Mounted::mount(&rig, &disk, Filesystem::Ext4, "discard")?;
    let pace = Pace { pause: std::time::Duration::from_millis(3), trim_every: u64::MAX };
    let application = FileWorkload::start_at(mounted.path(), 2, u64::MAX, pace)?;
    site.protect(&disk, PATIENCE)?;
    site.wait_for_epochs(disk.name(), 6, PATIENCE)?;
    let (report, durable) = application.stop()?;
    ensure!(report.written > 20 && !durable.0.is_empty(), "hardly any files: {report:?}");
    mounted.unmount()?;
    site.prove(&disk, PATIENCE)?;
    Filesystem::Ext4.check(&site.replica(disk.name())?)
}

#[test]
fn blocks_of_4_kib_and_a_length_of_odd_chunks_arrive() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    // 64 MiB and one block: the last chunk is short.
    let spec = LoopSpec { logical_block: 4096, ..LoopSpec::new(ByteLen((64 << 20) + 4096)) };
    let disk = LoopDisk::create(&rig, spec)?;
    fill(&rig, &Target::whole(0, &disk), 3)?;
    let site = site(&rig)?;
    site.protect(&disk, PATIENCE)?;
    let target = Target::whole(0, &disk).front(IN_USE);
    let writers = Bursts::start(&rig, target, &[Method::Direct, Method::Buffered], 3)?;
    site.wait_for_epochs(disk.name(), 3, PATIENCE)?;
    writers.stop()?;
    site.prove(&disk, PATIENCE)
}

#[test]
fn writes_through_a_partition_arrive_where_they_belong() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(ByteLen(96 << 20)))?;
    fill(&rig, &Target::whole(0, &disk), 4)?;
    // Not on a boundary of chunks.
    let extent = Extent { start: Sector(2053), sectors: IN_USE.0 / blocks::SECTOR_SIZE };
    let partition = Partition::create(&disk, 1, extent)?;
    let site = site(&rig)?;
    site.protect(&disk, PATIENCE)?;
    let methods = &[Method::Direct, Method::Buffered, Method::Ring, Method::Discard];
    let writers = Bursts::start(&rig, Target::partition(0, &partition), methods, 4)?;
    site.wait_for_epochs(disk.name(), 4, PATIENCE)?;
    writers.stop()?;
    // A partition that comes while the disk is protected is part of it as well.
    let later = Extent { start: Sector(100_001), sectors: 32768 };
    let later = Partition::create(&disk, 2, later)?;
    let writers = Bursts::start(&rig, Target::partition(0, &later), methods, 5)?;
    site.wait_for_epochs(disk.name(), 3, PATIENCE)?;
    writers.stop()?;
    site.prove(&disk, PATIENCE)
}
