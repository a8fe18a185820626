//! Points, views and what keeps them, when nothing fails.

use std::{collections::BTreeSet, sync::Arc};

use blocks::{
    ByteLen, Epoch,
    EpochKind::{Compare, Delta, Seed},
    RetractReason,
};
use storage::{FaultyStorage, Storage};

use super::{
    scenario::{disk_path, read_base},
    source::{
        DISK_LEN, Fill, Plan, SECTORS, append_all, newest, piece, plan, point, point_plan,
        read_view, send, spec,
    },
};
use crate::{
    Allocation, BeginError, ChangeError, Disk, DiskSpec, FailureClass, ForgetError, IncomingError,
    Parallelism, PointStatus, ReadError, Step, Store, ViewError,
};

fn open(storage: &FaultyStorage) -> Store {
    Store::open_on(Arc::new(storage.clone()), Parallelism::Caller).unwrap()
}

/// A disk with points at epochs 3, 5, 6 and 9, rounds in between and after, and what it holds after
/// each epoch.
fn with_points() -> (FaultyStorage, Store, Disk, Vec<Vec<u8>>) {
    let storage = FaultyStorage::new();
    Store::init_on(&storage).unwrap();
    let store = open(&storage);
    let disk = store.open_disk(&spec()).unwrap();
    let whole = piece(0, u32::try_from(SECTORS).unwrap(), Fill::Noise(1));
    let plans = [
        plan(Seed, 1, true, &[whole]),
        plan(Delta, 2, true, &[piece(3, 9, Fill::Noise(2)), piece(40, 60, Fill::Zero)]),
        point_plan(3, &[piece(8, 70, Fill::Same(3)), piece(100, 9, Fill::Noise(3))]),
        plan(Compare, 4, false, &[piece(0, 4, Fill::Noise(4)), piece(150, 30, Fill::Zero)]),
        Plan { point: Some(point(5, 1)), ..plan(Compare, 5, true, &[piece(9, 2, Fill::Same(5))]) },
        point_plan(6, &[piece(60, 9, Fill::Zero), piece(SECTORS - 5, 5, Fill::Noise(6))]),
        plan(Delta, 7, true, &[piece(0, 200, Fill::Noise(7))]),
        plan(Delta, 8, true, &[piece(20, 9, Fill::Noise(8)), piece(160, 40, Fill::Zero)]),
        point_plan(9, &[piece(21, 3, Fill::Same(9)), piece(199, 3, Fill::Zero)]),
        plan(Delta, 10, true, &[piece(7, 7, Fill::Noise(10))]),
    ];
    let mut contents = vec![vec![0; DISK_LEN]];
    for plan in &plans {
        send(&disk, plan);
        let mut content = contents.last().unwrap().clone();
        plan.apply(&mut content);
        contents.push(content);
    }
    (storage, store, disk, contents)
}

fn epochs(disk: &Disk) -> Vec<u64> {
    disk.history().points().iter().map(|point| point.epoch.0).collect()
}

fn deltas(storage: &FaultyStorage) -> Vec<String> {
    storage.list(&disk_path().join("deltas")).unwrap()
}

fn set(epochs: &[u64]) -> BTreeSet<Epoch> {
    epochs.iter().copied().map(Epoch).collect()
}

/// Retention to its end; the epochs of the points that were dropped.
fn retain(disk: &Disk, keep: &[u64]) -> Vec<u64> {
    let mut gone = Vec::new();
    loop {
        match disk.history().retain_step(&set(keep), Epoch(u64::MAX)).unwrap() {
            Step::Done => return gone,
            Step::Folded { dropped, .. } | Step::Merged { dropped, .. } => {
                gone.extend(dropped.iter().map(|point| point.epoch.0));
            }
        }
    }
}

