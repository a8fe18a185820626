//! A quota on history, and a file system that fills up.

use std::sync::Arc;

use blocks::{
    ByteLen, Epoch,
    EpochKind::{Delta, Seed},
};
use storage::{FaultyStorage, faulty::Fault};

use super::source::{Fill, Plan, SECTORS, append_all, newest, piece, plan, point_plan, send, spec};
use crate::{Disk, FailureClass, IncomingError, Parallelism, Store};

/// A disk in whose base there is a point, and points in three deltas of about 50 KiB.
fn with_points() -> (FaultyStorage, Store, Disk) {
    let storage = FaultyStorage::new();
    Store::init_on(&storage).unwrap();
    let store = Store::open_on(Arc::new(storage.clone()), Parallelism::Caller).unwrap();
    let disk = store.open_disk(&spec()).unwrap();
    let whole = piece(0, u32::try_from(SECTORS).unwrap(), Fill::Noise(1));
    let point = Some(super::source::point(1, 1));
    send(&disk, &Plan { point, ..plan(Seed, 1, true, &[whole]) });
    (2..=4).for_each(|epoch| send(&disk, &delta(epoch)));
    (storage, store, disk)
}

fn delta(epoch: u64) -> Plan {
    point_plan(epoch, &[piece(epoch * 10, 100, Fill::Noise(u8::try_from(epoch).unwrap()))])
}

fn epochs(disk: &Disk) -> Vec<u64> {
    disk.history().points().iter().map(|point| point.epoch.0).collect()
}

fn dropped(points: &[crate::DiskPoint]) -> Vec<u64> {
    points.iter().map(|point| point.epoch.0).collect()
}

#[test]
fn a_commit_over_the_quota_drops_the_oldest_points_and_says_which() {
    let (_, store, disk) = with_points();
    let full = store.history_bytes();
    store.set_quota(Some(full));
    let mut incoming = disk.begin(delta(5).link).unwrap();
    append_all(&mut incoming, &delta(5)).unwrap();
    let durable = incoming.commit().unwrap();
    assert_eq!(dropped(&durable.dropped), [1]);
    assert_eq!(epochs(&disk), [2, 3, 4, 5]);
    assert!(store.history_bytes() <= full);

    // The oldest is pinned: the next ones go, and the newest but the last at the last.
    disk.history().pin(Epoch(2)).unwrap();
    let big = plan(Delta, 6, true, &[piece(0, 170, Fill::Noise(9))]);
    let mut incoming = disk.begin(big.link).unwrap();
    append_all(&mut incoming, &big).unwrap();
    let durable = incoming.commit().unwrap();
    assert_eq!(dropped(&durable.dropped), [3, 4]);
    assert_eq!(epochs(&disk), [2, 5]);

    // Nothing may go any more.
    store.set_quota(Some(ByteLen(1000)));
    let before = newest(&disk);
    let more = point_plan(7, &[piece(0, 9, Fill::Noise(7))]);
    let mut incoming = disk.begin(more.link).unwrap();
    append_all(&mut incoming, &more).unwrap();
    let refused = incoming.commit().unwrap_err();
    assert!(matches!(&refused, IncomingError::Quota { dropped } if dropped.is_empty()));
    assert_eq!(refused.class(), FailureClass::StoreFull);
    assert_eq!(epochs(&disk), [2, 5]);
    assert!(newest(&disk) == before);
    store.set_quota(None);
    send(&disk, &more);
}

#[test]
fn an_epoch_that_finds_no_room_makes_some_for_its_next_attempt() {
    let (storage, store, disk) = with_points();
    let plan = delta(5);
    let mut incoming = disk.begin(plan.link).unwrap();
    let before = store.history_bytes();
    // The write of the journal at its commit; the frames are small and were gathered.
    storage.fail_at(storage.operations(), Fault::Full);
    let refused = append_all(&mut incoming, &plan).and_then(|()| incoming.commit()).unwrap_err();
    let IncomingError::Full { dropped: gone, .. } = &refused else { panic!("{refused}") };
    assert_eq!(dropped(gone), [1]);
    assert_eq!(refused.class(), FailureClass::StoreFull);
    assert!(store.history_bytes() < before);
    assert_eq!(epochs(&disk), [2, 3, 4]);
    send(&disk, &plan);
    assert_eq!(epochs(&disk), [2, 3, 4, 5]);
}
