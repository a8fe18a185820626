//! What is found out about devices.

use std::{fs, path::Path, process::Command};

use anyhow::Result;
use blocks::{ByteLen, Extent, Sector};
use ebpf::{
    DiskClass,
    device::{self, Accounting, Partition as FoundPartition, Untrackable},
};
use vm_tests::{LoopDisk, LoopSpec, Partition, Rig, ZramDisk};

use crate::bench::MIB;

#[test]
fn a_loop_is_request_based_and_found_through_its_partition() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(
        &rig,
        LoopSpec { logical_block: 4096, ..LoopSpec::new(ByteLen(32 * MIB)) },
    )?;
    let extent = Extent { start: Sector(2048), sectors: 4096 };
    let part = Partition::create(&disk, 3, extent)?;

    let found = device::probe(part.path())?;
    assert_eq!(found, device::probe(disk.path())?);
    assert_eq!(found.name, disk.name());
    assert_eq!(found.path, disk.path());
    assert_eq!((found.sectors, found.logical_block), (32 * 2048, 4096));
    assert_eq!((found.class, found.accounting), (DiskClass::RequestBased, Accounting::Full));
    assert!(found.sequence > 0);
    let name = part.name().to_owned();
    let expected = FoundPartition { name, index: 3, start: 2048, sectors: 4096 };
    assert_eq!(found.partitions, [expected]);
    assert!(device::whole_disks()?.contains(&found.name));
    Ok(())
}

#[test]
fn zram_is_bio_based() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = ZramDisk::create(&rig, ByteLen(32 * MIB))?;
    let found = device::probe(disk.path())?;
    assert_eq!((found.class, found.accounting), (DiskClass::BioBased, Accounting::DataOnly));
    assert_eq!(found.number.dev_t(), nix::sys::stat::stat(disk.path())?.st_rdev);
    Ok(())
}

#[test]
fn statistics_are_switched_on() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(ByteLen(32 * MIB)))?;
    let found = device::probe(disk.path())?;
    fs::write(format!("/sys/block/{}/queue/iostats", found.name), "0")?;
    assert!(!found.keeps_statistics()?);
    found.enable_statistics()?;
    assert!(found.keeps_statistics()?);
    Ok(())
}

#[test]
fn read_only_disks_and_files_are_refused_in_words() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(ByteLen(32 * MIB)))?;
    let file = device::probe(disk.backing()).expect_err("a file");
    assert!(matches!(file, Untrackable::NotABlockDevice(_)));
    assert!(device::probe(Path::new("/dev/null")).is_err());

    // A loop device would stay so for its next user; zram goes when it is dropped.
    let disk = ZramDisk::create(&rig, ByteLen(32 * MIB))?;
    let set = Command::new("blockdev").arg("--setro").arg(disk.path()).status()?;
    assert!(set.success());
    let refused = device::probe(disk.path()).expect_err("read-only");
    let words = format!("{} is read-only: nothing on it changes", disk.name());
    assert_eq!(refused.to_string(), words);
    Ok(())
}
