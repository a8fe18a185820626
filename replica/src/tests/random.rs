//! Random lives of a disk against the obvious model: a list of epochs and what each left.

use std::sync::Arc;

use blocks::{
    Epoch,
    EpochKind::{Compare, Delta, Seed},
};
use proptest::prelude::*;
use storage::{FaultyStorage, faulty::Fate};

use super::source::{DISK_LEN, Fill, Piece, Plan, SECTORS, append_all, newest, piece, plan, spec};
use crate::{Completeness, Disk, Parallelism, Store};

#[derive(Clone, Debug)]
enum Step {
    /// The next epoch: a seed or comparison that completes or not, or a delta if that is possible.
    Commit {
        whole: bool,
        seed: bool,
        pieces: Vec<Piece>,
    },
    /// An epoch of which some frames come, and no more.
    GiveUp {
        pieces: Vec<Piece>,
        frames: usize,
    },
    Fold,
    Hash,
    Reopen,
    /// Power is lost after so many more operations; of what is unflushed, the bits say what stays.
    Crash {
        after: u64,
        kept: u64,
    },
}

pub(super) fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let fill = prop_oneof![
        Just(Fill::Zero),
        any::<u8>().prop_map(Fill::Same),
        any::<u8>().prop_map(Fill::Noise)
    ];
    // Cut at distinct sectors, so that the pieces are disjoint.
    prop::collection::btree_map(0..SECTORS, fill, 1..6).prop_map(|starts| {
        let ends = starts.keys().copied().skip(1).chain([SECTORS]);
        let cut = starts.iter().zip(ends).map(|((start, fill), end)| {
            piece(*start, u32::try_from((end - start).min(90)).unwrap(), *fill)
        });
        cut.collect()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), any::<bool>(), pieces())
            .prop_map(|(whole, seed, pieces)| Step::Commit { whole, seed, pieces }),
        2 => (pieces(), 0usize..4).prop_map(|(pieces, frames)| Step::GiveUp { pieces, frames }),
        2 => Just(Step::Fold),
        1 => Just(Step::Hash),
        1 => Just(Step::Reopen),
        3 => (0u64..40, any::<u64>()).prop_map(|(after, kept)| Step::Crash { after, kept }),
    ]
}

struct Run {
    storage: FaultyStorage,
    store: Option<Store>,
    disk: Option<Disk>,
    /// What is certain of each byte after each epoch; a byte is not certain once an epoch that was
    /// not committed may have written it.
    contents: Vec<Vec<Option<u8>>>,
    acknowledged: Epoch,
}

impl Run {
    fn new() -> Self {
        let storage = FaultyStorage::new();
        Store::init_on(&storage).unwrap();
        let contents = vec![vec![Some(0); DISK_LEN]];
        let acknowledged = Epoch::NONE;
        let mut run = Self { storage, store: None, disk: None, contents, acknowledged };
        run.open();
        run
    }

    fn open(&mut self) {
        let store = Store::open_on(Arc::new(self.storage.clone()), Parallelism::Caller).unwrap();
        assert!(store.damaged().is_empty(), "{:?}", store.damaged());
        self.disk = Some(store.open_disk(&spec()).unwrap());
        self.store = Some(store);
        let state = self.disk.as_ref().unwrap().state();
        assert!(state.last_durable >= self.acknowledged);
        let durable = usize::try_from(state.last_durable.0).unwrap();
        assert!(durable < self.contents.len(), "an epoch that was never sent");
        self.contents.truncate(durable + 1);
        self.acknowledged = state.last_durable;
        self.check();
    }

    fn close(&mut self) {
        (self.disk, self.store) = (None, None);
    }

    fn check(&self) {
        let content = newest(self.disk.as_ref().unwrap());
        let expected = self.contents.last().unwrap();
        let wrong = (0..DISK_LEN).find(|at| expected[*at].is_some_and(|byte| byte != content[*at]));
        assert_eq!(wrong, None, "byte after epoch {}", self.acknowledged);
    }

