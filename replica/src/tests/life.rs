//! What a disk and a store go through when nothing fails.

use std::{num::NonZeroUsize, sync::Arc};

use blocks::{
    ChunkSize, Epoch,
    EpochKind::{Compare, Delta, Seed},
    Generation, Geometry, MachineId,
};
use storage::{FaultyStorage, FileStorage, OpenMode, Storage, StorePath};
use wire::{DataKey, EpochLink, frame::ChainError};

use super::{
    scenario::{disk_path, read_base},
    source::{DISK_LEN, Fill, SECTORS, append_all, piece, plan, send, spec},
};
use crate::{
    BeginError, Completeness, ContentError, DiskSpec, FailureClass, HashError, IncomingError,
    InitError, OpenDiskError, OpenStoreError, Parallelism, Store,
};

fn open(storage: &FaultyStorage) -> Store {
    Store::open_on(Arc::new(storage.clone()), Parallelism::Caller).unwrap()
}

fn new_store() -> (FaultyStorage, Store) {
    let storage = FaultyStorage::new();
    Store::init_on(&storage).unwrap();
    let store = open(&storage);
    (storage, store)
}

/// A seed of the whole disk.
fn whole_seed() -> super::source::Plan {
    plan(
        Seed,
        1,
        true,
        &[
            piece(0, 200, Fill::Noise(1)),
            piece(200, u32::try_from(SECTORS - 200).unwrap(), Fill::Zero),
        ],
    )
}

#[test]
fn epochs_in_flight_side_by_side_are_committed_in_order() {
    let (storage, store) = new_store();
    let disk = store.open_disk(&spec()).unwrap();
    send(&disk, &whole_seed());
    let plans = [
        plan(Delta, 2, true, &[piece(3, 9, Fill::Noise(2))]),
        plan(Delta, 3, true, &[piece(5, 9, Fill::Same(3)), piece(20, 30, Fill::Zero)]),
    ];
    let mut incoming: Vec<_> = plans.iter().map(|plan| disk.begin(plan.link).unwrap()).collect();
    for (incoming, plan) in incoming.iter_mut().zip(&plans).rev() {
        append_all(incoming, plan).unwrap();
    }
    assert!(matches!(disk.begin(plans[0].link), Err(BeginError::Twice(Epoch(2)))));
    for incoming in incoming {
        incoming.commit().unwrap();
    }
    assert_eq!(disk.pending_folds(), 2);
    assert!(matches!(disk.begin(plans[0].link), Err(BeginError::NotNew { .. })));
    let mut expected = vec![0; DISK_LEN];
    whole_seed().apply(&mut expected);
    assert!(read_base(&storage) == expected, "nothing is in the base before it is folded");
    assert_eq!(disk.fold_one().unwrap(), Some(Epoch(2)));
    assert_eq!(disk.fold_one().unwrap(), Some(Epoch(3)));
    assert_eq!(disk.fold_one().unwrap(), None);
    plans.iter().for_each(|plan| plan.apply(&mut expected));
    assert!(read_base(&storage) == expected);
    assert_eq!(storage.list(&disk_path().join("deltas")).unwrap(), [""; 0]);
}

#[test]
fn an_epoch_out_of_order_is_refused_and_may_come_again() {
    let (_, store) = new_store();
    let disk = store.open_disk(&spec()).unwrap();
    send(&disk, &whole_seed());
    let second = plan(Delta, 2, true, &[piece(3, 9, Fill::Noise(2))]);
    let third = plan(Delta, 3, true, &[piece(3, 9, Fill::Noise(3))]);
    let mut early = disk.begin(third.link).unwrap();
    append_all(&mut early, &third).unwrap();
    let refused = early.commit();
    assert!(matches!(refused, Err(IncomingError::OutOfOrder { .. })), "{refused:?}");
    send(&disk, &second);
    send(&disk, &third);
}

#[test]
fn what_was_given_up_leaves_nothing() {
    let (storage, store) = new_store();
    let disk = store.open_disk(&spec()).unwrap();
    send(&disk, &whole_seed());
    let delta = plan(Delta, 2, true, &[piece(3, 9, Fill::Noise(2)), piece(90, 9, Fill::Same(2))]);
    let frames = delta.frames();
    let mut incoming = disk.begin(delta.link).unwrap();
    incoming.append(frames[0].clone()).unwrap();
    drop(incoming);
    assert_eq!(storage.list(&disk_path().join("incoming")).unwrap(), [""; 0]);

    // Frames missing, at the end or in the middle.
    for missing in 0..frames.len() {
        let mut incoming = disk.begin(delta.link).unwrap();
        let rest = frames.iter().enumerate().filter(|(i, _)| *i != missing);
        rest.for_each(|(_, frame)| incoming.append(frame.clone()).unwrap());
        let error = incoming.commit().unwrap_err();
        let expected = match missing {
            2 => matches!(error, IncomingError::Chain(ChainError::NoEnd)),
            _ => matches!(error, IncomingError::Chain(ChainError::Summary { .. })),
        };
        assert!(expected, "{error}");
        assert_eq!(error.class(), FailureClass::Refused);
    }
    send(&disk, &delta);
}

