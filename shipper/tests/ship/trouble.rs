//! Shipments that meet something: few buffers, slow or absent receivers, errors, and the end of
//! the engine.

use std::{num::NonZeroU64, thread, time::Duration};

use blocks::{ByteLen, Epoch};
use shipper::{
    AddDiskError, Engine, EngineConfig, Limits, ShipError, ShipOutput, ShipRefused, StartError,
};

use crate::{
    COMPARE, DELTA, SEED,
    disk::{Disk, mixed, noise},
    epoch_of, job, job_of_tree,
    receiver::receive,
    small_engine, whole,
};

const MIB: usize = 1 << 20;

/// Waits until every buffer and permit is back. They come back soon; a leak hangs here.
fn settle(engine: &Engine) {
    loop {
        let status = engine.status();
        if status.buffers.0 == 0 && status.batches == 0 && status.shipments == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn many_disks_share_few_buffers_whatever_the_order_of_their_receivers() {
    let engine = Engine::start(EngineConfig { pool: ByteLen(2 << 20), ..EngineConfig::default() });
    let engine = engine.unwrap();
    assert_eq!(engine.status().buffers, (0, 1));
    let disks: Vec<_> = (0..6).map(|i| Disk::new(mixed(5 * MIB + 512, i))).collect();
    let frames: Vec<_> = disks
        .iter()
        .map(|disk| {
            let handle = engine.add_disk(disk.source()).unwrap();
            let (job, frames) = job(handle, whole(disk, SEED), 1, None);
            engine.ship(job).unwrap();
            frames
        })
        .collect();
    // The last one first, one after the other: all others wait with their sinks full.
    for (disk, frames) in disks.iter().zip(&frames).rev() {
        let mut replica = vec![1; disk.content.len()];
        receive(frames, &mut replica).report();
        assert!(replica == disk.content);
    }
    settle(&engine);
}

#[test]
fn several_epochs_of_a_disk_are_under_way_at_once() {
    let disk = Disk::new(noise(8 * MIB, 1));
    let engine = small_engine();
    let handle = engine.add_disk(disk.source()).unwrap();
    let shipped: Vec<_> = (1..=4u64)
        .map(|number| {
            let sealed = epoch_of(&disk, number, &[(0, 512 * number)], DELTA);
            let (job, frames) = job(handle, sealed, 1, None);
            engine.ship(job).unwrap();
            (number, frames)
        })
        .collect();
    for (number, frames) in shipped.into_iter().rev() {
        let mut replica = vec![0; disk.content.len()];
        let report = receive(&frames, &mut replica).report();
        assert_eq!(report.epoch, Epoch(number));
        let end = 2 * MIB * number as usize;
        assert!(replica[..end] == disk.content[..end] && replica[end..].iter().all(|b| *b == 0));
    }
    settle(&engine);
}

#[test]
fn a_receiver_that_leaves_cancels_and_nothing_is_lost() {
    let disk = Disk::new(noise(32 * MIB, 1));
    let engine = small_engine();
    let handle = engine.add_disk(disk.source()).unwrap();
    for taken in [0, 1, 3] {
        let (job, frames) = job(handle, whole(&disk, SEED), 1, None);
        engine.ship(job).unwrap();
        for _ in 0..taken {
            assert!(matches!(frames.recv().unwrap(), ShipOutput::Frame(_)));
        }
        drop(frames);
        settle(&engine);
    }
    let (job, frames) = job(handle, whole(&disk, SEED), 1, None);
    engine.ship(job).unwrap();
    let mut replica = vec![1; disk.content.len()];
    receive(&frames, &mut replica).report();
    assert!(replica == disk.content);
}

#[test]
fn dropping_the_engine_ends_what_nobody_receives() {
    let disk = Disk::new(noise(32 * MIB, 1));
    let engine = small_engine();
    let handle = engine.add_disk(disk.source()).unwrap();
    let hashes = Box::new(|range: shipper::BlockRange| Ok(vec![[0; 32]; range.count as usize]));
    let (first, stuck) = job(handle, whole(&disk, SEED), 1, None);
    let (second, compared) = job(handle, whole(&disk, COMPARE), 1, Some(hashes));
    engine.ship(first).unwrap();
    engine.ship(second).unwrap();
    assert!(matches!(stuck.recv().unwrap(), ShipOutput::Frame(_)));
    drop(engine);
    for frames in [stuck, compared] {
        let outputs: Vec<_> = frames.iter().collect();
        assert!(outputs.iter().all(|output| !matches!(output, ShipOutput::Done(_))));
    }
}

#[test]
fn a_disk_shorter_than_its_geometry_fails_without_an_end() {
    for (len, keeps) in [(4 * MIB, 2 * MIB + 512), (4 * MIB, 0), (MIB, MIB - 512)] {
        let disk = Disk::new(noise(len, 1));
        disk.file().set_len(keeps as u64).unwrap();
        let engine = small_engine();
        let handle = engine.add_disk(disk.source()).unwrap();
        let (job, frames) = job(handle, whole(&disk, SEED), 1, None);
        engine.ship(job).unwrap();
        let received = receive(&frames, &mut vec![0; len]);
        assert!(!received.ended);
        let Err(ShipError::DiskTooShort(extent)) = received.report else {
            panic!("{:?}", received.report);
        };
        assert!(extent.end().bytes() > keeps as u64);
        settle(&engine);
    }
}

#[test]
fn a_disk_that_is_not_there_is_refused() {
    let disk = Disk::new(noise(MIB, 1));
    let missing = disk.source_at(&disk.path().with_extension("missing"));
    assert!(matches!(small_engine().add_disk(missing), Err(AddDiskError::Open { .. })));
}

#[test]
fn errors_of_hashes_end_a_comparison() {
    let disk = Disk::new(noise(4 * MIB, 1));
    let engine = small_engine();
    let handle = engine.add_disk(disk.source()).unwrap();

    let failing = Box::new(|_| Err("the target is gone".into()));
    let (first, frames) = job(handle, whole(&disk, COMPARE), 1, Some(failing));
    engine.ship(first).unwrap();
    let received = receive(&frames, &mut []);
    assert!(matches!(received.report, Err(ShipError::Hashes(_))), "{:?}", received.report);

    let short = Box::new(|_| Ok(vec![[0; 32]; 3]));
    let (second, frames) = job(handle, whole(&disk, COMPARE), 1, Some(short));
    engine.ship(second).unwrap();
    let received = receive(&frames, &mut []);
    assert!(matches!(received.report, Err(ShipError::HashCount { wanted: 64, got: 3 })));

    // The same where the hashes of leaves are wanting.
    let tree = |leaves| shipper::ReplicaHashes {
        blocks: Box::new(|range: shipper::BlockRange| Ok(vec![[0; 32]; range.count as usize])),
        leaves: Some(leaves),
    };
    let failing = tree(Box::new(|_| Err("the target is gone".into())));
    let (of_tree, frames) = job_of_tree(handle, whole(&disk, COMPARE), 1, Some(failing));
    engine.ship(of_tree).unwrap();
    assert!(matches!(receive(&frames, &mut []).report, Err(ShipError::Hashes(_))));
    let short = tree(Box::new(|_| Ok(Vec::new())));
    let (of_tree, frames) = job_of_tree(handle, whole(&disk, COMPARE), 1, Some(short));
    engine.ship(of_tree).unwrap();
    let received = receive(&frames, &mut []);
    assert!(matches!(received.report, Err(ShipError::HashCount { got: 0, .. })));
    let panicking = tree(Box::new(|_| panic!("on purpose")));
    let (of_tree, frames) = job_of_tree(handle, whole(&disk, COMPARE), 1, Some(panicking));
    engine.ship(of_tree).unwrap();
    assert!(matches!(receive(&frames, &mut []).report, Err(ShipError::Stopped)));

    let panicking = Box::new(|_| panic!("on purpose"));
    let (third, frames) = job(handle, whole(&disk, COMPARE), 1, Some(panicking));
    engine.ship(third).unwrap();
    assert!(matches!(receive(&frames, &mut []).report, Err(ShipError::Stopped)));
    settle(&engine);
}

#[test]
fn a_removed_disk_fails_its_shipments_and_no_others() {
    let (gone, kept) = (Disk::new(noise(16 * MIB, 1)), Disk::new(noise(16 * MIB, 2)));
    let engine = small_engine();
    let first = engine.add_disk(gone.source()).unwrap();
    let second = engine.add_disk(kept.source()).unwrap();
    let (of_gone, gone_frames) = job(first, whole(&gone, SEED), 1, None);
    let (of_kept, kept_frames) = job(second, whole(&kept, SEED), 1, None);
    engine.ship(of_gone).unwrap();
    engine.ship(of_kept).unwrap();
    engine.remove_disk(first);
    // Another disk gets its place, while reads of the first may be queued.
    let third = engine.add_disk(kept.source()).unwrap();
    let (of_third, third_frames) = job(third, whole(&kept, SEED), 1, None);
    engine.ship(of_third).unwrap();

    let received = receive(&gone_frames, &mut vec![0; 16 * MIB]);
    assert!(matches!(received.report, Err(ShipError::DiskRemoved)) && !received.ended);
    for frames in [kept_frames, third_frames] {
        let mut replica = vec![0; 16 * MIB];
        receive(&frames, &mut replica).report();
        assert!(replica == kept.content);
    }
    let (late, frames) = job(first, whole(&gone, SEED), 1, None);
    engine.ship(late).unwrap();
    assert!(matches!(receive(&frames, &mut []).report, Err(ShipError::DiskRemoved)));
    settle(&engine);
}

#[test]
fn a_limit_holds_until_it_is_lifted() {
    let disk = Disk::new(noise(16 * MIB, 1));
    let limits =
        Limits { bytes_per_second: NonZeroU64::new(1), reads_per_second: NonZeroU64::new(1) };
    let engine = Engine::start(EngineConfig { limits, ..EngineConfig::default() }).unwrap();
    let handle = engine.add_disk(disk.source()).unwrap();
    let (job, frames) = job(handle, whole(&disk, SEED), 1, None);
    let shipment = engine.ship(job).unwrap();
    // The first read passes and has to be paid for with 12 days.
    assert!(matches!(frames.recv().unwrap(), ShipOutput::Frame(_)));
    assert_eq!(shipment.progress().read, MIB as u64);
    engine.limit(Limits::default());
    assert!(frames.iter().any(|output| matches!(output, ShipOutput::Done(_))));
}

#[test]
fn a_limited_engine_can_be_dropped() {
    let disk = Disk::new(noise(16 * MIB, 1));
    let limits = Limits { bytes_per_second: NonZeroU64::new(1), ..Limits::default() };
    let engine = Engine::start(EngineConfig { limits, ..EngineConfig::default() }).unwrap();
    let handle = engine.add_disk(disk.source()).unwrap();
    let (job, frames) = job(handle, whole(&disk, SEED), 1, None);
    engine.ship(job).unwrap();
    drop(engine);
    assert!(!frames.iter().any(|output| matches!(output, ShipOutput::Done(_))));
}

#[test]
fn epochs_of_another_disk_are_refused() {
    let (disk, other) = (Disk::new(noise(MIB, 1)), Disk::new(noise(2 * MIB, 1)));
    let engine = small_engine();
    let handle = engine.add_disk(disk.source()).unwrap();
    let (job, _frames) = job(handle, whole(&other, SEED), 1, None);
    assert!(matches!(engine.ship(job), Err(ShipRefused::Length { epoch: 512, disk: 256 })));
    settle(&engine);
}

#[test]
fn a_pool_without_room_for_a_batch_is_refused() {
    let start =
        |pool| Engine::start(EngineConfig { pool: ByteLen(pool), ..EngineConfig::default() });
    assert!(matches!(start(1 << 20), Err(StartError::PoolSize(_))));
    assert!(matches!(start(1 << 40), Err(StartError::PoolSize(_))));
}
