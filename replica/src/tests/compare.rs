//! What a comparison leaves out must be in the replica for good: a hash is a promise.

use std::sync::Arc;

use blocks::{
    Epoch,
    EpochKind::{Compare, Delta, Seed},
};
use storage::{
    FaultyStorage, OpenMode, Storage, StorageFile,
    faulty::{Fate, Fault},
};
use wire::{leaf::block_hash, message::HashedFrom};

use super::{
    scenario::{disk_path, read_base},
    source::{DISK_LEN, Fill, Plan, SECTORS, append_all, piece, plan, send, spec},
};
use crate::{Disk, Parallelism, Store};

fn open(storage: &FaultyStorage) -> (Store, Disk) {
    let store = Store::open_on(Arc::new(storage.clone()), Parallelism::Caller).unwrap();
    let disk = store.open_disk(&spec()).unwrap();
    (store, disk)
}

fn new_disk() -> (FaultyStorage, Store, Disk) {
    let storage = FaultyStorage::new();
    Store::init_on(&storage).unwrap();
    let (store, disk) = open(&storage);
    (storage, store, disk)
}

/// A disk with a first segment, and the second: two frames, the first of a compare block.
fn seeding() -> (FaultyStorage, Store, Disk, Plan) {
    let (storage, store, disk) = new_disk();
    send(&disk, &plan(Seed, 1, false, &[piece(0, 9, Fill::Same(1))]));
    let rest = u32::try_from(SECTORS - 128).unwrap();
    let pieces = [piece(0, 128, Fill::Noise(1)), piece(128, rest, Fill::Noise(2))];
    (storage, store, disk, plan(Seed, 2, false, &pieces))
}

/// Asks for hashes, commits a comparison that leaves everything out, loses power, and asks again.
fn hashes_outlive_a_crash(storage: &FaultyStorage, disk: &Disk) {
    let before = disk.hashes(0, 3).unwrap().hashes;
    let epoch = disk.state().last_durable.next().0;
    send(disk, &plan(Compare, epoch, true, &[]));
    for fate in [Fate::Dropped, Fate::Kept, Fate::Torn { bytes: 700 }] {
        let after = storage.after_crash(|_| fate);
        let (_store, disk) = open(&after);
        assert_eq!(disk.state().last_durable, Epoch(epoch));
        assert!(disk.hashes(0, 3).unwrap().hashes == before, "{fate:?}");
    }
}

#[test]
fn what_a_seed_that_was_given_up_left_is_durable_once_it_is_hashed() {
    let (storage, _store, disk, seed) = seeding();
    let mut incoming = disk.begin(seed.link).unwrap();
    append_all(&mut incoming, &seed).unwrap();
    drop(incoming);
    hashes_outlive_a_crash(&storage, &disk);
}

#[test]
fn what_a_killed_process_left_is_durable_once_it_is_hashed() {
    let (storage, store, disk, seed) = seeding();
    let mut incoming = disk.begin(seed.link).unwrap();
    append_all(&mut incoming, &seed).unwrap();
    drop((incoming, disk, store));
    let (_store, disk) = open(&storage);
    hashes_outlive_a_crash(&storage, &disk);
}

#[test]
fn what_a_failed_sync_left_in_the_cache_is_not_hashed() {
    let (storage, store, disk, seed) = seeding();
    let mut incoming = disk.begin(seed.link).unwrap();
    append_all(&mut incoming, &seed).unwrap();
    storage.fail_at(storage.operations(), Fault::Sync);
    incoming.commit().unwrap_err();
    assert!(disk.hashes(0, 1).is_err(), "nothing is believed before it is opened again");
    assert!(disk.begin(seed.link).is_err());
    assert!(disk.fold_one().is_err());
    drop((disk, store));
    let (_store, disk) = open(&storage);
    hashes_outlive_a_crash(&storage, &disk);
}

#[test]
fn an_epoch_of_nothing_is_an_epoch() {
    let (storage, store, disk) = new_disk();
    send(&disk, &plan(Seed, 1, true, &[]));
    drop((disk, store));
    let (_store, disk) = open(&storage);
    hashes_outlive_a_crash(&storage, &disk);
}

/// Where a disk keeps the hashes of its base's leaves.
fn kept(storage: &FaultyStorage) -> Arc<dyn StorageFile> {
    storage.open(&disk_path().join("hashes"), OpenMode::Write).unwrap()
}

/// Makes the base hold something else than was written to it, behind the store's back.
fn decay(storage: &FaultyStorage, at: u64) {
    let base = storage.open(&disk_path().join("base"), OpenMode::Write).unwrap();
    let mut byte = [0];
    base.read_exact_at(at, &mut byte).unwrap();
    base.write_at(at, &[!byte[0]]).unwrap();
}

