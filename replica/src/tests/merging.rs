//! A merged delta shows what its parts showed, whatever they were.

use std::{collections::BTreeSet, sync::Arc};

use blocks::{
    Epoch,
    EpochKind::{Compare, Delta, Seed},
};
use proptest::prelude::*;
use storage::FaultyStorage;

use super::{
    random::pieces,
    source::{DISK_LEN, Piece, Plan, newest, plan, point, read_view, send, spec},
};
use crate::{Parallelism, Step, Store};

/// Epochs on a disk whose base holds a point of zeroes, and what each leaves.
fn plans(epochs: &[(Vec<Piece>, bool, bool)]) -> (Vec<Plan>, Vec<Vec<u8>>) {
    let mut contents = vec![vec![0; DISK_LEN]; 2];
    let base = Plan { point: Some(point(1, 1)), ..plan(Seed, 1, true, &[]) };
    let mut plans = vec![base];
    for (epoch, (pieces, is_point, is_compare)) in (2..).zip(epochs) {
        let kind = if *is_compare { Compare } else { Delta };
        let point = is_point.then(|| point(epoch, 1));
        let plan = Plan { point, ..plan(kind, epoch, true, pieces) };
        let mut content = contents.last().unwrap().clone();
        plan.apply(&mut content);
        contents.push(content);
        plans.push(plan);
    }
    (plans, contents)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_epochs_merged_in_any_steps_agree_with_the_flat_model(
        epochs in prop::collection::vec((pieces(), any::<bool>(), any::<bool>()), 1..24),
        keeps in prop::collection::vec(any::<u32>(), 1..4),
    ) {
        let (plans, contents) = plans(&epochs);
        let content_of = |epoch: Epoch| &contents[usize::try_from(epoch.0).unwrap()];
        let storage = FaultyStorage::new();
        Store::init_on(&storage).unwrap();
        let open = || Store::open_on(Arc::new(storage.clone()), Parallelism::Caller).unwrap();
        let store = open();
        let disk = store.open_disk(&spec()).unwrap();
        plans.iter().for_each(|plan| send(&disk, plan));
        let mut wanted: BTreeSet<Epoch> =
            disk.history().points().iter().map(|point| point.epoch).collect();
        // Each time fewer are kept, the base among them as long as it can be.
        for keep in keeps {
            wanted.retain(|epoch| keep >> (epoch.0 % 32) & 1 == 1);
            let newest_point = disk.history().points().last().map(|point| point.epoch);
            wanted.extend(newest_point);
            loop {
                let step = disk.history().retain_step(&wanted, Epoch(u64::MAX)).unwrap();
                let points = disk.history().points();
                for point in &points {
                    let view = disk.history().view(point.epoch).unwrap();
                    prop_assert!(read_view(&view) == *content_of(point.epoch), "{:?}", step);
                }
                prop_assert!(newest(&disk) == *contents.last().unwrap(), "{:?}", step);
                if step == Step::Done {
                    let left: BTreeSet<Epoch> = points.iter().map(|point| point.epoch).collect();
                    prop_assert_eq!(&left, &wanted);
                    break;
                }
            }
        }
        drop((disk, store));
        let store = open();
        prop_assert!(store.verify_at_rest().unwrap().damage.is_empty());
        prop_assert!(newest(&store.open_disk(&spec()).unwrap()) == *contents.last().unwrap());
    }
}
