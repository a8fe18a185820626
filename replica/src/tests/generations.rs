//! Promotion, and sources that are let in after it.

use std::sync::Arc;

use blocks::{
    Claim,
    EpochKind::{Compare, Delta, Seed},
    Generation, Lineage, Shown, Ticket,
};
use storage::{FaultyStorage, faulty::Fate};

use super::source::{
    DISK_LEN, Fill, Plan, newest, piece, plan, point, point_plan, read_view, send, spec,
};
use crate::{
    Admission, AdmitError, Admitted, Completeness, Disk, DiskSpec, OpenDiskError, Parallelism,
    PromoteError, ReplicaOrigin, ReplicaRole, SourceOrigin, Step, Store,
};

const PROMOTED: Generation = Generation([0xbb; 16]);

fn open(storage: &FaultyStorage) -> Store {
    Store::open_on(Arc::new(storage.clone()), Parallelism::Caller).unwrap()
}

/// The seed, and two points on top of it.
fn plans() -> [Plan; 3] {
    let seed = plan(Seed, 1, true, &[piece(0, 317, Fill::Noise(1))]);
    [
        Plan { point: Some(point(1, 1)), ..seed },
        point_plan(2, &[piece(3, 9, Fill::Noise(2))]),
        point_plan(3, &[piece(40, 9, Fill::Same(3))]),
    ]
}

/// A store whose disk holds three epochs, each a point.
fn three_points() -> (FaultyStorage, Store) {
    let storage = FaultyStorage::new();
    Store::init_on(&storage).unwrap();
    let store = open(&storage);
    let disk = store.open_disk(&spec()).unwrap();
    plans().iter().for_each(|plan| send(&disk, plan));
    drop(disk);
    (storage, store)
}

fn origin(ticket: Ticket) -> SourceOrigin {
    SourceOrigin { lineage: Lineage::begin(spec().generation), ticket, secret: [7; 16] }
}

fn admit(store: &Store, ticket: Ticket, admission: Admission) -> Admitted {
    store.admit(&spec(), &origin(ticket), |_| Ok::<_, ()>(admission)).unwrap()
}

