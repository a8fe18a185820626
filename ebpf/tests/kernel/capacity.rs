//! Many disks.

use std::time::Instant;

use anyhow::Result;
use blocks::{ByteLen, ChunkSize, DiskId, Extent, Generation, Geometry, Sector};
use ebpf::{AddDiskError, DISKS, DeviceNumber, DiskClass, DiskSpec};
use vm_tests::ZramDisk;

use crate::bench::{Bench, MIB, harvested, open_direct, polled, spec_of, track, write};

/// A disk that no driver has: major numbers from 512 on are none.
fn imagined(index: u32, class: DiskClass) -> Result<DiskSpec> {
    let mut id = [0xee; 16];
    id[..4].copy_from_slice(&index.to_le_bytes());
    Ok(DiskSpec {
        id: DiskId(id),
        generation: Generation([1; 16]),
        number: DeviceNumber::new(600 + index % 3, index / 3 * 16).expect("in range"),
        class,
        geometry: Geometry::new(1 << 20, 512, ChunkSize::DEFAULT)?,
        sequence: 0,
    })
}

#[test]
fn as_many_disks_as_there_are_slots() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?;
    let mut tracking = bench.load()?;
    let began = Instant::now();
    for index in 0..DISKS - 1 {
        tracking.add_disk(&imagined(index, DiskClass::RequestBased)?)?;
    }
    println!("{} disks added in {:?}", DISKS - 1, began.elapsed());
    let disk = track(&mut tracking, &zram)?;
    let one_more = tracking.add_disk(&imagined(DISKS, DiskClass::RequestBased)?);
    assert!(matches!(one_more, Err(AddDiskError::TooManyDisks)));

    let file = open_direct(&zram)?;
    write(&file, Extent { start: Sector(80), sectors: 8 }, 1)?;
    assert_eq!(polled(&mut tracking)[0].slot, disk.slot());
    assert_eq!(harvested(&disk).count(), 1);
    assert!(tracking.disks().all(|other| {
        other.slot() == disk.slot() || harvested(other).is_empty() && other.taints().is_empty()
    }));

    // All of them are there for the next process.
    drop(tracking);
    let mut tracking = bench.take_up()?;
    assert_eq!(tracking.disks().count(), DISKS as usize);
    let first = tracking.disks().next().expect("many").slot();
    tracking.remove_disk(first)?;
    let slot = tracking.add_disk(&imagined(DISKS, DiskClass::RequestBased)?)?;
    assert_eq!(slot, first);
    write(&file, Extent { start: Sector(0), sectors: 8 }, 1)?;
    assert_eq!(harvested(&disk).count(), 1);
    Ok(())
}

#[test]
fn what_no_disk_can_be_is_refused() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let mut tracking = bench.load()?;
    let spec = imagined(1, DiskClass::BioBased)?;
    let nothing = DiskSpec { number: DeviceNumber::from_devt(0), ..spec };
    assert!(matches!(tracking.add_disk(&nothing), Err(AddDiskError::NoDevice)));
    let huge = Geometry::new(1 << 45, 512, ChunkSize::DEFAULT)?;
    let huge = DiskSpec { geometry: huge, ..spec };
    assert!(matches!(tracking.add_disk(&huge), Err(AddDiskError::TooManyChunks { .. })));
    assert_eq!(tracking.disks().count(), 0);
    assert_eq!(tracking.programs()?.len(), 5, "those for bios are not needed");
    Ok(())
}

#[test]
fn several_disks_are_told_apart() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let disks: Vec<ZramDisk> =
        (0..4).map(|_| ZramDisk::create(&bench.rig, ByteLen(16 * MIB))).collect::<Result<_>>()?;
    let mut tracking = bench.load()?;
    let mut tracked = Vec::new();
    for (id, disk) in (1..).zip(&disks) {
        let slot = tracking.add_disk(&spec_of(disk, id)?)?;
        tracked.push(tracking.disk(slot).expect("just added").clone());
    }
    for (index, disk) in (0..).zip(&disks) {
        write(&open_direct(disk)?, Extent { start: Sector(index * 8), sectors: 8 }, 1)?;
    }
    for (index, disk) in tracked.iter().enumerate() {
        assert_eq!(harvested(disk).words().collect::<Vec<_>>(), [(0, 1 << index)]);
    }
    Ok(())
}
