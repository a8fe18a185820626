//! What a comparison leaves out must be in the replica for good: a hash is a promise.

use std::sync::Arc;

use blocks::{
    Epoch,
    EpochKind::{Compare, Seed},
};
use storage::{
    FaultyStorage,
    faulty::{Fate, Fault},
};

use super::source::{Fill, Plan, SECTORS, append_all, piece, plan, send, spec};
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
