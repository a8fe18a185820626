use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn range(start: u64, end: u64) -> ChunkRange {
    ChunkRange { start: ChunkIndex(start), end: ChunkIndex(end) }
}

fn content(bitmap: &Bitmap) -> BTreeSet<u64> {
    (0..bitmap.len() + 70).filter(|i| bitmap.contains(ChunkIndex(*i))).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64, u64),
    Remove(u64, u64),
    Word(u64, u64),
    Union(u64, u64),
    Subtract(u64, u64),
    Take(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0u64..9300;
    let len = || prop_oneof![0u64..70, 0u64..9300];
    prop_oneof![
        (at(), len()).prop_map(|(at, len)| Step::Insert(at, len)),
        (at(), len()).prop_map(|(at, len)| Step::Remove(at, len)),
        (0u64..160, any::<u64>()).prop_map(|(index, bits)| Step::Word(index, bits)),
        (at(), len()).prop_map(|(at, len)| Step::Union(at, len)),
        (at(), len()).prop_map(|(at, len)| Step::Subtract(at, len)),
        (at(), len()).prop_map(|(from, limit)| Step::Take(from, limit)),
    ]
}

/// Applies one step to the bitmap and to the obvious model.
fn apply(step: &Step, bitmap: &mut Bitmap, model: &mut BTreeSet<u64>) {
    let len = bitmap.len();
    let part = |at: u64, n: u64| at.min(len)..(at + n).min(len);
    let made = |at: u64, n: u64| {
        let mut other = Bitmap::new(len);
        other.insert_range(range(at, at + n));
        other
    };
    match *step {
        Step::Insert(at, n) => {
            bitmap.insert_range(range(at, at + n));
            model.extend(part(at, n));
        }
        Step::Remove(at, n) => {
            bitmap.remove_range(range(at, at + n));
            model.retain(|i| !part(at, n).contains(i));
        }
        Step::Word(index, bits) => {
            bitmap.insert_word(index, bits);
            model.extend(
                (0..64).filter(|i| bits >> i & 1 == 1).map(|i| index * 64 + i).filter(|i| *i < len),
            );
        }
        Step::Union(at, n) => {
            bitmap.union_with(&made(at, n));
            model.extend(part(at, n));
        }
        Step::Subtract(at, n) => {
            bitmap.subtract(&made(at, n));
            model.retain(|i| !part(at, n).contains(i));
        }
        Step::Take(from, limit) => {
            let wanted: BTreeSet<u64> =
                model.range(from..).copied().take(usize::try_from(limit).unwrap()).collect();
            assert_eq!(content(&bitmap.take(ChunkIndex(from), limit)), wanted);
            model.retain(|i| !wanted.contains(i));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_a_set_of_numbers(
        len in prop_oneof![1u64..200, 4090u64..4100, 8190u64..9300],
        full: bool,
        steps in prop::collection::vec(step(), 0..12),
    ) {
        let mut bitmap = if full { Bitmap::full(len) } else { Bitmap::new(len) };
        let mut model: BTreeSet<u64> = if full { (0..len).collect() } else { BTreeSet::new() };
        for step in &steps {
            apply(step, &mut bitmap, &mut model);
        }
        prop_assert_eq!(bitmap.count(), model.len() as u64);
        prop_assert_eq!(bitmap.is_empty(), model.is_empty());
        let from_runs: BTreeSet<u64> = bitmap.runs().flat_map(|run| run.start.0..run.end.0).collect();
        prop_assert_eq!(&from_runs, &model);
        for from in [0, 1, 63, 64, len / 2, len, len + 1] {
            let first = bitmap.first_from(ChunkIndex(from)).map(|chunk| chunk.0);
            prop_assert_eq!(first, model.range(from..).next().copied());
            let absent = bitmap.first_absent_from(ChunkIndex(from)).map(|chunk| chunk.0);
            prop_assert_eq!(absent, (from..len).find(|chunk| !model.contains(chunk)));
        }
        let mut rebuilt = Bitmap::new(len);
        bitmap.words().for_each(|(index, bits)| rebuilt.insert_word(index, bits));
        prop_assert!(rebuilt == bitmap, "one content has one form");
        prop_assert_eq!(content(&bitmap), model);
    }
}

#[test]
fn runs_are_as_long_as_can_be() {
    let mut bitmap = Bitmap::new(10_000);
    bitmap.insert_range(range(60, 4200));
    bitmap.insert_range(range(4200, 9000));
    bitmap.insert_range(range(9999, 20_000));
    assert_eq!(bitmap.runs().collect::<Vec<_>>(), [range(60, 9000), range(9999, 10_000)]);
}

#[test]
fn a_whole_disk_is_cheap_to_hold() {
    let bitmap = Bitmap::full(1 << 28); // 1 TiB at 4 KiB
    assert!(bitmap.pages.len() * size_of::<Page>() <= 1 << 20);
    assert_eq!(bitmap.count(), 1 << 28);
}
