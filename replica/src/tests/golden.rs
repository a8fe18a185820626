//! Files of every version of every format, as they were once written: they must stay readable.
//!
//! Both stores hold a disk that follows, with a comparison and a delta that are not in the base, of
//! zeroes. In version 2 the delta makes a point, which is confirmed and pinned.

use std::{path::PathBuf, sync::Arc};

use blocks::{
    Epoch,
    EpochKind::{Compare, Delta},
    RetractReason,
};
use storage::{
    FaultyStorage, FileStorage, OpenMode, Storage, StorePath, create_dirs, read_whole, write_whole,
};

use super::{
    scenario::{disk_path, read_base},
    source::{DISK_LEN, Fill, Plan, newest, piece, plan, point, read_view, send, spec},
};
use crate::{Completeness, Disk, DiskState, Parallelism, PointStatus, Store};

const NAMES: [&str; 5] = ["version", "key", "catalog", "1.delta", "2.delta"];

fn golden(version: u16) -> FileStorage {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden");
    FileStorage::shared(&dir.join(version.to_string()))
}

fn place(name: &str) -> StorePath {
    match name {
        "version" => StorePath::root().join(name),
        "key" => StorePath::root().join("keys").join(&format!("{}.key", spec().id)),
        "catalog" => disk_path().join(name),
        delta => disk_path().join("deltas").join(delta),
    }
}

fn plans() -> [Plan; 2] {
    [
        plan(Compare, 1, true, &[piece(0, 3, Fill::Noise(1)), piece(9, 40, Fill::Same(1))]),
        plan(Delta, 2, true, &[piece(2, 1, Fill::Same(2)), piece(9, 3, Fill::Zero)]),
    ]
}

fn expected() -> Vec<u8> {
    let mut expected = vec![0; DISK_LEN];
    plans().iter().for_each(|plan| plan.apply(&mut expected));
    expected
}

/// The store of a version, opened.
fn open(version: u16) -> (FaultyStorage, Store, Disk) {
    let storage = FaultyStorage::new();
    for dir in [StorePath::root().join("keys"), disk_path().join("deltas")] {
        create_dirs(&storage, &dir).unwrap();
    }
    create_dirs(&storage, &disk_path().join("incoming")).unwrap();
    for name in NAMES {
        let file = StorePath::root().join(name);
        let bytes = read_whole(&golden(version), &file, 1 << 20).unwrap();
        write_whole(&storage, &place(name), &bytes).unwrap();
    }
    let base = storage.open(&disk_path().join("base"), OpenMode::Create).unwrap();
    base.set_len(spec().geometry.len()).unwrap();
    let store = Store::open_on(Arc::new(storage.clone()), Parallelism::Caller).unwrap();
    let disk = store.open_disk(&spec()).unwrap();
    let state = DiskState { last_durable: Epoch(2), completeness: Completeness::Follows };
    assert_eq!(disk.state(), state);
    assert!(newest(&disk) == expected());
    (storage, store, disk)
}

#[test]
fn a_store_of_version_1_is_read_and_goes_on() {
    let (storage, _store, disk) = open(1);
    assert_eq!(disk.history().points(), []);
    send(&disk, &Plan { point: Some(point(3, 1)), ..plan(Delta, 3, true, &[]) });
    assert!(read_view(&disk.history().view(Epoch(3)).unwrap()) == expected());
    while disk.fold_one().unwrap().is_some() {}
    assert!(read_base(&storage) == expected());
}

#[test]
fn a_store_of_version_2_is_read() {
    let (storage, _store, disk) = open(2);
    let points = disk.history().points();
    let shown: Vec<_> = points.iter().map(|p| (p.epoch, p.record, p.status, p.pinned)).collect();
    assert_eq!(shown, [(Epoch(2), point(2, 1), PointStatus::Confirmed, true)]);
    assert!(read_view(&disk.history().view(Epoch(2)).unwrap()) == expected());
    send(&disk, &Plan { point: Some(point(3, 1)), ..plan(Delta, 3, true, &[]) });
    let retracted = PointStatus::Retracted(RetractReason::Gap);
    assert_eq!(disk.history().points()[1].status, retracted);
    while disk.fold_one().unwrap().is_some() {}
    assert!(read_base(&storage) == expected());
}

#[test]
#[ignore = "writes the golden files; only a new version of a format needs new ones beside the old"]
fn write_the_golden_store() {
    let storage = FaultyStorage::new();
    Store::init_on(&storage).unwrap();
    let store = Store::open_on(Arc::new(storage.clone()), Parallelism::Caller).unwrap();
    let disk = store.open_disk(&spec()).unwrap();
    let [first, second] = plans();
    send(&disk, &first);
    send(&disk, &Plan { point: Some(point(2, 1)), ..second });
    disk.history().confirm(Epoch(2)).unwrap();
    disk.history().retract(Epoch(3)..=Epoch(4), RetractReason::Gap).unwrap();
    disk.history().pin(Epoch(2)).unwrap();
    for name in NAMES {
        let bytes = read_whole(&storage, &place(name), 1 << 20).unwrap();
        write_whole(&golden(2), &StorePath::root().join(name), &bytes).unwrap();
    }
}
