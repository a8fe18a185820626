//! All short lives of a disk with history, and every crash of them; and every operation of theirs
//! failing in every way.
//!
//! A life is one or two steps on a disk that has points in its base and in its deltas. Run without
//! a crash it gives the states that are allowed, whose content is compared with a flat model; then
//! it is run again up to every operation of the storage, and every subset of what was not flushed
//! is looked at. What is found must be the state before the step that was under way, or the one
//! after it, byte for byte.

use std::sync::Arc;

use blocks::{
    ByteLen, ChunkSize, Epoch, EpochKind::Delta, EpochKind::Seed, Geometry, RetractReason, Sector,
};
use storage::{
    FaultyStorage,
    faulty::{Fate, Fault},
};
use wire::CheckedFrame;

use super::source::{Fill, Plan, piece, plan, point, spec};
use crate::{
    Disk, DiskSpec, DiskState, HistoryError, Parallelism, PointStatus, ScrubCursor, Step, Store,
};

type Failed = Box<dyn std::error::Error>;

const SECTORS: u64 = 24;

/// All subsets are tried of so many unflushed changes; of more, this many at random.
const EXHAUSTIVE_MAX: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Open,
    CommitDelta,
    CommitPoint,
    Confirm,
    Retract,
    Pin,
    Unpin,
    Merge,
    Fold,
    Remove,
}

const ACTIONS: [Action; 10] = [
    Action::Open,
    Action::CommitDelta,
    Action::CommitPoint,
    Action::Confirm,
    Action::Retract,
    Action::Pin,
    Action::Unpin,
    Action::Merge,
    Action::Fold,
    Action::Remove,
];

/// What can be told of a disk from outside, but for its content, which follows from the epochs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    state: DiskState,
    confirmed: Epoch,
    /// Epoch, status, and whether it is pinned.
    points: Vec<(u64, PointStatus, bool)>,
}

/// The epochs that can be committed, as rounds and as points, and what each leaves.
struct Source {
    /// By epoch, from 1: the frames of a round, and of a point.
    frames: Vec<[(Plan, Vec<CheckedFrame>); 2]>,
    contents: Vec<Vec<u8>>,
}

fn small() -> DiskSpec {
    DiskSpec { geometry: Geometry::new(SECTORS, 512, ChunkSize::DEFAULT).unwrap(), ..spec() }
}

impl Source {
    fn new() -> Self {
        let plans = [
            plan(Seed, 1, true, &[piece(0, 24, Fill::Noise(1))]),
            plan(Delta, 2, true, &[piece(3, 4, Fill::Noise(2)), piece(9, 6, Fill::Zero)]),
            plan(Delta, 3, true, &[piece(5, 3, Fill::Same(3))]),
            plan(Delta, 4, true, &[piece(10, 2, Fill::Noise(4)), piece(20, 4, Fill::Zero)]),
            plan(Delta, 5, true, &[piece(4, 2, Fill::Noise(5))]),
            plan(Delta, 6, true, &[piece(0, 2, Fill::Same(6)), piece(21, 1, Fill::Zero)]),
            plan(Delta, 7, true, &[piece(1, 10, Fill::Noise(7))]),
        ];
        let mut contents = vec![vec![0; usize::try_from(small().geometry.len().0).unwrap()]];
        for plan in &plans {
            let mut content = contents.last().unwrap().clone();
            plan.apply(&mut content);
            contents.push(content);
        }
        let seal = |plan: Plan| {
            let frames = plan.frames_of(&small());
            (plan, frames)
        };
        let both = |plan: Plan| {
            let point = Some(point(plan.link.epoch.0, 1));
            [seal(plan.clone()), seal(Plan { point, ..plan })]
        };
        Self { frames: plans.map(both).into(), contents }
    }

    /// A store in which five epochs are durable, of which three are points, and none was folded.
    fn begin(&self) -> FaultyStorage {
        let storage = FaultyStorage::new();
        Store::init_on(&storage).unwrap();
        let (_store, disk) = open(&storage).unwrap();
        for is_point in [true, false, true, false, true] {
            self.commit(&disk, is_point).unwrap();
        }
        storage.after_crash(|_| Fate::Kept)
    }

