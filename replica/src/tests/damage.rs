//! Damaged files: an error that names them, never a panic, never content that was not sent.

use std::sync::Arc;

use blocks::{
    Epoch,
    EpochKind::{Compare, Delta, Seed},
};
use storage::{FaultyStorage, OpenMode, Storage, StorePath, faulty::Fate, read_whole};

use super::{
    scenario::{disk_path, read_base},
    source::{Fill, SECTORS, piece, plan, send, spec},
};
use crate::{FailureClass, Parallelism, RecoverError, Store};

fn open(storage: &FaultyStorage) -> Store {
    Store::open_on(Arc::new(storage.clone()), Parallelism::Caller).unwrap()
}

/// A store with a disk of which two deltas wait to be folded.
fn pending() -> FaultyStorage {
    let storage = FaultyStorage::new();
    Store::init_on(&storage).unwrap();
    let disk = open(&storage).open_disk(&spec()).unwrap();
    send(&disk, &plan(Seed, 1, true, &[piece(0, 100, Fill::Noise(1))]));
    send(&disk, &plan(Delta, 2, true, &[piece(3, 2, Fill::Noise(2)), piece(9, 4, Fill::Zero)]));
    send(&disk, &plan(Delta, 3, true, &[piece(4, 1, Fill::Same(3))]));
    storage
}

fn delta_path(epoch: u64) -> StorePath {
    disk_path().join("deltas").join(&format!("{epoch}.delta"))
}

fn copy_of(storage: &FaultyStorage) -> FaultyStorage {
    storage.after_crash(|_| Fate::Kept)
}

fn read(storage: &FaultyStorage, path: &StorePath) -> Vec<u8> {
    read_whole(storage, path, 1 << 20).unwrap()
}

fn overwrite(storage: &FaultyStorage, path: &StorePath, bytes: &[u8]) {
    storage.open(path, OpenMode::Create).unwrap().write_at(0, bytes).unwrap();
}

/// The class of the error that keeps the disk from being opened.
fn refused(storage: &FaultyStorage) -> FailureClass {
    let store = open(storage);
    let [(disk, error)] = store.damaged() else { panic!("{:?}", store.damaged()) };
    assert_eq!(*disk, spec().id);
    let class = error.class();
    assert_eq!(store.open_disk(&spec()).unwrap_err().class(), class);
    class
}

/// The class of the error that keeps the disk from being opened or, at the latest, a delta from
/// being folded.
fn refused_by_the_fold(storage: &FaultyStorage) -> FailureClass {
    if !open(storage).damaged().is_empty() {
        return refused(storage);
    }
    let disk = open(storage).open_disk(&spec()).unwrap();
    std::iter::repeat_with(|| disk.fold_one()).find_map(Result::err).unwrap().class()
}

#[test]
fn every_byte_of_a_delta_is_covered() {
    let storage = pending();
    let bytes = read(&storage, &delta_path(2));
    let base = read_base(&storage);
    for at in 0..bytes.len() {
        let damaged = copy_of(&storage);
        let mut changed = bytes.clone();
        changed[at] ^= 0x20;
        overwrite(&damaged, &delta_path(2), &changed);
        assert_eq!(refused_by_the_fold(&damaged), FailureClass::Corrupt, "byte {at}");
        let report = open(&damaged).verify_at_rest().unwrap();
        assert_eq!(report.damage.len(), 1, "byte {at}");
        // Frames before the damage may have been applied; what was damaged was not.
        let after = read_base(&damaged);
        let beyond = 13 * 512;
        assert!(after[beyond..] == base[beyond..], "byte {at}");
    }
}

#[test]
fn a_delta_cut_short_or_made_longer_is_refused() {
    let storage = pending();
    let bytes = read(&storage, &delta_path(2));
    for len in (0..bytes.len()).step_by(7) {
        let damaged = copy_of(&storage);
        overwrite(&damaged, &delta_path(2), &bytes[..len]);
        assert_eq!(refused(&damaged), FailureClass::Corrupt, "{len} bytes");
    }
    let damaged = copy_of(&storage);
    overwrite(&damaged, &delta_path(2), &[&bytes[..], &[0]].concat());
    assert_eq!(refused(&damaged), FailureClass::Corrupt);
}