#[test]
fn frames_that_do_not_belong_are_refused() {
    let (_, store) = new_store();
    let disk = store.open_disk(&spec()).unwrap();
    send(&disk, &whole_seed());
    let delta = plan(Delta, 2, true, &[piece(3, 9, Fill::Noise(2))]);
    let begin = || disk.begin(delta.link).unwrap();
    let first_of = |spec: &DiskSpec| delta.frames_of(spec).remove(0);

    let other_generation = DiskSpec { generation: Generation([1; 16]), ..spec() };
    let refused = begin().append(first_of(&other_generation));
    assert!(matches!(refused, Err(IncomingError::Foreign { .. })));

    let other_epoch = plan(Delta, 3, true, &[piece(3, 9, Fill::Noise(2))]);
    let refused = begin().append(other_epoch.frames().remove(0));
    assert!(matches!(refused, Err(IncomingError::Foreign { .. })));

    // Another key: noticed before anything is acknowledged.
    let other_key = DiskSpec { key: DataKey::from_bytes([1; 32]), ..spec() };
    let mut incoming = begin();
    let frames = delta.frames_of(&other_key);
    let refused = frames.into_iter().try_for_each(|frame| incoming.append(frame));
    let refused = match refused {
        Ok(()) => incoming.commit().map(drop),
        refused => {
            drop(incoming);
            refused
        }
    };
    assert!(matches!(refused, Err(IncomingError::Content(ContentError::Open(_)))), "{refused:?}");

    let past_end = plan(Delta, 2, true, &[piece(SECTORS - 1, 2, Fill::Same(1))]);
    let refused = begin().append(past_end.frames().remove(0));
    assert!(matches!(refused, Err(IncomingError::Content(ContentError::PastEnd))));
    let mut incoming = begin();
    incoming.append(past_end.frames().remove(0)).unwrap_err();
    let after = incoming.append(delta.frames().remove(0));
    assert!(matches!(after, Err(IncomingError::FailedEarlier)));
    drop(incoming);
    send(&disk, &delta);
}

#[test]
fn a_frame_that_expands_past_its_length_is_refused() {
    let (_, store) = new_store();
    let disk = store.open_disk(&spec()).unwrap();
    for states in [8, 12] {
        let bomb = super::source::mislabelled(states);
        let mut incoming = disk.begin(super::source::link_of_first(Seed)).unwrap();
        incoming.append(bomb).unwrap();
        let refused = incoming.commit().unwrap_err();
        assert!(matches!(refused, IncomingError::Content(ContentError::Coding(_))), "{refused}");
    }
}

#[test]
fn a_delta_needs_a_point_and_a_seed_must_not_overwrite_one() {
    let (_, store) = new_store();
    let disk = store.open_disk(&spec()).unwrap();
    let partial = plan(Seed, 1, false, &[piece(0, 9, Fill::Noise(1))]);
    send(&disk, &partial);
    let delta = plan(Delta, 2, true, &[piece(3, 9, Fill::Noise(2))]);
    let mut incoming = disk.begin(delta.link).unwrap();
    append_all(&mut incoming, &delta).unwrap();
    assert!(matches!(incoming.commit(), Err(IncomingError::DeltaWithoutPoint)));

    send(&disk, &plan(Compare, 2, true, &[piece(3, 9, Fill::Noise(2))]));
    assert_eq!(disk.state().completeness, Completeness::Follows);
    let seed = EpochLink { kind: Seed, epoch: Epoch(3), follows: Epoch(2) };
    assert!(matches!(disk.begin(seed), Err(BeginError::SeedOverPoint)));
    let incomplete = plan(Delta, 3, false, &[piece(3, 9, Fill::Noise(2))]);
    let mut incoming = disk.begin(incomplete.link).unwrap();
    append_all(&mut incoming, &incomplete).unwrap();
    assert!(matches!(incoming.commit(), Err(IncomingError::IncompleteDelta)));
}

