//! Shipments that go well: the replica equals the disk.

use std::sync::{Arc, Mutex};

use blocks::EpochKind;
use shipper::{
    BlockHash, BlockRange, Compression, Engine, EngineConfig, HASHES_PER_REQUEST, IoPriority,
    LeavesOfBlock, ReplicaHashes, Stage,
};

use crate::{
    COMPARE, DELTA, SEED,
    disk::{Disk, LoopDevice, mixed, noise, text},
    epoch_of, job, job_of_tree,
    receiver::receive,
    small_engine, whole,
};

const MIB: usize = 1 << 20;

/// Ships the whole disk to a replica full of ones.
fn seed(engine: &Engine, disk: &Disk, path: &std::path::Path) -> crate::receiver::Received {
    let handle = engine.add_disk(disk.source_at(path)).unwrap();
    let (job, frames) = job(handle, whole(disk, SEED), 4, None);
    let shipment = engine.ship(job).unwrap();
    let mut replica = vec![0xFF; disk.content.len()];
    let received = receive(&frames, &mut replica);
    assert!(replica == disk.content, "the replica equals the disk");
    let progress = shipment.progress();
    assert_eq!(progress.planned, disk.content.len() as u64);
    assert_eq!((progress.read, progress.sent), (progress.planned, progress.planned));
    assert_eq!(progress.wire, received.report().wire_bytes);
    received
}

#[test]
fn a_disk_of_all_kinds_of_content_and_odd_length() {
    let disk = Disk::new(mixed(23 * MIB + 5 * 512, 1));
    let report = seed(&small_engine(), &disk, disk.path()).report();
    assert_eq!(report.kind, EpochKind::Seed);
    assert_eq!(report.covered_bytes, disk.content.len() as u64);
    assert_eq!(report.covered_bytes, report.data_bytes + report.zero_bytes);
    assert_eq!(report.read_bytes, report.covered_bytes);
    assert!(report.packed_bytes < report.data_bytes);
}

#[test]
fn a_disk_of_one_sector() {
    let disk = Disk::new(noise(512, 1));
    seed(&small_engine(), &disk, disk.path());
}

#[test]
fn zeroes_travel_as_one_extent() {
    let disk = Disk::new(vec![0; 40 * MIB]);
    let report = seed(&small_engine(), &disk, disk.path()).report();
    assert_eq!((report.frames, report.data_bytes), (1, 0));
    assert!(report.wire_bytes < 1000);
}

#[test]
fn noise_travels_as_it_is_and_text_does_not() {
    let engine = small_engine();
    let disk = Disk::new(noise(8 * MIB, 2));
    let received = seed(&engine, &disk, disk.path());
    assert_eq!(received.raw_frames, 8);
    let disk = Disk::new(text(1).take(8 * MIB).collect());
    let received = seed(&engine, &disk, disk.path());
    assert_eq!(received.raw_frames, 0);
    assert!(received.report().packed_bytes < 4 * MIB as u64);
}

#[test]
fn without_compression_all_travels_as_it_is_even_at_the_lowest_priority() {
    let compression = Compression::Off;
    let priority = Some(IoPriority::Idle);
    let config = EngineConfig { compression, priority, ..EngineConfig::default() };
    let engine = Engine::start(config).unwrap();
    assert_eq!(engine.status().level, None);
    let disk = Disk::new(text(1).take(3 * MIB).collect());
    let received = seed(&engine, &disk, disk.path());
    assert_eq!(received.raw_frames, received.report().frames);
}

#[test]
fn a_loop_device_with_large_logical_blocks() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: a loop device needs root");
        return;
    }
    for logical_block in [512, 4096] {
        let disk = Disk::with_blocks(mixed(9 * MIB + 4096, 3), logical_block);
        let device = LoopDevice::attach(&disk);
        let engine = small_engine();
        seed(&engine, &disk, device.path());
    }
}

#[test]
fn a_delta_carries_its_chunks_and_nothing_else() {
    let mut disk = Disk::new(mixed(16 * MIB + 512, 4));
    let mut replica = disk.content.clone();
    let last = disk.geometry.chunks() - 1;
    let runs: Vec<_> = (0..last).step_by(7).map(|chunk| (chunk, chunk + 1)).collect();
    let unmarked = disk.content[4096..8192].to_vec();
    for (chunk, _) in &runs {
        disk.write(*chunk as usize * 4096, &noise(4096, *chunk));
    }
    disk.write(last as usize * 4096, &[3; 512]);
    disk.write(4096, &[9; 4096]);
    let engine = small_engine();
    let handle = engine.add_disk(disk.source()).unwrap();
    let marked = [runs, vec![(last, last + 1)]].concat();
    let (job, frames) = job(handle, epoch_of(&disk, 5, &marked, DELTA), 2, None);
    engine.ship(job).unwrap();
    let report = receive(&frames, &mut replica).report();
    disk.content[4096..8192].copy_from_slice(&unmarked);
    assert!(replica == disk.content, "what was marked is there, what was not is not");
    assert_eq!(report.covered_bytes, (marked.len() as u64 - 1) * 4096 + 512);
    assert_eq!(report.kind, EpochKind::Delta);
}