    /// Commits the next epoch.
    fn commit(&self, disk: &Disk, is_point: bool) -> Result<(), Failed> {
        let next = usize::try_from(disk.state().last_durable.0)?;
        let (plan, frames) = &self.frames[next][usize::from(is_point)];
        let mut incoming = disk.begin(plan.link)?;
        frames.iter().try_for_each(|frame| incoming.append(frame.clone()))?;
        incoming.commit()?;
        Ok(())
    }

    fn act(&self, store: &Store, disk: Disk, action: Action) -> Result<(), Failed> {
        let history = disk.history();
        match action {
            Action::Open => {}
            Action::CommitDelta => self.commit(&disk, false)?,
            Action::CommitPoint => self.commit(&disk, true)?,
            Action::Confirm => history.confirm(Epoch(4))?,
            Action::Retract => {
                history.retract(Epoch(5)..=Epoch(6), RetractReason::MissedIssue)?;
            }
            Action::Pin => history.pin(Epoch(3))?,
            Action::Unpin => history.unpin(Epoch(3))?,
            Action::Merge => drop(history.retain_step(&[Epoch(1)].into(), Epoch(u64::MAX))?),
            Action::Fold => drop(history.retain_step(&[].into(), Epoch(u64::MAX))?),
            Action::Remove => {
                drop((history, disk));
                store.forget(small().id)?;
            }
        }
        Ok(())
    }

    /// Runs a life, each step on a store opened anew, up to the first error. Returns how many
    /// steps were done.
    fn live(&self, storage: &FaultyStorage, life: &[Action]) -> usize {
        let step = |action: &&Action| {
            open(storage).and_then(|(store, disk)| self.act(&store, disk, **action)).is_ok()
        };
        life.iter().take_while(step).count()
    }

    /// What is in a store, which must hold together; nothing if the disk is gone.
    fn look(&self, storage: &FaultyStorage) -> Option<Seen> {
        let store = Store::open_on(Arc::new(storage.clone()), Parallelism::Caller).unwrap();
        assert!(store.damaged().is_empty(), "{:?}", store.damaged());
        let history = match store.history(small().id) {
            Err(HistoryError::Unknown(_)) => return None,
            history => history.unwrap(),
        };
        let (state, points) = (history.state(), history.points());
        let content_of = |epoch: Epoch| &self.contents[usize::try_from(epoch.0).unwrap()];
        let mut bytes = vec![0; content_of(Epoch(0)).len()];
        for point in &points {
            let view = history.view_retracted(point.epoch).unwrap();
            view.read_at(0, &mut bytes).unwrap();
            assert!(bytes == *content_of(point.epoch), "the point of epoch {}", point.epoch);
        }
        let layers = history.shared.layers_at(state.last_durable, 1 << 16).unwrap();
        history.shared.read_newest(&layers, Sector(0), &mut bytes).unwrap();
        assert!(bytes == *content_of(state.last_durable), "epoch {}", state.last_durable);
        let scrubbed = history.scrub(ScrubCursor::default(), ByteLen(u64::MAX)).unwrap();
        assert!(scrubbed.damage.is_empty() && scrubbed.next.is_none(), "{scrubbed:?}");
        let points = points.iter().map(|point| (point.epoch.0, point.status, point.pinned));
        Some(Seen { state, confirmed: history.confirmed(), points: points.collect() })
    }

    /// The states before the first step of a life and after each; nothing if a step can't be done
    /// there, such as pinning a point that was merged away.
    fn states(&self, begin: &FaultyStorage, life: &[Action]) -> Option<Vec<Option<Seen>>> {
        let storage = begin.after_crash(|_| Fate::Kept);
        let mut states = vec![self.look(&storage)];
        for action in life {
            if self.live(&storage, &[*action]) == 0 {
                return None;
            }
            states.push(self.look(&storage.after_crash(|_| Fate::Dropped)));
        }
        Some(states)
    }