#[test]
fn every_point_is_read_as_it_was() {
    let (_, _, disk, contents) = with_points();
    assert_eq!(epochs(&disk), [3, 5, 6, 9]);
    for epoch in [3u64, 5, 6, 9] {
        let view = disk.history().view(Epoch(epoch)).unwrap();
        let content = &contents[usize::try_from(epoch).unwrap()];
        assert!(read_view(&view) == *content, "epoch {epoch}");
        assert_eq!((view.len(), view.record()), (ByteLen(DISK_LEN as u64), &point(epoch, 1)));
        // Any range of bytes, across the ends of sectors and extents.
        for (offset, len) in [(0, 1), (511, 2), (4000, 9000), (DISK_LEN - 1, 1), (77, 0)] {
            let mut bytes = vec![0; len];
            view.read_at(offset as u64, &mut bytes).unwrap();
            assert!(bytes == content[offset..offset + len], "{len} bytes from {offset}");
        }
        for (offset, len) in [(DISK_LEN as u64, 1), (DISK_LEN as u64 - 1, 2), (u64::MAX, 1)] {
            let past = view.read_at(offset, &mut vec![0; len]);
            assert!(matches!(past, Err(ReadError::PastEnd { .. })), "{past:?}");
        }
    }
    for none in [0, 1, 2, 4, 10, 11] {
        let refused = disk.history().view(Epoch(none)).unwrap_err();
        assert!(matches!(refused, ViewError::NoPoint(_)), "{refused}");
    }
}

#[test]
fn allocation_is_gapless_and_true() {
    let (_, _, disk, contents) = with_points();
    let view = disk.history().view(Epoch(9)).unwrap();
    for (offset, len) in [(0u64, DISK_LEN as u64), (513, 90_000), (7, 0)] {
        let ranges = view.allocation(offset, len, usize::MAX).unwrap();
        for most in 1..ranges.len() {
            assert_eq!(view.allocation(offset, len, most).unwrap(), ranges[..most]);
        }
        let mut next = offset;
        for range in &ranges {
            assert_eq!(range.bytes.start, next);
            next = range.bytes.end;
            let bytes = usize::try_from(range.bytes.start).unwrap()..usize::try_from(next).unwrap();
            let zero = contents[9][bytes].iter().all(|byte| *byte == 0);
            assert!(zero || range.state == Allocation::Data, "{range:?}");
        }
        assert_eq!(next, offset + len);
        assert!(ranges.windows(2).all(|pair| pair[0].state != pair[1].state));
    }
    let zeroes = view.allocation(165 * 512, 10 * 512, 9).unwrap();
    assert_eq!(zeroes.len(), 1);
    assert_eq!(zeroes[0].state, Allocation::Zero);
}

#[test]
fn retention_keeps_what_it_is_told_and_the_newest() {
    let (storage, store, disk, contents) = with_points();
    assert_eq!(retain(&disk, &[3, 6]), [5]);
    assert_eq!(epochs(&disk), [3, 6, 9]);
    // The base is at 3; one delta for each of the others, and the round after them.
    assert_eq!(deltas(&storage), ["10.delta", "6.delta", "9.delta"]);
    assert!(read_base(&storage) == contents[3]);
    let check = |disk: &Disk, kept: &[u64]| {
        for epoch in kept {
            let view = disk.history().view(Epoch(*epoch)).unwrap();
            let expected = &contents[usize::try_from(*epoch).unwrap()];
            assert!(read_view(&view) == *expected, "epoch {epoch}");
        }
        assert!(newest(disk) == contents[10]);
    };
    check(&disk, &[3, 6, 9]);
    drop((disk, store));
    let store = open(&storage);
    assert!(store.verify_at_rest().unwrap().damage.is_empty());
    let disk = store.open_disk(&spec()).unwrap();
    check(&disk, &[3, 6, 9]);
    // Nothing is wanted: the newest point stays all the same.
    assert_eq!(retain(&disk, &[]), [3, 6]);
    assert_eq!(epochs(&disk), [9]);
    assert_eq!(deltas(&storage), ["10.delta"]);
    check(&disk, &[9]);
    assert_eq!(disk.fold_one().unwrap(), None);
    assert_eq!(store.history_bytes().0, store.usage().unwrap().deltas.0);
}

#[test]
fn rounds_without_a_point_do_not_pile_up() {
    let (storage, _, disk, mut contents) = with_points();
    for epoch in 11..=120 {
        let plan = plan(Delta, epoch, true, &[piece(epoch, 3, Fill::Noise(11))]);
        send(&disk, &plan);
        plan.apply(contents.last_mut().unwrap());
    }
    assert_eq!(retain(&disk, &[]), [3, 5, 6]);
    let left = deltas(&storage).len();
    assert!(left < 70, "{left} deltas");
    assert!(newest(&disk) == contents[10]);
    assert!(read_view(&disk.history().view(Epoch(9)).unwrap()) == contents[9]);
}

