//! A store that runs out of room: nothing is lost, and it goes on when there is room again.

use std::{fs::File, io::Write};

use blocks::{
    EpochKind::{Delta, Seed},
    SECTOR_SIZE,
};
use replica::{Completeness, FailureClass, OpenDiskError, Store};

use super::setup::{Piece, SmallFileSystem, apply, send, skipped, spec};

/// 64 MiB, more than the file system has.
const SECTORS: u64 = 64 << 11;
const MIB: u32 = 1 << 11;

/// Takes all room that is left.
fn fill(file_system: &SmallFileSystem) -> std::path::PathBuf {
    let path = file_system.path().join("ballast");
    let mut ballast = File::create(&path).unwrap();
    while ballast.write_all(&[1; 4096]).is_ok() {}
    path
}

/// Gives it back. Cut first: a process that another test has just forked may hold the file.
fn free(ballast: &std::path::Path) {
    File::options().write(true).open(ballast).unwrap().set_len(0).unwrap();
    std::fs::remove_file(ballast).unwrap();
}

#[test]
fn a_full_store_says_so_loses_nothing_and_goes_on_when_there_is_room() {
    if skipped() {
        return;
    }
    let file_system = SmallFileSystem::new(40);
    let root = file_system.path().join("store");
    Store::init(&root).unwrap();
    let store = Store::open(&root).unwrap();
    let spec = spec(SECTORS);
    let ballast = fill(&file_system);
    let refused = store.open_disk(&spec).unwrap_err();
    assert!(matches!(refused, OpenDiskError::NoRoom { .. }), "{refused}");
    assert_eq!(refused.class(), FailureClass::StoreFull);
    free(&ballast);

    let disk = store.open_disk(&spec).unwrap();
    let mut content = vec![0; usize::try_from(SECTORS * SECTOR_SIZE).unwrap()];
    let whole: Vec<Piece> = (0..60).map(|i| (i * u64::from(MIB), MIB, 7)).collect();
    let refused = send(&disk, &spec, Seed, &whole).unwrap_err();
    assert_eq!(refused.class(), FailureClass::StoreFull, "{refused}");
    assert_eq!(disk.state().completeness, Completeness::Empty);
    // The same without most of what it had: punched holes give the room back.
    let seed: [Piece; 2] = [(0, MIB, 1), (u64::from(MIB), 63 * MIB, 0)];
    send(&disk, &spec, Seed, &seed).unwrap();
    apply(&mut content, &seed);
    assert!(store.usage().unwrap().bases.0 < 2 << 20);

    // No room for a delta; then for the delta, but not to fold it.
    let (first, second): ([Piece; 2], [Piece; 1]) =
        ([(9 * u64::from(MIB), MIB, 2), (10 * u64::from(MIB), MIB, 3)], [(5, 5, 4)]);
    let ballast = fill(&file_system);
    let refused = send(&disk, &spec, Delta, &first).unwrap_err();
    assert_eq!(refused.class(), FailureClass::StoreFull, "{refused}");
    assert_eq!(disk.pending_folds(), 0);
    free(&ballast);
    send(&disk, &spec, Delta, &first).unwrap();
    let ballast = fill(&file_system);
    let refused = disk.fold_one().unwrap_err();
    assert_eq!(refused.class(), FailureClass::StoreFull, "{refused}");
    assert_eq!(disk.pending_folds(), 1);
    let damaged = store.verify_at_rest().unwrap().damage;
    assert!(damaged.is_empty(), "{damaged:?}");
    free(&ballast);

    send(&disk, &spec, Delta, &second).unwrap();
    while disk.fold_one().unwrap().is_some() {}
    apply(&mut content, &first);
    apply(&mut content, &second);
    assert!(std::fs::read(disk.base_path()).unwrap() == content);
}