#[test]
fn seeds_take_turns_and_hashes_wait_for_them() {
    let (storage, store) = new_store();
    let disk = store.open_disk(&spec()).unwrap();
    let first = plan(Seed, 1, false, &[piece(0, 100, Fill::Noise(1))]);
    let second = plan(Seed, 2, false, &[piece(50, 100, Fill::Noise(2))]);
    let mut incoming = disk.begin(first.link).unwrap();
    assert!(matches!(disk.begin(second.link), Err(BeginError::SeedMustWait(Epoch(1)))));
    assert!(matches!(disk.hashes(0, 1), Err(HashError::Seeding(Epoch(1)))));
    let waiting = std::thread::spawn({
        let (disk, second) = (disk.clone(), second.clone());
        move || {
            disk.wait_for_seed_turn();
            disk.begin(second.link).map(drop)
        }
    });
    append_all(&mut incoming, &first).unwrap();
    incoming.commit().unwrap();
    waiting.join().unwrap().unwrap();
    send(&disk, &second);
    // Zeroes over what an epoch that was given up had written to a fresh base.
    let given_up = plan(Seed, 3, true, &[piece(200, 50, Fill::Noise(3))]);
    disk.begin(given_up.link).unwrap().append(given_up.frames().remove(0)).unwrap();
    let third = plan(Seed, 3, true, &[piece(0, 1, Fill::Same(9)), piece(150, 167, Fill::Zero)]);
    send(&disk, &third);
    let mut expected = vec![0; DISK_LEN];
    [&first, &second, &third].iter().for_each(|plan| plan.apply(&mut expected));
    assert!(read_base(&storage) == expected);
}

#[test]
fn hashes_are_of_whole_blocks_and_the_short_last_one() {
    let (_, store) = new_store();
    let disk = store.open_disk(&spec()).unwrap();
    send(&disk, &whole_seed());
    let delta = plan(Delta, 2, true, &[piece(SECTORS - 2, 2, Fill::Noise(2))]);
    send(&disk, &delta);
    let mut content = vec![0; DISK_LEN];
    whole_seed().apply(&mut content);
    delta.apply(&mut content);
    let blocks = content.chunks(64 * 1024);
    let expected: Vec<_> = blocks.map(|block| *blake3::hash(block).as_bytes()).collect();
    let all = disk.hashes(0, 3).unwrap();
    assert_eq!((all.as_of, &all.hashes), (Epoch(2), &expected));
    assert_eq!(disk.hashes(2, 1).unwrap().hashes, expected[2..]);
    assert_eq!(disk.hashes(3, 0).unwrap().hashes, expected[3..]);
    for (first, count) in [(0, 4), (3, 1), (u64::MAX, 1), (0, u32::MAX)] {
        let refused = disk.hashes(first, count);
        assert!(matches!(refused, Err(HashError::Range { .. })), "{first} {count}");
    }
}

#[test]
fn a_source_whose_story_does_not_fit_is_refused() {
    let (storage, store) = new_store();
    let disk = store.open_disk(&spec()).unwrap();
    send(&disk, &whole_seed());
    assert!(matches!(store.open_disk(&spec()), Err(OpenDiskError::Busy(_))));
    drop(disk);
    let refused = |spec: DiskSpec| store.open_disk(&spec).unwrap_err();
    let other = refused(DiskSpec { machine: MachineId([1; 16]), ..spec() });
    assert!(matches!(other, OpenDiskError::OtherMachine(_)));
    let forked = refused(DiskSpec { generation: Generation([1; 16]), ..spec() });
    assert!(matches!(forked, OpenDiskError::GenerationMismatch { .. }));
    for sectors in [SECTORS - 1, SECTORS + 1] {
        let geometry = Geometry::new(sectors, 512, ChunkSize::DEFAULT).unwrap();
        let resized = refused(DiskSpec { geometry, ..spec() });
        assert!(matches!(resized, OpenDiskError::GeometryChanged { .. }));
    }
    let long = refused(DiskSpec { name: "n".repeat(256), ..spec() });
    assert!(matches!(long, OpenDiskError::NameTooLong(256)));

    // What may change: name, chunk size, and the key, under which what was pending is folded.
    let disk = store.open_disk(&spec()).unwrap();
    send(&disk, &plan(Delta, 2, true, &[piece(3, 9, Fill::Noise(2))]));
    drop((disk, store));
    let store = open(&storage);
    let geometry = Geometry::new(SECTORS, 512, ChunkSize::from_bytes(65536).unwrap()).unwrap();
    let key = DataKey::from_bytes([1; 32]);
    let changed = DiskSpec { name: "renamed".to_owned(), geometry, key, ..spec() };
    let disk = store.open_disk(&changed).unwrap();
    let delta = plan(Delta, 3, true, &[piece(5, 9, Fill::Noise(3))]);
    let mut incoming = disk.begin(delta.link).unwrap();
    delta.frames_of(&changed).into_iter().for_each(|frame| incoming.append(frame).unwrap());
    incoming.commit().unwrap();
    drop((disk, store));
    let store = open(&storage);
    let listed = store.disks().unwrap().remove(0).summary.unwrap();
    assert_eq!((listed.name.as_str(), listed.geometry), ("renamed", geometry));
    assert_eq!((listed.state.last_durable, listed.folded), (Epoch(3), Epoch(2)));
}