    /// All sequences of one or two steps that can be done, and the states of each. What comes after
    /// a disk was removed is another disk.
    fn lives(&self, begin: &FaultyStorage) -> Vec<(Vec<Action>, Vec<Option<Seen>>)> {
        let one = ACTIONS.iter().map(|action| vec![*action]);
        let two = ACTIONS.iter().flat_map(|first| ACTIONS.map(|second| vec![*first, second]));
        let all = one.chain(two.filter(|life| life[0] != Action::Remove));
        let lives: Vec<_> =
            all.filter_map(|life| self.states(begin, &life).map(|states| (life, states))).collect();
        assert!(lives.len() > 90, "{} lives", lives.len());
        lives
    }

    /// As [`Self::check`]; any of the states if it is not said how many steps were done.
    fn check_any(
        &self,
        storage: &FaultyStorage,
        states: &[Option<Seen>],
        done: Option<usize>,
        what: &str,
    ) {
        let Some(done) = done else {
            let seen = self.look(storage);
            assert!(states.contains(&seen), "{what}: {seen:?} is none of {states:?}");
            return;
        };
        self.check(storage, states, done, what);
    }

    /// What is in `storage` is what there was after `done` steps, or after one more.
    fn check(&self, storage: &FaultyStorage, states: &[Option<Seen>], done: usize, what: &str) {
        let seen = self.look(storage);
        let allowed = &states[done..states.len().min(done + 2)];
        assert!(allowed.contains(&seen), "{what}: {seen:?} is none of {allowed:?}");
    }
}

/// The states with points dropped to make room, as a commit may that finds none: any but the newest.
fn thinned(states: &[Option<Seen>]) -> Vec<Option<Seen>> {
    let mut thinned = states.to_vec();
    for seen in states.iter().flatten() {
        let (newest, older) = seen.points.split_last().unwrap();
        for kept in 0..1u32 << older.len() {
            let older = older.iter().enumerate().filter(|(at, _)| kept >> at & 1 == 1);
            let points = older.map(|(_, point)| *point).chain([*newest]).collect();
            thinned.push(Some(Seen { points, ..seen.clone() }));
        }
    }
    thinned
}

fn open(storage: &FaultyStorage) -> Result<(Store, Disk), Failed> {
    let store = Store::open_on(Arc::new(storage.clone()), Parallelism::Caller)?;
    let disk = store.open_disk(&small())?;
    Ok((store, disk))
}

/// Every subset of few unflushed changes; none, all and random ones of many; and torn ones.
fn ways(unflushed: usize) -> Vec<Vec<Fate>> {
    let keep = |kept: bool| if kept { Fate::Kept } else { Fate::Dropped };
    let subset = |bits: u64| (0..unflushed).map(|i| keep(bits >> (i % 64) & 1 == 1)).collect();
    let mut ways: Vec<Vec<Fate>> = match unflushed {
        0..=EXHAUSTIVE_MAX => (0..1 << unflushed).map(subset).collect(),
        _ => (0..1u64 << EXHAUSTIVE_MAX)
            .map(|n| {
                subset(u64::from_le_bytes(
                    *blake3::hash(&n.to_le_bytes()).as_bytes().first_chunk().unwrap(),
                ))
            })
            .chain([subset(0), subset(u64::MAX)])
            .collect(),
    };
    if unflushed > 0 {
        ways.extend([1, 513, 4000].map(|bytes| vec![Fate::Torn { bytes }; unflushed]));
    }
    ways
}

#[test]
fn every_crash_of_every_short_life_leaves_the_step_done_or_not_begun() {
    let source = Source::new();
    let begin = source.begin();
    let lives = source.lives(&begin);
    let (mut images, mut crashes) = (0u64, 0u64);
    for (life, states) in &lives {
        for stop in 0.. {
            let storage = begin.after_crash(|_| Fate::Kept);
            storage.power_off_after(stop);
            let done = source.live(&storage, life);
            crashes += 1;
            for way in ways(storage.unflushed()) {
                let after = storage.after_crash(|i| way[i]);
                source.check(&after, states, done, &format!("{life:?} cut at {stop}, {way:?}"));
                images += 1;
            }
            if done == life.len() {
                break;
            }
        }
    }
    println!(
        "figure: images of {crashes} crashes of {} short lives of a store: {images}",
        lives.len()
    );
    assert!(images >= 65_000, "{images} images");
}

