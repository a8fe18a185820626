//! The cut against a model of disks that are written to meanwhile, and mistakes that it must find.

use super::*;
use blocks::{ByteLen, ChunkSize};
use proptest::prelude::*;

mod model;

use model::{Mistake, Model};

const SEEDS: u64 = 3000;

/// Choices from a list, then from a generator: every run ends.
fn run(choices: &[u8], seed: u64, freeze: Freeze, mistake: Mistake) -> model::Report {
    let mut pauses = Pauses::new(seed);
    let mut left = choices.iter();
    let mut choose = move |below: usize| match left.next() {
        Some(choice) => usize::from(*choice) % below,
        None => {
            usize::try_from(pauses.next(Duration::from_nanos(below as u64)).as_nanos()).unwrap()
        }
    };
    Model::run(&mut choose, freeze, mistake)
}

proptest! {
    #[test]
    fn a_verified_image_is_the_state_at_t(
        choices in prop::collection::vec(any::<u8>(), 0..600),
        seed in any::<u64>(),
    ) {
        let report = run(&choices, seed, Freeze::Never, Mistake::None);
        prop_assert!(report.invalid.is_none(), "{:?}", report);
        prop_assert!(report.nothing_lost, "{:?}", report);
    }
}

fn count(mistake: Mistake) -> (u64, u64) {
    let reports = (0..SEEDS).map(|seed| run(&[], seed, Freeze::Never, mistake));
    reports.fold((0, 0), |(verified, invalid), report| {
        (verified + u64::from(report.verified), invalid + u64::from(report.invalid.is_some()))
    })
}

#[test]
fn most_cuts_succeed_and_none_is_wrong() {
    let (verified, invalid) = count(Mistake::None);
    assert!(verified > SEEDS / 2, "{verified} of {SEEDS}");
    assert_eq!(invalid, 0);
}

#[test]
fn conflicts_do_happen_in_the_model() {
    let attempts = (0..SEEDS).map(|seed| run(&[], seed, Freeze::Never, Mistake::None).attempts);
    assert!(attempts.filter(|attempts| *attempts > 1).count() > 100);
}

#[test]
fn each_mistake_makes_points_that_are_none() {
    for mistake in [
        Mistake::NoLook,
        Mistake::InstantBeforeFlip,
        Mistake::HarvestBeforeFlip,
        Mistake::LookBeforeRead,
        Mistake::ClearedAfterRead,
        Mistake::MissesIgnored,
    ] {
        let (verified, invalid) = count(mistake);
        assert!(invalid > 0, "{mistake:?}: none of {verified} is wrong");
    }
}

fn disk(chunks: u64, dirty: &[u64]) -> CutDisk {
    let geometry = Geometry::new(chunks * 8, 512, ChunkSize::DEFAULT).unwrap();
    let mut bitmap = Bitmap::new(chunks);
    for chunk in dirty {
        bitmap.insert_word(chunk / 64, 1 << (chunk % 64));
    }
    CutDisk { geometry, dirty: bitmap, heat: Heat::default() }
}

fn at(ns: u64) -> CutTime {
    CutTime { unix_ns: ns, monotonic: MonotonicNs(ns) }
}

/// One iteration in which nothing new is dirty and the first look meets a conflict if told so.
fn iterate(cut: &mut Cut, dirty: u64, conflict: bool, now: u64) -> Vec<ChunkRange> {
    assert!(matches!(cut.poll(MonotonicNs(now)), Step::Flip(_)));
    cut.handle_flip(0, at(now));
    assert_eq!(cut.poll(MonotonicNs(now)), Step::Harvest);
    cut.handle_dirty(0, 0, dirty);
    cut.handle_harvested(0);
    let mut ranges = Vec::new();
    while let Step::Read(read) = cut.poll(MonotonicNs(now)) {
        let first = ranges.is_empty();
        ranges.push(read.chunks);
        let look = if conflict && first { Look::Conflict } else { Look::Clear };
        cut.handle_read(read.id, look, MonotonicNs(now + 10));
    }
    if matches!(cut.poll(MonotonicNs(now)), Step::Check) {
        cut.handle_check(0, false, MonotonicNs(now + 20));
    }
    ranges
}

fn new(disk: CutDisk, limits: CutLimits, freeze: Freeze) -> Cut {
    Cut::new(limits, freeze, vec![disk], 1, MonotonicNs(0))
}