#[test]
fn a_view_outlives_everything_but_its_own_drop() {
    let (storage, store, disk, contents) = with_points();
    let view = disk.history().view(Epoch(5)).unwrap();
    assert!(disk.history().points()[1].viewed);
    assert_eq!(retain(&disk, &[]), [3, 6]);
    assert_eq!(epochs(&disk), [5, 9]);
    // The base is the point that is looked at; nothing goes past it.
    assert!(read_base(&storage) == contents[5]);
    assert_eq!(disk.fold_one().unwrap(), None);
    assert!(read_view(&view) == contents[5]);
    drop(disk);
    assert!(matches!(store.forget(spec().id), Err(ForgetError::Busy(_))));
    let disk = store.open_disk(&spec()).unwrap();
    send(&disk, &point_plan(11, &[piece(0, 300, Fill::Noise(11))]));
    assert_eq!(retain(&disk, &[]), [9]);
    assert!(read_view(&view) == contents[5]);
    drop(view);
    assert_eq!(retain(&disk, &[]), [5]);
    assert_eq!(epochs(&disk), [11]);
    drop(disk);
    store.forget(spec().id).unwrap();
    assert_eq!(store.machines(), []);
}

#[test]
fn a_view_of_deltas_that_are_merged_away_reads_on() {
    let (storage, _, disk, contents) = with_points();
    let view = disk.history().view(Epoch(9)).unwrap();
    assert_eq!(retain(&disk, &[3]), [5, 6]);
    assert_eq!(deltas(&storage), ["10.delta", "9.delta"]);
    assert!(read_view(&view) == contents[9]);
    // Folded below it, and read from the deltas all the same.
    assert_eq!(retain(&disk, &[]), [3]);
    assert!(read_view(&view) == contents[9]);
}

#[test]
fn pins_hold_and_retractions_let_go() {
    let (storage, store, disk, contents) = with_points();
    let history = disk.history();
    history.pin(Epoch(5)).unwrap();
    history.pin(Epoch(5)).unwrap();
    assert!(matches!(history.pin(Epoch(4)), Err(ChangeError::NoPoint(Epoch(4)))));
    history.confirm(Epoch(6)).unwrap();
    history.confirm(Epoch(2)).unwrap();
    let retracted = history.retract(Epoch(8)..=Epoch(12), RetractReason::MissedIssue).unwrap();
    assert_eq!(retracted.iter().map(|point| point.epoch.0).collect::<Vec<_>>(), [9]);
    let again = history.retract(Epoch(9)..=Epoch(9), RetractReason::Operator).unwrap();
    assert_eq!(again, []);
    let refused = history.view(Epoch(9)).unwrap_err();
    assert!(matches!(refused, ViewError::Retracted { reason: RetractReason::MissedIssue, .. }));
    assert!(read_view(&history.view_retracted(Epoch(9)).unwrap()) == contents[9]);
    drop((history, disk, store));

    let store = open(&storage);
    let disk = store.open_disk(&spec()).unwrap();
    let status = |disk: &Disk| -> Vec<_> {
        let points = disk.history().points();
        points.iter().map(|point| (point.epoch.0, point.status, point.pinned)).collect()
    };
    let missed = PointStatus::Retracted(RetractReason::MissedIssue);
    let confirmed = PointStatus::Confirmed;
    let expected =
        [(3, confirmed, false), (5, confirmed, true), (6, confirmed, false), (9, missed, false)];
    assert_eq!(status(&disk), expected);
    // The newest that is not retracted is 6. What is after it is no point, and waits.
    assert_eq!(retain(&disk, &[]), [3]);
    assert_eq!(status(&disk)[..2], [(5, confirmed, true), (6, confirmed, false)]);
    // A point that comes into a retracted range is none.
    send(&disk, &point_plan(11, &[piece(0, 9, Fill::Same(1))]));
    assert_eq!(status(&disk).last().unwrap(), &(11, missed, false));
    send(&disk, &point_plan(12, &[]));
    send(&disk, &point_plan(13, &[]));
    disk.history().unpin(Epoch(5)).unwrap();
    // Not confirmed yet: 6 stays for the case that it will be retracted.
    assert_eq!(retain(&disk, &[]), [5, 9, 11, 12]);
    assert_eq!(epochs(&disk), [6, 13]);
    disk.history().confirm(Epoch(13)).unwrap();
    assert_eq!(retain(&disk, &[]), [6]);
    assert_eq!(status(&disk), [(13, confirmed, false)]);
}

