//! Files of version 1 of every format, as they were once written: they must stay readable.
//!
//! A disk that follows, with a comparison and a delta that wait to be folded into a base of zeroes.

use std::{path::PathBuf, sync::Arc};

use blocks::{
    Epoch,
    EpochKind::{Compare, Delta},
};
use storage::{
    FaultyStorage, FileStorage, OpenMode, Storage, StorePath, create_dirs, read_whole, write_whole,
};

use super::{
    scenario::{disk_path, read_base},
    source::{DISK_LEN, Fill, Plan, append_all, piece, plan, spec},
};
use crate::{Completeness, DiskState, Parallelism, Store};

const NAMES: [&str; 5] = ["version", "key", "catalog", "1.delta", "2.delta"];

fn golden() -> FileStorage {
    FileStorage::shared(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden"))
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

#[test]
fn a_store_of_version_1_is_read() {
    let storage = FaultyStorage::new();
    for dir in [StorePath::root().join("keys"), disk_path().join("deltas")] {
        create_dirs(&storage, &dir).unwrap();
    }
    create_dirs(&storage, &disk_path().join("incoming")).unwrap();
    for name in NAMES {
        let bytes = read_whole(&golden(), &StorePath::root().join(name), 1 << 20).unwrap();
        write_whole(&storage, &place(name), &bytes).unwrap();
    }
    let base = storage.open(&disk_path().join("base"), OpenMode::Create).unwrap();
    base.set_len(spec().geometry.len()).unwrap();

    let store = Store::open_on(Arc::new(storage.clone()), Parallelism::Caller).unwrap();
    let disk = store.open_disk(&spec()).unwrap();
    let state = DiskState { last_durable: Epoch(2), completeness: Completeness::Follows };
    assert_eq!(disk.state(), state);
    let mut expected = vec![0; DISK_LEN];
    plans().iter().for_each(|plan| plan.apply(&mut expected));
    assert!(read_base(&storage) == expected);
}

#[test]
#[ignore = "writes the golden files; only a new version of a format needs new ones beside the old"]
fn write_the_golden_store() {
    let storage = FaultyStorage::new();
    Store::init_on(&storage).unwrap();
    let store = Store::open_on(Arc::new(storage.clone()), Parallelism::Caller).unwrap();
    let disk = store.open_disk(&spec()).unwrap();
    for plan in plans() {
        let mut incoming = disk.begin(plan.link).unwrap();
        append_all(&mut incoming, &plan).unwrap();
        incoming.commit().unwrap();
    }
    for name in NAMES {
        let bytes = read_whole(&storage, &place(name), 1 << 20).unwrap();
        write_whole(&golden(), &StorePath::root().join(name), &bytes).unwrap();
    }
}