#[test]
fn every_crash_of_the_recovery_from_a_crash_does_too() {
    let source = Source::new();
    let begin = source.begin();
    let mut images = 0u64;
    for action in ACTIONS {
        let states = source.states(&begin, &[action]).unwrap();
        for stop in 0.. {
            let storage = begin.after_crash(|_| Fate::Kept);
            storage.power_off_after(stop);
            let done = source.live(&storage, &[action]);
            for first in [Fate::Kept, Fate::Dropped] {
                let crashed = storage.after_crash(|_| first);
                for again in 0.. {
                    let recovering = crashed.after_crash(|_| Fate::Kept);
                    recovering.power_off_after(again);
                    let recovered = open_store(&recovering).is_ok();
                    for way in ways(recovering.unflushed()) {
                        let after = recovering.after_crash(|i| way[i]);
                        let what = format!("{action:?} cut at {stop}, its recovery at {again}");
                        source.check(&after, &states, done, &what);
                        images += 1;
                    }
                    if recovered {
                        break;
                    }
                }
            }
            if done == 1 {
                break;
            }
        }
    }
    println!("figure: images of crashes of the recovery of a store: {images}");
    assert!(images >= 60_000, "{images} images");
}

fn open_store(storage: &FaultyStorage) -> Result<Store, Failed> {
    let store = Store::open_on(Arc::new(storage.clone()), Parallelism::Caller)?;
    if store.damaged().is_empty() { Ok(store) } else { Err("not recovered".into()) }
}

#[test]
fn every_operation_of_every_short_life_may_fail_in_every_way() {
    let source = Source::new();
    let begin = source.begin();
    let mut failures = 0u64;
    for (life, states) in &source.lives(&begin) {
        let operations = {
            let storage = begin.after_crash(|_| Fate::Kept);
            source.live(&storage, life);
            storage.operations()
        };
        for (n, fault) in (0..operations).flat_map(|n| {
            [Fault::Io, Fault::Full, Fault::ShortWrite, Fault::Sync].map(|fault| (n, fault))
        }) {
            let storage = begin.after_crash(|_| Fate::Kept);
            storage.fail_at(n, fault);
            let done = source.live(&storage, life);
            let commits = [Action::CommitDelta, Action::CommitPoint];
            let makes_room = matches!(fault, Fault::Full | Fault::ShortWrite)
                && life.get(done).is_some_and(|action| commits.contains(action));
            let near = &states[done..states.len().min(done + 2)];
            let (states, done) =
                if makes_room { (&thinned(near), None) } else { (states, Some(done)) };
            let what = format!("{life:?}, {fault:?} at {n}");
            for fate in [Fate::Dropped, Fate::Kept] {
                source.check_any(&storage.after_crash(|_| fate), states, done, &what);
            }
            // What is shown afterwards is durable: it does not change at a crash any more.
            let shown = source.look(&storage);
            source.check_any(&storage, states, done, &what);
            let after = source.look(&storage.after_crash(|_| Fate::Dropped));
            assert_eq!(after, shown, "{what}, then a look, then a crash");
            failures += 1;
        }
    }
    println!("figure: operations of a store made to fail, each in four ways: {failures}");
    assert!(failures > 10_000, "{failures}");
}

/// The checks themselves can fail: a step that was lost after it was done is found, and so is one
/// that was done by half.
#[test]
fn a_lost_or_half_done_step_is_found() {
    let source = Source::new();
    let begin = source.begin();
    let states = source.states(&begin, &[Action::CommitPoint]).unwrap();
    let found = |done, storage: &FaultyStorage| {
        let check = || source.check(storage, &states, done, "on purpose");
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err()
    };
    assert!(!found(0, &begin));
    assert!(found(1, &begin), "an acknowledged point is not there");
    let (_store, disk) = open(&begin).unwrap();
    assert!(matches!(
        disk.history().retain_step(&[].into(), Epoch(u64::MAX)),
        Ok(Step::Folded { .. })
    ));
    drop(disk);
    assert!(found(0, &begin), "a point is gone that nobody let go");
}