/// A disk that follows, all of it in the base, and what it holds.
fn following(disk: &Disk) -> Vec<u8> {
    let plans = [
        plan(Seed, 1, false, &[piece(0, 150, Fill::Noise(1)), piece(150, 30, Fill::Zero)]),
        plan(Seed, 2, true, &[piece(180, 137, Fill::Noise(2))]),
        plan(Delta, 3, true, &[piece(5, 1, Fill::Same(3)), piece(187, 10, Fill::Zero)]),
    ];
    plans.iter().for_each(|plan| send(disk, plan));
    while disk.fold_one().unwrap().is_some() {}
    let mut content = vec![0; DISK_LEN];
    plans.iter().for_each(|plan| plan.apply(&mut content));
    content
}

fn block_hashes(content: &[u8]) -> Vec<[u8; 32]> {
    content.chunks(64 * 1024).map(|block| *blake3::hash(block).as_bytes()).collect()
}

#[test]
fn a_comparison_does_not_read_the_base() {
    let (storage, store, disk) = new_disk();
    let expected = block_hashes(&following(&disk));
    assert!(disk.hashes(0, 3).unwrap().hashes == expected);
    // What the medium holds is not looked at, not even after the disk was opened anew.
    decay(&storage, 70_000);
    assert!(disk.hashes(0, 3).unwrap().hashes == expected);
    drop((disk, store));
    let (_store, disk) = open(&storage);
    assert!(disk.hashes(0, 3).unwrap().hashes == expected);
    let leaves = disk.leaves(HashedFrom::Kept, &[1]).unwrap().blocks[0];
    assert_eq!(leaves.decayed, 0);
    assert_eq!(block_hash(&leaves.hashes), Some(expected[1]));
    // But who asks for it is told.
    let leaves = disk.leaves(HashedFrom::Medium, &[1]).unwrap().blocks[0];
    assert_eq!(leaves.decayed, 1 << ((70_000 - 65_536) / 4096));
    assert_ne!(block_hash(&leaves.hashes), Some(expected[1]));
    // And from then on a comparison finds it.
    assert_eq!(disk.hashes(0, 3).unwrap().hashes, block_hashes(&read_base(&storage)));
}

#[test]
fn hashes_that_are_not_kept_are_made_from_the_base_and_kept() {
    let (storage, store, disk) = new_disk();
    let expected = block_hashes(&following(&disk));
    drop((disk, store));
    // As a store has it that an earlier version wrote, or one from which the file was lost.
    storage.remove(&disk_path().join("hashes")).unwrap();
    let (store, disk) = open(&storage);
    let parts = [disk.hashes(0, 1), disk.hashes(1, 2)].map(|part| part.unwrap().hashes).concat();
    for (block, (part, expected)) in parts.iter().zip(&expected).enumerate() {
        assert!(part == expected, "block {block}");
    }
    drop((disk, store));
    let storage = storage.after_crash(|_| Fate::Dropped);
    decay(&storage, 0);
    let (_store, disk) = open(&storage);
    assert!(disk.hashes(0, 3).unwrap().hashes == expected, "they are kept, and durable");
}

#[test]
fn an_entry_that_is_wrong_costs_a_difference_and_hides_none() {
    let (storage, _store, disk) = new_disk();
    let content = following(&disk);
    kept(&storage).write_at(20 * 32 + 7, &[0xff]).unwrap();
    let hashes = disk.hashes(0, 3).unwrap().hashes;
    let expected = block_hashes(&content);
    assert!(hashes[0] == expected[0] && hashes[1] != expected[1] && hashes[2] == expected[2]);
}

#[test]
fn a_seed_that_is_given_up_leaves_no_hash_of_what_it_wrote_over() {
    let (storage, _store, disk) = new_disk();
    let first = plan(Seed, 1, false, &[piece(0, 317, Fill::Noise(1))]);
    send(&disk, &first);
    let second = plan(Seed, 2, true, &[piece(100, 60, Fill::Noise(2))]);
    let mut incoming = disk.begin(second.link).unwrap();
    append_all(&mut incoming, &second).unwrap();
    // A power cut in the middle of it, after which the medium has some of base and hashes.
    let unflushed = storage.unflushed();
    assert!((2..12).contains(&unflushed), "{unflushed}");
    for kept in 0..1u32 << unflushed {
        let fate = |i: usize| if kept >> i & 1 == 1 { Fate::Kept } else { Fate::Dropped };
        let after = storage.after_crash(fate);
        let (_store, disk) = open(&after);
        assert_eq!(disk.state().last_durable, Epoch(1));
        assert!(disk.hashes(0, 3).unwrap().hashes == block_hashes(&read_base(&after)), "{kept:b}");
    }
    // And a lost connection.
    drop(incoming);
    assert!(disk.hashes(0, 3).unwrap().hashes == block_hashes(&read_base(&storage)));
}
