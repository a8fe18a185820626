//! The scenario of the crash and fault tests, and what must hold wherever it was cut short.
//!
//! Two seeds, deltas of which two wait to be folded at once, a comparison in two segments, and
//! once more a delta. What every epoch leaves is known, so that wherever the store ends up, its
//! content can be compared byte by byte.

use std::{collections::BTreeMap, sync::Arc};

use blocks::{Epoch, EpochKind};
use storage::{FaultyStorage, OpenMode, Storage, StorePath};

use wire::CheckedFrame;

use super::source::{DISK_LEN, Fill, Plan, newest, piece, plan, spec};
use crate::{Completeness, Disk, OpenStoreError, Parallelism, Store};

/// Sectors covered by the first seed; the second covers the rest.
const FIRST_SEED: u32 = 150;

pub(super) struct Scenario {
    plans: Vec<Plan>,
    /// The frames of each of the plans. They are sealed once: a source sends lost epochs again.
    frames: Vec<Vec<CheckedFrame>>,
    /// What the disk holds after each epoch.
    contents: BTreeMap<Epoch, Vec<u8>>,
}

/// How far a run came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reached {
    /// The newest epoch that was acknowledged.
    pub(super) acknowledged: Epoch,
    /// The newest epoch that was begun.
    pub(super) begun: Epoch,
    /// Whether everything was done.
    pub(super) finished: bool,
}

impl Scenario {
    pub(super) fn new() -> Self {
        use EpochKind::{Compare, Delta, Seed};
        use Fill::{Noise, Same, Zero};
        let plans = vec![
            plan(
                Seed,
                1,
                false,
                &[
                    piece(0, 70, Noise(1)),
                    piece(70, 40, Zero),
                    piece(110, FIRST_SEED - 110, Same(1)),
                ],
            ),
            plan(
                Seed,
                2,
                true,
                &[piece(150, 50, Noise(2)), piece(200, 57, Zero), piece(257, 60, Same(2))],
            ),
            plan(Delta, 3, true, &[piece(10, 8, Noise(3)), piece(120, 16, Same(3))]),
            plan(Delta, 4, true, &[piece(12, 8, Noise(4)), piece(40, 20, Zero)]),
            plan(Compare, 5, false, &[piece(0, 20, Same(5))]),
            plan(Compare, 6, true, &[piece(300, 17, Noise(6)), piece(16, 8, Noise(7))]),
            plan(Delta, 7, true, &[piece(14, 4, Zero), piece(310, 7, Same(8))]),
        ];
        let mut content = vec![0; DISK_LEN];
        let mut contents = BTreeMap::new();
        for plan in &plans {
            plan.apply(&mut content);
            contents.insert(plan.link.epoch, content.clone());
        }
        Self { frames: plans.iter().map(Plan::frames).collect(), plans, contents }
    }

    /// Runs from wherever the store is to the end, or to the first error.
    pub(super) fn run(&self, storage: &FaultyStorage) -> Reached {
        let mut reached = Reached::default();
        reached.finished = self.try_run(storage, &mut reached).is_ok();
        reached
    }

    fn try_run(
        &self,
        storage: &FaultyStorage,
        reached: &mut Reached,
    ) -> Result<(), Box<dyn std::error::Error>> {
        match Store::open_on(Arc::new(storage.clone()), Parallelism::Caller) {
            Err(OpenStoreError::NotAStore) => Store::init_on(storage)?,
            other => drop(other?),
        }
        let store = Store::open_on(Arc::new(storage.clone()), Parallelism::Caller)?;
        let disk = store.open_disk(&spec())?;
        reached.acknowledged = disk.state().last_durable;
        for (plan, frames) in self.plans.iter().zip(&self.frames) {
            if plan.link.epoch <= disk.state().last_durable {
                continue;
            }
            reached.begun = plan.link.epoch;
            let mut incoming = disk.begin(plan.link)?;
            frames.iter().try_for_each(|frame| incoming.append(frame.clone()))?;
            reached.acknowledged = incoming.commit()?.state.last_durable;
            self.tend(&disk, plan.link.epoch)?;
        }
        while disk.fold_one()?.is_some() {}
        drop((disk, store));
        // A clean opening at the end.
        let store = Store::open_on(Arc::new(storage.clone()), Parallelism::Caller)?;
        store.open_disk(&spec())?;
        Ok(())
    }