#[test]
fn a_forgotten_disk_is_gone_at_any_crash_or_not_at_all() {
    for stop in 0.. {
        let (storage, store) = new_store();
        let disk = store.open_disk(&spec()).unwrap();
        send(&disk, &whole_seed());
        send(&disk, &plan(Delta, 2, true, &[piece(3, 9, Fill::Noise(2))]));
        assert!(store.forget(spec().id).is_err(), "it is open");
        drop(disk);
        storage.power_off_after(stop);
        let forgotten = store.forget(spec().id).is_ok();
        for kept in [storage::faulty::Fate::Kept, storage::faulty::Fate::Dropped] {
            let after = storage.after_crash(|_| kept);
            let store = open(&after);
            assert!(store.damaged().is_empty(), "{:?}", store.damaged());
            let left = store.disks().unwrap().len();
            assert!(left == 0 || !forgotten);
            if left == 0 {
                assert_eq!(after.list(&StorePath::root().join("keys")).unwrap(), [""; 0]);
                assert_eq!(after.list(&StorePath::root().join("disks")).unwrap(), [""; 0]);
                let again = store.open_disk(&spec()).unwrap();
                assert_eq!(again.state().completeness, Completeness::Empty);
            }
        }
        if forgotten {
            break;
        }
    }
}

#[test]
fn only_an_empty_directory_becomes_a_store_and_only_a_store_is_opened() {
    let (storage, store) = new_store();
    assert!(matches!(Store::init_on(&storage), Err(InitError::Exists)));
    drop(store);
    storage::write_whole(&storage, &StorePath::root().join("version"), b"pinnace 9\n").unwrap();
    let other = Store::open_on(Arc::new(storage), Parallelism::Caller);
    assert!(matches!(other, Err(OpenStoreError::Version(_))));
    let foreign = FaultyStorage::new();
    storage::write_whole(&foreign, &StorePath::root().join("letters.txt"), b"dear").unwrap();
    assert!(matches!(Store::init_on(&foreign), Err(InitError::NotEmpty(_))));
    let none = Store::open_on(Arc::new(foreign), Parallelism::Caller);
    assert!(matches!(none, Err(OpenStoreError::NotAStore)));
}

#[test]
fn a_store_on_files_works_with_threads() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    assert!(matches!(Store::open(&root), Err(OpenStoreError::NotAStore)));
    Store::init(&root).unwrap();
    let threads = Parallelism::Threads(NonZeroUsize::new(3).unwrap());
    let mut expected = vec![0; DISK_LEN];
    {
        let lock = StorePath::root().join("lock");
        let storage = FileStorage::exclusive(&root, &lock).unwrap();
        let store = Store::open_on(Arc::new(storage), threads).unwrap();
        assert!(matches!(Store::open(&root), Err(OpenStoreError::Lock(_))));
        let disk = store.open_disk(&spec()).unwrap();
        let pieces: Vec<_> = (0..62).map(|i| piece(i * 5, 4, Fill::Noise(7))).collect();
        let seed = plan(Seed, 1, true, &pieces);
        let delta = plan(Delta, 2, true, &[piece(11, 100, Fill::Zero), piece(8, 1, Fill::Same(4))]);
        send(&disk, &seed);
        send(&disk, &delta);
        [&seed, &delta].iter().for_each(|plan| plan.apply(&mut expected));
        disk.fold_one().unwrap();
        assert!(std::fs::read(disk.base_path()).unwrap() == expected);
        assert_eq!(store.usage().unwrap().deltas.0, 0);
        let listed = Store::inspect(&root).unwrap().remove(0);
        assert_eq!(listed.summary.unwrap().base_path, disk.base_path());
    }
    let store = Store::open(&root).unwrap();
    let disk = store.open_disk(&spec()).unwrap();
    assert_eq!(disk.state().last_durable, Epoch(2));
    let key = FileStorage::shared(&root);
    let key = key.resolve(&StorePath::root().join("keys").join(&format!("{}.key", disk.id())));
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(key).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_base_without_its_catalogue_is_not_overwritten() {
    let (storage, store) = new_store();
    let disk = store.open_disk(&spec()).unwrap();
    send(&disk, &whole_seed());
    drop((disk, store));
    storage.remove(&disk_path().join("catalog")).unwrap();
    let refused = open(&storage).open_disk(&spec()).unwrap_err();
    assert_eq!(refused.class(), FailureClass::Corrupt, "{refused}");
    assert!(storage.open(&disk_path().join("base"), OpenMode::Read).is_ok());
}