#[test]
fn a_small_attempt_stops_at_a_conflict_and_the_hot_chunk_is_read_first_then() {
    let mut cut = new(disk(64, &[3, 9, 20]), CutLimits::default(), Freeze::Never);
    assert_eq!(iterate(&mut cut, 0, true, 100).len(), 1, "the other two wait");
    let second = iterate(&mut cut, 1 << 3, false, 200);
    let starts: Vec<u64> = second.iter().map(|range| range.start.0).collect();
    assert_eq!(starts, [3, 9, 20]);
    let Finished { outcome, disks, .. } = cut.finish();
    let Outcome::Verified(verified) = outcome else { panic!("{outcome}") };
    assert_eq!((verified.attempts, verified.at.monotonic.0, disks[0].chunks.count()), (2, 200, 3));
    assert_eq!(verified.window, Duration::from_nanos(20));
}

#[test]
fn a_large_one_is_read_to_its_end() {
    let limits = CutLimits { depth: 2, ..CutLimits::default() };
    let mut cut = new(disk(64, &[3, 9, 20]), limits, Freeze::Never);
    assert_eq!(iterate(&mut cut, 0, true, 100).len(), 3);
    assert_eq!(iterate(&mut cut, 0, false, 200).len(), 0, "nothing is due, and that verifies");
    assert!(matches!(cut.finish().outcome, Outcome::Verified(_)));
}

#[test]
fn rounds_that_do_not_shrink_end_it() {
    let limits = CutLimits { depth: 2, ..CutLimits::default() };
    let mut cut = new(disk(64, &[1, 2, 3]), limits, Freeze::IfNeeded);
    for round in 1..=4 {
        iterate(&mut cut, 0b11110, true, 100 * round);
    }
    let outcome = cut.finish().outcome;
    assert!(matches!(outcome, Outcome::CannotKeepUp { rounds: 4, .. }), "{outcome}");
    assert!(outcome.to_string().starts_with("cannot keep up"));
}

#[test]
fn more_than_fits_ships_a_delta_first() {
    let limits = CutLimits { memory: ByteLen(2 * 4096), ..CutLimits::default() };
    let mut cut = new(disk(64, &[1, 2, 3]), limits, Freeze::Never);
    assert_eq!(cut.poll(MonotonicNs(0)), Step::Done);
    let Finished { outcome, attempts, .. } = cut.finish();
    assert!(matches!(outcome, Outcome::TooLarge { .. }) && attempts == 0);
}

#[test]
fn an_attempt_that_missed_an_event_is_void() {
    for (misses, overflowed) in [(1, false), (0, true)] {
        let mut cut = new(disk(64, &[]), CutLimits::default(), Freeze::Never);
        cut.poll(MonotonicNs(0));
        cut.handle_flip(0, at(5));
        cut.handle_harvested(0);
        assert_eq!(cut.poll(MonotonicNs(9)), Step::Check);
        cut.handle_check(misses, overflowed, MonotonicNs(9));
        assert!(matches!(cut.poll(MonotonicNs(9)), Step::Flip(_)));
    }
}

#[test]
fn tries_are_bounded_by_number_and_time_and_then_it_freezes() {
    let second = 1_000_000_000;
    let mut cut = new(disk(64, &[]), CutLimits::default(), Freeze::IfNeeded);
    for attempt in 0..20 {
        assert_eq!(cut.poll(MonotonicNs(0)), Step::Flip(Hold::None), "{attempt}");
        iterate(&mut cut, 1, true, attempt * second);
    }
    for hold in [Hold::Instant, Hold::Instant, Hold::Throughout, Hold::Throughout] {
        assert_eq!(cut.poll(MonotonicNs(0)), Step::Flip(hold));
        iterate(&mut cut, 1, true, 100 * second);
    }
    let outcome = cut.finish().outcome;
    assert!(matches!(outcome, Outcome::Unsettled { attempts: 24, .. }), "{outcome}");
}

#[test]
fn an_attempt_without_a_freeze_is_not_what_was_asked_for() {
    let mut cut = new(disk(64, &[7]), CutLimits::default(), Freeze::Always);
    iterate(&mut cut, 0, false, 100);
    assert_eq!(cut.poll(MonotonicNs(0)), Step::Flip(Hold::Instant));
    iterate(&mut cut, 0, false, 200);
    let Outcome::Verified(verified) = cut.finish().outcome else { panic!("not verified") };
    assert_eq!((verified.hold, verified.at.monotonic.0), (Hold::Instant, 200));
}