#[test]
fn a_point_is_there_when_both_disks_hold_it_and_stays_while_the_next_is_not() {
    let storage = FaultyStorage::new();
    Store::init_on(&storage).unwrap();
    let store = open(&storage);
    let other = DiskSpec { id: blocks::DiskId([0xd2; 16]), ..spec() };
    let disks = [store.open_disk(&spec()).unwrap(), store.open_disk(&other).unwrap()];
    let send_to = |disk: usize, epoch: u64| {
        let link = point_plan(epoch, &[piece(epoch, 9, Fill::Noise(1))]);
        let first = Plan { point: Some(point(1, 2)), ..plan(Compare, 1, true, &[]) };
        let plan = if epoch == 1 { first } else { Plan { point: Some(point(epoch, 2)), ..link } };
        let spec = [&spec(), &other][disk].clone();
        let mut incoming = disks[disk].begin(plan.link).unwrap();
        plan.frames_of(&spec).into_iter().for_each(|frame| incoming.append(frame).unwrap());
        incoming.commit().unwrap();
    };
    let there = |store: &Store| -> Vec<bool> {
        store.points(spec().machine).iter().map(|point| point.is_there()).collect()
    };
    (1..=3).for_each(|epoch| send_to(0, epoch));
    assert_eq!(there(&store), [false, false, false]);
    send_to(1, 1);
    assert_eq!(there(&store), [true, false, false]);
    assert_eq!(retain(&disks[0], &[]), [2]);
    assert_eq!(epochs(&disks[0]), [1, 3]);
    send_to(1, 2);
    send_to(1, 3);
    assert_eq!(retain(&disks[0], &[]), [1]);
    assert_eq!(there(&store), [false, false, true]);
    assert_eq!(retain(&disks[1], &[]), [1, 2]);
    assert_eq!(there(&store), [true]);
    drop(disks);
    drop(store);
    assert_eq!(there(&open(&storage)), [true]);
}

#[test]
fn history_is_for_anybody_and_the_source_is_one() {
    let (storage, store, disk, contents) = with_points();
    let history = store.history(spec().id).unwrap();
    assert_eq!(history.points(), disk.history().points());
    assert!(matches!(store.open_disk(&spec()), Err(crate::OpenDiskError::Busy(_))));
    drop(disk);
    let disk = store.open_disk(&spec()).unwrap();
    history.pin(Epoch(3)).unwrap();
    assert!(disk.history().points()[0].pinned);
    drop((disk, history, store));
    let store = open(&storage);
    let view = store.history(spec().id).unwrap().view(Epoch(3)).unwrap();
    let disk = store.open_disk(&spec()).unwrap();
    send(&disk, &plan(Delta, 11, true, &[piece(0, 300, Fill::Same(1))]));
    assert!(read_view(&view) == contents[3]);
    let missing = store.history(blocks::DiskId([9; 16])).unwrap_err();
    assert_eq!(missing.class(), FailureClass::Refused);
}

#[test]
fn what_is_no_point_is_not_called_one_and_a_point_is_not_seeded_over() {
    let (_, _, disk, _) = with_points();
    let fuzzy = Plan { point: Some(point(11, 1)), ..plan(Compare, 11, false, &[]) };
    let mut incoming = disk.begin(fuzzy.link).unwrap();
    append_all(&mut incoming, &fuzzy).unwrap();
    assert!(matches!(incoming.commit(), Err(IncomingError::PointOfNothing)));
    send(&disk, &plan(Compare, 11, false, &[piece(0, 1, Fill::Same(1))]));
    let seed = plan(Seed, 12, true, &[piece(0, 1, Fill::Same(1))]);
    assert!(matches!(disk.begin(seed.link), Err(BeginError::SeedOverPoint)));
    assert_eq!(epochs(&disk), [9], "begin has folded what it could");
}

#[test]
fn a_new_key_waits_for_the_points_of_the_old_one() {
    let (_, store, disk, contents) = with_points();
    drop(disk);
    let changed = DiskSpec { key: wire::DataKey::from_bytes([1; 32]), ..spec() };
    let refused = store.open_disk(&changed).unwrap_err();
    assert!(matches!(refused, crate::OpenDiskError::KeyChanged), "{refused}");
    let disk = store.open_disk(&spec()).unwrap();
    assert!(newest(&disk) == contents[10]);
}

#[test]
fn points_that_have_come_since_the_choice_stay() {
    let (_, _, disk, _) = with_points();
    // Chosen when 5 was the newest: 6 is neither of them, nor the newest now.
    while disk.history().retain_step(&set(&[5]), Epoch(5)).unwrap() != Step::Done {}
    assert_eq!(epochs(&disk), [5, 6, 9]);
}