#[test]
fn deltas_that_are_missing_or_under_another_name_break_the_chain() {
    for (from, to) in [(2, 9), (3, 9), (2, 3), (3, 2)] {
        let storage = pending();
        storage.rename(&delta_path(from), &delta_path(to)).unwrap();
        assert_eq!(refused(&storage), FailureClass::Corrupt, "{from} under the name of {to}");
    }
    let storage = pending();
    storage.remove(&delta_path(2)).unwrap();
    let store = open(&storage);
    let [(_, error)] = store.damaged() else { panic!("{:?}", store.damaged()) };
    let RecoverError::BrokenChain { folded, reached, last_durable } = error else {
        panic!("{error}")
    };
    assert_eq!((*folded, *reached, *last_durable), (Epoch(1), Epoch(2), Epoch(3)));
}

#[test]
fn a_delta_of_another_attempt_at_the_same_epoch_is_whole_by_itself() {
    // Sealed by another session: the frames of two attempts can't be mixed.
    let storage = pending();
    let other = pending();
    let (mine, theirs) = (read(&storage, &delta_path(2)), read(&other, &delta_path(2)));
    assert_eq!(mine.len(), theirs.len());
    let half = mine.len() / 2;
    overwrite(&storage, &delta_path(2), &[&mine[..half], &theirs[half..]].concat());
    assert_eq!(refused_by_the_fold(&storage), FailureClass::Corrupt);
}

#[test]
fn a_damaged_catalogue_falls_back_to_the_slot_before_or_is_refused() {
    let storage = pending();
    let path = disk_path().join("catalog");
    let bytes = read(&storage, &path);
    assert_eq!(bytes.len(), 2 * 4096);
    for (slot, other) in [(0, 4096), (4096, 0)] {
        let damaged = copy_of(&storage);
        let mut changed = bytes.clone();
        changed[slot + 40] ^= 1;
        overwrite(&damaged, &path, &changed);
        let store = open(&damaged);
        // The slot before was of epoch 2, or is not needed.
        assert!(store.damaged().is_empty(), "{:?}", store.damaged());
        let state = store.open_disk(&spec()).unwrap().state();
        assert!([Epoch(2), Epoch(3)].contains(&state.last_durable));

        changed[other + 40] ^= 1;
        overwrite(&damaged, &path, &changed);
        drop(store);
        assert_eq!(refused(&damaged), FailureClass::Corrupt);
        let listed = open(&damaged).disks().unwrap();
        assert!(listed[0].summary.is_err());
        assert_eq!(open(&damaged).verify_at_rest().unwrap().damage.len(), 1);
    }
}

#[test]
fn damaged_keys_and_bases_are_refused_and_other_disks_go_on() {
    let key = StorePath::root().join("keys").join(&format!("{}.key", spec().id));
    let storage = pending();
    overwrite(&storage, &key, b"no key");
    assert_eq!(refused(&storage), FailureClass::Corrupt);
    let other = crate::DiskSpec { id: blocks::DiskId([2; 16]), ..spec() };
    let store = open(&storage);
    store.open_disk(&other).unwrap();
    assert_eq!(store.disks().unwrap().len(), 2);
    drop(store);

    let storage = pending();
    storage.remove(&key).unwrap();
    assert_eq!(refused(&storage), FailureClass::Corrupt);

    let storage = pending();
    storage.remove(&disk_path().join("base")).unwrap();
    assert_eq!(refused(&storage), FailureClass::Corrupt);

    let storage = pending();
    let base = storage.open(&disk_path().join("base"), OpenMode::Write).unwrap();
    base.set_len(blocks::ByteLen((SECTORS - 1) * 512)).unwrap();
    assert_eq!(refused(&storage), FailureClass::Corrupt);
}

#[test]
fn foreign_names_in_the_store_are_left_alone() {
    let storage = pending();
    overwrite(&storage, &disk_path().join("deltas").join("notes.txt"), b"mine");
    overwrite(&storage, &StorePath::root().join("disks").join("README"), b"mine");
    let store = open(&storage);
    assert!(store.damaged().is_empty(), "{:?}", store.damaged());
    let disk = store.open_disk(&spec()).unwrap();
    send(&disk, &plan(Compare, 4, true, &[]));
    assert_eq!(read(&storage, &disk_path().join("deltas").join("notes.txt")), b"mine");
}