    /// What goes on beside receiving: the third epoch waits, so that two are folded after the
    /// fourth; before the second segment of the comparison, hashes are asked for.
    fn tend(&self, disk: &Disk, epoch: Epoch) -> Result<(), Box<dyn std::error::Error>> {
        match epoch.0 {
            4 => while disk.fold_one()?.is_some() {},
            5 => self.check_hashes(disk)?,
            _ => {}
        }
        Ok(())
    }

    fn check_hashes(&self, disk: &Disk) -> Result<(), Box<dyn std::error::Error>> {
        let answer = disk.hashes(0, 3)?;
        let content = &self.contents[&answer.as_of];
        let expected: Vec<[u8; 32]> =
            content.chunks(64 * 1024).map(|block| *blake3::hash(block).as_bytes()).collect();
        assert_eq!(answer.hashes, expected, "hashes of epoch {}", answer.as_of);
        Ok(())
    }

    /// What must hold of a store in which a run came as far as `reached`: nothing acknowledged is
    /// lost, and what is there is one of the epochs, whole. Returns the newest durable epoch.
    pub(super) fn check(&self, storage: &FaultyStorage, reached: Reached) -> Epoch {
        let store = match Store::open_on(Arc::new(storage.clone()), Parallelism::Caller) {
            Ok(store) => store,
            Err(OpenStoreError::NotAStore) => {
                assert_eq!(reached.acknowledged, Epoch::NONE, "the store is gone");
                return Epoch::NONE;
            }
            Err(error) => panic!("the store can't be opened: {error}"),
        };
        assert!(store.damaged().is_empty(), "{:?}", store.damaged());
        let disk = store.open_disk(&spec()).unwrap();
        let state = disk.state();
        assert!(reached.acknowledged <= state.last_durable, "{reached:?}, but {state:?}");
        assert!(state.last_durable <= reached.begun.max(reached.acknowledged), "{state:?}");
        let completeness = match state.last_durable.0 {
            0 => Completeness::Empty,
            1 | 5 => Completeness::Partial,
            _ => Completeness::Follows,
        };
        assert_eq!(state.completeness, completeness, "after epoch {}", state.last_durable);
        self.check_content(&newest(&disk), state.last_durable);
        assert!(store.verify_at_rest().unwrap().damage.is_empty());
        if state.last_durable >= Epoch(2) {
            self.check_hashes(&disk).unwrap();
        }
        while disk.fold_one().unwrap().is_some() {}
        assert_eq!(disk.pending_folds(), 0);
        self.check_content(&read_base(storage), state.last_durable);
        state.last_durable
    }

    fn check_content(&self, content: &[u8], epoch: Epoch) {
        let Some(expected) = self.contents.get(&epoch) else { return };
        // A seed that was not committed may have left anything in what it covers, and the first
        // seed says nothing about the rest of the disk.
        let certain = if epoch == Epoch(1) { FIRST_SEED as usize * 512 } else { DISK_LEN };
        let differs = (0..certain).find(|at| content[*at] != expected[*at]);
        assert_eq!(differs, None, "byte after epoch {epoch}");
    }
}

pub(super) fn disk_path() -> StorePath {
    StorePath::root().join("disks").join(&spec().id.to_string())
}

pub(super) fn read_base(storage: &FaultyStorage) -> Vec<u8> {
    let mut bytes = vec![0; DISK_LEN];
    let file = storage.open(&disk_path().join("base"), OpenMode::Read).unwrap();
    file.read_exact_at(0, &mut bytes).unwrap();
    bytes
}