/// What a source would be told of, if it asked.
fn look(store: &Store) -> ReplicaOrigin {
    let refused = store.admit(&spec(), &origin(Ticket::default()), |found| Err(found.clone()));
    match refused {
        Err(AdmitError::Refused(found)) => found,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_promoted_replica_refuses_its_source_and_keeps_its_points() {
    let (storage, store) = three_points();
    let disk = store.open_disk(&spec()).unwrap();
    assert!(matches!(store.promote(spec().id, PROMOTED), Err(PromoteError::Busy(_))));
    drop(disk);
    store.promote(spec().id, PROMOTED).unwrap();
    assert!(matches!(store.promote(spec().id, PROMOTED), Err(PromoteError::Promoted(_))));
    drop(store);
    let store = open(&storage);
    let refused = store.open_disk(&spec());
    assert!(matches!(refused, Err(OpenDiskError::GenerationMismatch { stored: PROMOTED })));
    // Nor does it take a source that knows the new line.
    let insider = DiskSpec { generation: PROMOTED, ..spec() };
    assert!(matches!(store.open_disk(&insider), Err(OpenDiskError::Promoted)));
    assert_eq!(store.history(spec().id).unwrap().points().len(), 3);
    let found = look(&store);
    assert_eq!((found.role, found.state.last_durable.0), (ReplicaRole::Promoted, 3));
    let forked = Lineage::begin(spec().generation).fork(PROMOTED, blocks::Epoch(3));
    assert_eq!(found.lineage, forked);
}

#[test]
fn what_is_not_whole_is_not_promoted() {
    let storage = FaultyStorage::new();
    Store::init_on(&storage).unwrap();
    let store = open(&storage);
    let disk = store.open_disk(&spec()).unwrap();
    send(&disk, &plan(Seed, 1, false, &[piece(0, 9, Fill::Noise(1))]));
    drop(disk);
    assert!(matches!(store.promote(spec().id, PROMOTED), Err(PromoteError::NotWhole(_))));
    assert!(matches!(
        store.promote(blocks::DiskId([9; 16]), PROMOTED),
        Err(PromoteError::History(_))
    ));
}

#[test]
fn at_any_crash_a_replica_was_promoted_or_it_was_not() {
    let mut seen = [0; 2];
    for stop in 0.. {
        let (storage, store) = three_points();
        storage.power_off_after(stop);
        let promoted = store.promote(spec().id, PROMOTED).is_ok();
        drop(store);
        for fate in [Fate::Kept, Fate::Dropped, Fate::Torn { bytes: 513 }] {
            let store = open(&storage.after_crash(|_| fate));
            assert!(store.damaged().is_empty());
            let found = look(&store);
            let is_promoted = found.role == ReplicaRole::Promoted;
            assert_eq!(is_promoted, found.lineage.current() == PROMOTED);
            assert!(is_promoted || !promoted, "a promotion was lost at {stop}");
            assert_eq!(store.history(spec().id).unwrap().points().len(), 3);
            assert_eq!(store.open_disk(&spec()).is_ok(), !is_promoted);
            seen[usize::from(is_promoted)] += 1;
        }
        if promoted {
            break;
        }
    }
    assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
}

/// Compares the whole disk, of which the source says that it is `content` in every sector.
fn compare(disk: &Disk, epoch: u64, byte: u8) {
    send(disk, &plan(Compare, epoch, true, &[piece(0, 317, Fill::Same(byte))]));
    assert_eq!(newest(disk), vec![byte; DISK_LEN]);
}

#[test]
fn a_source_that_is_let_in_again_is_compared_and_the_points_of_both_lines_stay() {
    let (storage, store) = three_points();
    store.promote(spec().id, PROMOTED).unwrap();
    let held = store.history(spec().id).unwrap();
    let busy =
        store.admit(&spec(), &origin(Ticket::default()), |_| Ok::<_, ()>(Admission::Compare));
    let busy = busy.map(drop).unwrap_err();
    assert!(matches!(busy, AdmitError::Open(OpenDiskError::Busy(_))), "{busy:?}");
    drop(held);
    let Admitted { disk, ticket } = admit(&store, Ticket::default(), Admission::Compare);
    assert_eq!(disk.state().completeness, Completeness::Partial);
    assert_eq!((disk.generation(), ticket.number), (spec().generation, 1));
    assert!(disk.begin(plan(Delta, 4, true, &[]).link).is_ok());
    compare(&disk, 4, 0x44);
    send(&disk, &point_plan(5, &[piece(0, 1, Fill::Zero)]));
    drop((disk, store));
    let store = open(&storage);
    assert!(store.damaged().is_empty(), "{:?}", store.damaged());
    let found = look(&store);
    let left = found.lineage.past().iter().map(|line| line.through.0);
    assert_eq!((found.role, left.collect::<Vec<_>>()), (ReplicaRole::Follower, vec![3, 3]));
    let history = store.history(spec().id).unwrap();
    let points: Vec<u64> = history.points().iter().map(|point| point.epoch.0).collect();
    assert_eq!(points, [1, 2, 3, 5]);
    let mut content = vec![0; DISK_LEN];
    for plan in &plans() {
        plan.apply(&mut content);
        assert_eq!(read_view(&history.view(plan.link.epoch).unwrap()), content);
    }
    // What was made in the first line is merged in it, and read again after a restart.
    let kept = [blocks::Epoch(1), blocks::Epoch(3), blocks::Epoch(5)].into();
    let step = history.retain_step(&kept, blocks::Epoch(u64::MAX)).unwrap();
    assert!(matches!(step, Step::Merged { .. }), "{step:?}");
    drop((history, store));
    let store = open(&storage);
    assert!(store.damaged().is_empty(), "{:?}", store.damaged());
    let history = store.history(spec().id).unwrap();
    assert_eq!(read_view(&history.view(blocks::Epoch(3)).unwrap()), content);
}

#[test]
fn a_ticket_survives_a_crash_before_its_source_could_have_it() {
    for stop in 0.. {
        let (storage, store) = three_points();
        let first = admit(&store, Ticket::default(), Admission::GoOn).ticket;
        storage.power_off_after(stop);
        let origin = SourceOrigin { secret: [8; 16], ..origin(first) };
        let next = store.admit(&spec(), &origin, |_| Ok::<_, ()>(Admission::GoOn));
        let next = next.map(|admitted| admitted.ticket).ok();
        drop(store);
        for fate in [Fate::Kept, Fate::Dropped] {
            let found = look(&open(&storage.after_crash(|_| fate)));
            let judge = |ticket| {
                let claim = Claim { ticket, sealed: None };
                found.tickets.judge(claim, found.state.last_durable)
            };
            // The source has one or the other, and either is good.
            assert_eq!(judge(first), Shown::Last);
            assert!(next.is_none_or(|next| judge(next) == Shown::Last));
            // The one before both is not, once the other was handed out.
            let handed_out = found.tickets.last != first;
            assert_eq!(judge(Ticket::default()) == Shown::Stale, handed_out);
        }
        if next.is_some() {
            break;
        }
    }
}