#[test]
fn an_epoch_of_nothing_has_an_end() {
    let disk = Disk::new(noise(MIB, 1));
    let engine = small_engine();
    let handle = engine.add_disk(disk.source()).unwrap();
    for coverage in [DELTA, SEED, COMPARE] {
        let (job, frames) = job(handle, epoch_of(&disk, 1, &[], coverage), 1, None);
        engine.ship(job).unwrap();
        let report = receive(&frames, &mut []).report();
        assert_eq!((report.frames, report.covered_bytes), (0, 0));
    }
}

#[test]
fn a_comparison_sends_only_what_differs() {
    let mut disk = Disk::new(mixed(40 * MIB + 3 * 512, 5));
    let mut replica = disk.content.clone();
    for at in [0, 5 * MIB + 100, 33 * MIB, 40 * MIB + 512] {
        disk.write(at, &noise(300, at as u64));
    }
    let engine = small_engine();
    let handle = engine.add_disk(disk.source()).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let hashes = {
        let (asked, replica) = (Arc::clone(&asked), replica.clone());
        move |range: BlockRange| {
            asked.lock().unwrap().push(range);
            Ok(hashes_of(&replica, range))
        }
    };
    let (job, frames) = job(handle, whole(&disk, COMPARE), 2, Some(Box::new(hashes)));
    engine.ship(job).unwrap();
    let report = receive(&frames, &mut replica).report();
    assert!(replica == disk.content);
    assert_eq!(report.data_bytes + report.zero_bytes, 3 * 65536 + 1536);
    assert_eq!(report.covered_bytes, disk.content.len() as u64);
    assert_eq!(report.unchanged_bytes, report.covered_bytes - 3 * 65536 - 1536);
    let asked = asked.lock().unwrap();
    assert_eq!(*asked, [BlockRange { first: 0, count: 641 }]);
    assert!(asked.iter().all(|range| range.count <= HASHES_PER_REQUEST));
    assert_eq!(engine.latencies(Stage::Compare).len(), 41);
}

#[test]
fn of_a_block_that_differs_only_the_leaves_that_do_are_sent() {
    let mut disk = Disk::new(mixed(40 * MIB + 3 * 512, 5));
    let mut replica = disk.content.clone();
    // Two leaves of one block, one over the edge of two blocks, the short end; one that is zeroes.
    for at in [0, 5 * MIB + 100, 5 * MIB + 9000, 33 * MIB - 150, 40 * MIB + 512] {
        disk.write(at, &noise(300, at as u64));
    }
    disk.write(20 * MIB, &[0; 4096]);
    replica[20 * MIB..20 * MIB + 4096].fill(7);
    let engine = small_engine();
    let handle = engine.add_disk(disk.source()).unwrap();
    let asked = Arc::new(Mutex::new(Vec::<u64>::new()));
    let (of_blocks, of_leaves) = (replica.clone(), replica.clone());
    let leaves = {
        let asked = Arc::clone(&asked);
        move |blocks: &[u64]| {
            asked.lock().unwrap().extend(blocks);
            assert!(blocks.is_sorted_by(|a, b| a < b), "{blocks:?}");
            Ok(blocks.iter().map(|block| leaves_of(&of_leaves, *block)).collect())
        }
    };
    let hashes = ReplicaHashes {
        blocks: Box::new(move |range| Ok(hashes_of(&of_blocks, range))),
        leaves: Some(Box::new(leaves)),
    };
    let (job, frames) = job_of_tree(handle, whole(&disk, COMPARE), 2, Some(hashes));
    engine.ship(job).unwrap();
    let report = receive(&frames, &mut replica).report();
    assert!(replica == disk.content);
    assert_eq!((report.data_bytes, report.zero_bytes), (5 * 4096 + 1536, 4096));
    let mut asked = asked.lock().unwrap().clone();
    asked.sort_unstable();
    assert_eq!(asked, [0, 80, 320, 527, 528, 640]);
}

fn leaves_of(content: &[u8], block: u64) -> LeavesOfBlock {
    let mut leaves = [[0; 32]; 16];
    let block = content.chunks(65536).nth(block as usize).unwrap();
    for (place, leaf) in block.chunks(4096).enumerate() {
        leaves[place] = wire::leaf::leaf_hash(place, leaf);
    }
    leaves
}

fn hashes_of(content: &[u8], range: BlockRange) -> Vec<BlockHash> {
    let blocks = content.chunks(65536).skip(range.first as usize).take(range.count as usize);
    blocks.map(|block| *blake3::hash(block).as_bytes()).collect()
}

#[test]
fn a_comparison_without_hashes_sends_everything() {
    let disk = Disk::new(noise(3 * MIB, 5));
    let engine = small_engine();
    let handle = engine.add_disk(disk.source()).unwrap();
    let (job, frames) = job(handle, whole(&disk, COMPARE), 2, None);
    engine.ship(job).unwrap();
    let mut replica = vec![1; disk.content.len()];
    assert_eq!(receive(&frames, &mut replica).report().unchanged_bytes, 0);
    assert!(replica == disk.content);
}

#[test]
fn a_delta_takes_no_notice_of_hashes() {
    let disk = Disk::new(noise(MIB, 5));
    let engine = small_engine();
    let handle = engine.add_disk(disk.source()).unwrap();
    let hashes = Box::new(|_| panic!("a delta is whole"));
    let (job, frames) = job(handle, whole(&disk, DELTA), 2, Some(hashes));
    engine.ship(job).unwrap();
    let mut replica = vec![1; disk.content.len()];
    receive(&frames, &mut replica).report();
    assert!(replica == disk.content);
}