    /// What the next epoch can be.
    fn next(&self, whole: bool, seed: bool, pieces: &[Piece]) -> Plan {
        let epoch = self.acknowledged.0 + 1;
        let state = self.disk.as_ref().unwrap().state();
        match state.completeness {
            Completeness::Follows if seed => plan(Delta, epoch, true, pieces),
            Completeness::Empty | Completeness::Partial if seed => plan(Seed, epoch, whole, pieces),
            _ => plan(Compare, epoch, whole, pieces),
        }
    }

    /// What is certain after `plan`, if it is committed.
    fn after(&self, plan: &Plan) -> Vec<Option<u8>> {
        let mut bytes = vec![0; DISK_LEN];
        plan.apply(&mut bytes);
        let mut content = self.contents.last().unwrap().clone();
        covered(plan).for_each(|at| content[at] = Some(bytes[at]));
        content
    }

    /// A seed that was begun may have written anything it covers.
    fn doubt(&mut self, plan: &Plan) {
        if plan.link.kind == Seed {
            let content = self.contents.last_mut().unwrap();
            covered(plan).for_each(|at| content[at] = None);
        }
    }

    /// Sends a plan; whether it was acknowledged.
    fn commit(&mut self, plan: &Plan) -> bool {
        let after = self.after(plan);
        self.doubt(plan);
        self.contents.push(after);
        let disk = self.disk.as_ref().unwrap();
        let send = || -> Result<(), Box<dyn std::error::Error>> {
            let mut incoming = disk.begin(plan.link)?;
            append_all(&mut incoming, plan)?;
            incoming.commit()?;
            Ok(())
        };
        let sent = send().is_ok();
        if sent {
            self.acknowledged = plan.link.epoch;
        }
        sent
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Commit { whole, seed, pieces } => {
                let plan = self.next(*whole, *seed, pieces);
                assert!(self.commit(&plan));
            }
            Step::GiveUp { pieces, frames } => {
                let plan = self.next(true, true, pieces);
                self.doubt(&plan);
                let mut incoming = self.disk.as_ref().unwrap().begin(plan.link).unwrap();
                for frame in plan.frames().into_iter().take(*frames) {
                    incoming.append(frame).unwrap();
                }
            }
            Step::Fold => {
                self.disk.as_ref().unwrap().fold_one().unwrap();
            }
            Step::Hash => {
                let hashes = self.disk.as_ref().unwrap().hashes(0, 3).unwrap();
                assert_eq!(hashes.as_of, self.acknowledged);
                let content = newest(self.disk.as_ref().unwrap());
                let blocks = content.chunks(64 * 1024).map(|block| *blake3::hash(block).as_bytes());
                assert!(hashes.hashes.iter().copied().eq(blocks), "kept hashes are of the content");
                self.check();
            }
            Step::Reopen => {
                self.close();
                self.open();
            }
            Step::Crash { after, kept } => {
                self.storage.power_off_after(*after);
                let plan = self.next(true, true, &[piece(7, 3, Fill::Same(1))]);
                if self.commit(&plan) {
                    let _ = self.disk.as_ref().unwrap().fold_one();
                }
                self.close();
                let fate = |i: usize| match kept >> (i * 2 % 64) & 3 {
                    0 | 1 => Fate::Kept,
                    2 => Fate::Dropped,
                    _ => Fate::Torn { bytes: i * 300 },
                };
                self.storage = self.storage.after_crash(fate);
                self.open();
            }
        }
    }
}

fn covered(plan: &Plan) -> impl Iterator<Item = usize> {
    plan.pieces.iter().flat_map(|piece| {
        let start = usize::try_from(piece.start).unwrap() * 512;
        start..start + piece.sectors as usize * 512
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_life_agrees_with_the_model(steps in prop::collection::vec(step(), 1..14)) {
        let mut run = Run::new();
        steps.iter().for_each(|step| run.step(step));
        run.close();
        run.open();
    }
}
