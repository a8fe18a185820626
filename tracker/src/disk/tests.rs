use std::collections::BTreeSet;

use blocks::{ChunkRange, ChunkSize, Extent, MarkKind, Sector, Slot};
use proptest::prelude::*;

use super::*;

const CHUNKS: u64 = 300;
const POLICY: SealPolicy =
    SealPolicy { segment: ByteLen(64 * 4096), dirty_threshold_permille: 500 };

fn geometry() -> Geometry {
    Geometry::new(CHUNKS * 8, 512, ChunkSize::DEFAULT).unwrap()
}

fn chunks(of: impl IntoIterator<Item = u64>) -> Bitmap {
    let mut bitmap = Bitmap::new(CHUNKS);
    for chunk in of {
        bitmap.insert_range(ChunkRange { start: ChunkIndex(chunk), end: ChunkIndex(chunk + 1) });
    }
    bitmap
}

fn harvest(at: u64, of: impl IntoIterator<Item = u64>) -> Harvest {
    Harvest { started: MonotonicNs(at), chunks: chunks(of) }
}

fn content(bitmap: &Bitmap) -> BTreeSet<u64> {
    bitmap.runs().flat_map(|run| run.start.0..run.end.0).collect()
}

fn mark(chunk: u64, at: u64) -> Mark {
    let extent = Extent { start: Sector(chunk * 8), sectors: 8 };
    Mark { slot: Slot(0), extent, at: MonotonicNs(at), kind: MarkKind::Write }
}

fn following() -> DiskTracker {
    let start = Start::Continue {
        pending: Bitmap::new(CHUNKS),
        coverage: Coverage::Complete,
        acked: Epoch(4),
    };
    DiskTracker::new(geometry(), start, MonotonicNs(1))
}

#[test]
fn a_disk_is_seeded_in_segments_and_then_followed() {
    let start = Start::Gap(GapReason::NeverReplicated);
    let mut tracker = DiskTracker::new(geometry(), start, MonotonicNs(1));
    let mut sent = BTreeSet::new();
    for segment in 0..5 {
        // Chunk 3 stays busy behind the cursor; it must not keep the pass from its end.
        let sealed = tracker.seal_epoch(&harvest(10 + segment, [3]), POLICY).unwrap();
        assert!(matches!(sealed, SealedEpoch::Seed(_)) && !sealed.completes());
        let chunks = content(sealed.chunks());
        assert!(sent.is_disjoint(&chunks), "epochs in flight at once share no chunk");
        sent.extend(chunks);
    }
    assert_eq!(sent.len() as u64, CHUNKS);
    assert!(tracker.seal_epoch(&harvest(16, [3]), POLICY).is_none(), "chunk 3 is in flight");
    tracker.handle_ack(Epoch(5));
    let last = tracker.seal_epoch(&harvest(17, []), POLICY).unwrap();
    assert!(matches!(last, SealedEpoch::Seed(_)) && last.completes());
    assert_eq!(content(last.chunks()), [3].into());
    assert_eq!(tracker.coverage(), Coverage::Gap(GapReason::NeverReplicated));
    tracker.handle_ack(Epoch(6));
    assert_eq!(tracker.coverage(), Coverage::Complete);
    let sealed = tracker.seal_epoch(&harvest(20, [7]), POLICY).unwrap();
    assert!(matches!(sealed, SealedEpoch::Delta(_)));
    assert_eq!(content(sealed.chunks()), [7].into());
    assert!(tracker.seal_epoch(&harvest(30, []), POLICY).is_none(), "nothing dirty, no epoch");
}

#[test]
fn an_aborted_seed_is_still_a_gap() {
    let start = Start::Gap(GapReason::NeverReplicated);
    let mut tracker = DiskTracker::new(geometry(), start, MonotonicNs(1));
    let last = (0..5).filter_map(|i| tracker.seal_epoch(&harvest(i, []), POLICY)).last().unwrap();
    assert!(last.completes());
    tracker.handle_ack(Epoch(2));
    tracker.handle_abort();
    assert_eq!(tracker.coverage(), Coverage::Gap(GapReason::NeverReplicated));
    let next = tracker.seal_epoch(&harvest(9, []), POLICY).unwrap();
    assert!(matches!(next, SealedEpoch::Seed(_)));
    assert_eq!(next.epoch(), Epoch(6), "an epoch's number is never used twice");
    assert_eq!(next.chunks().runs().next().unwrap().start, ChunkIndex(128));
}

#[test]
fn a_gap_never_becomes_a_delta() {
    let mut tracker = following();
    tracker.handle_gap(GapReason::CrossCheck { missing_sectors: 8 }, MonotonicNs(5));
    let mut kinds = Vec::new();
    while let Some(sealed) = tracker.seal_epoch(&harvest(6, []), POLICY) {
        kinds.push(matches!(sealed, SealedEpoch::Compare(_)));
    }
    assert_eq!(kinds, [true; 5]);
}

#[test]
fn half_a_disk_is_compared_and_not_sent() {
    let mut tracker = following();
    let sealed = tracker.seal_epoch(&harvest(6, 0..CHUNKS / 2), POLICY).unwrap();
    let SealedEpoch::Compare(compare) = sealed else { panic!("{sealed:?}") };
    assert_eq!(compare.reason(), GapReason::DirtyThreshold);
    let mut tracker = following();
    let sealed = tracker.seal_epoch(&harvest(6, 0..CHUNKS / 2 - 1), POLICY).unwrap();
    assert!(matches!(sealed, SealedEpoch::Delta(_)));
}

#[test]
fn marks_older_than_the_harvest_are_not_counted_again() {
    let mut tracker = following();
    tracker.handle_events(&[mark(1, 10)]);
    tracker.seal_epoch(&harvest(20, [1]), POLICY).unwrap();
    tracker.handle_ack(Epoch(5));
    tracker.handle_events(&[mark(1, 15), mark(2, 25)]);
    let sealed = tracker.seal_epoch(&harvest(30, [2]), POLICY).unwrap();
    assert_eq!(content(sealed.chunks()), [2].into());
}

#[test]
fn the_lag_is_the_age_of_the_oldest_write_not_acknowledged() {
    let mut tracker = following();
    let lag = |tracker: &DiskTracker, now| tracker.status(MonotonicNs(now)).lag.as_nanos();
    tracker.handle_harvest(&harvest(5, []));
    assert_eq!(lag(&tracker, 50), 0);
    tracker.handle_events(&[mark(1, 10), mark(2, 12)]);
    assert_eq!(lag(&tracker, 50), 40);
    tracker.seal_epoch(&harvest(20, [1, 2]), POLICY).unwrap();
    tracker.handle_events(&[mark(3, 30)]);
    assert_eq!(lag(&tracker, 50), 45, "the harvest found bits whose marks may date from 5 on");
    tracker.handle_ack(Epoch(5));
    assert_eq!(lag(&tracker, 50), 20);
}

#[test]
fn a_lost_acknowledgement_is_made_good_when_the_session_resumes() {
    let start = Start::Gap(GapReason::Requested);
    let mut tracker = DiskTracker::new(geometry(), start, MonotonicNs(1));
    tracker.seal_epoch(&harvest(10, []), POLICY).unwrap();
    tracker.seal_epoch(&harvest(20, [2]), POLICY).unwrap();
    let released = tracker.handle_resume(Epoch(1), Replica::Partial, MonotonicNs(30));
    assert_eq!(released.count(), 63, "chunk 2 was written again");
    assert_eq!(tracker.outstanding().count(), CHUNKS - 63);
    let next = tracker.seal_epoch(&harvest(40, []), POLICY).unwrap();
    assert_eq!(next.chunks().runs().next().unwrap().start, ChunkIndex(64), "the pass goes on");
}

#[test]
fn an_epoch_that_was_given_up_and_is_durable_after_all_is_built_on() {
    let start = Start::Gap(GapReason::NeverReplicated);
    let mut tracker = DiskTracker::new(geometry(), start, MonotonicNs(1));
    (0..2).for_each(|i| drop(tracker.seal_epoch(&harvest(i, []), POLICY)));
    // The second failed while the first was being committed.
    tracker.handle_abort();
    assert!(tracker.handle_ack(Epoch(1)).is_empty(), "its chunks are to be sent again");
    assert_eq!((tracker.newest(), tracker.outstanding().count()), (Epoch(1), CHUNKS));
    let next = tracker.seal_epoch(&harvest(3, []), POLICY).unwrap();
    assert_eq!(
        (next.epoch(), next.chunks().first_from(ChunkIndex(0))),
        (Epoch(3), Some(ChunkIndex(0)))
    );
}

#[test]
fn a_replica_older_than_it_acknowledged_is_compared() {
    let mut tracker = following();
    tracker.handle_resume(Epoch(3), Replica::Follows, MonotonicNs(30));
    assert_eq!(tracker.coverage(), Coverage::Gap(GapReason::ReplicaBehind));
    let sealed = tracker.seal_epoch(&harvest(40, []), POLICY).unwrap();
    assert_eq!(sealed.epoch(), Epoch(5), "epochs rise although the replica fell back");
}

#[test]
fn a_replica_that_lost_everything_is_seeded_again() {
    let mut tracker = following();
    tracker.handle_resume(Epoch::NONE, Replica::Empty, MonotonicNs(30));
    assert_eq!(tracker.coverage(), Coverage::Gap(GapReason::NeverReplicated));
    assert_eq!(tracker.outstanding().count(), CHUNKS);
}

#[test]
fn a_seed_whose_last_acknowledgement_was_lost_with_the_agent_is_not_repeated() {
    let start = Start::Continue {
        pending: chunks([4, 5]),
        coverage: Coverage::Gap(GapReason::NeverReplicated),
        acked: Epoch(4),
    };
    let mut tracker = DiskTracker::new(geometry(), start, MonotonicNs(1));
    tracker.handle_resume(Epoch(5), Replica::Follows, MonotonicNs(30));
    let sealed = tracker.seal_epoch(&harvest(40, [9]), POLICY).unwrap();
    assert!(matches!(sealed, SealedEpoch::Delta(_)));
    assert_eq!(content(sealed.chunks()), [4, 5, 9].into());
    assert_eq!(sealed.epoch(), Epoch(6));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64),
    Seal,
    Ack(usize),
    Abort,
    Gap,
    Resume(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..CHUNKS).prop_map(Step::Write),
        4 => Just(Step::Seal),
        2 => (0usize..4).prop_map(Step::Ack),
        1 => Just(Step::Abort),
        1 => Just(Step::Gap),
        1 => (0usize..4).prop_map(Step::Resume),
    ]
}

struct Sent {
    epoch: Epoch,
    completes: bool,
    read: Vec<(u64, u64)>,
}

impl Sent {
    fn apply(&self, replica: &mut [u64], state: &mut Replica) {
        self.read.iter().for_each(|(c, v)| replica[usize::try_from(*c).unwrap()] = *v);
        *state = if self.completes { Replica::Follows } else { Replica::Partial };
    }
}

proptest! {
    /// Promise 4, against the obvious model: a disk of version numbers, a replica that applies
    /// acknowledged epochs, and a kernel that keeps the pending bits. Whatever differs between
    /// disk and replica is dirty in the kernel, active, in flight, or under an open gap.
    #[test]
    fn no_difference_is_ever_forgotten(steps in prop::collection::vec(step(), 0..120)) {
        let mut tracker = following();
        let mut disk = vec![0u64; 300];
        let mut replica = disk.clone();
        let mut kernel = BTreeSet::new();
        let mut pending = BTreeSet::new();
        let mut flights: Vec<Sent> = Vec::new();
        let mut state = Replica::Follows;
        let mut durable = Epoch(4);
        for (now, step) in (10u64..).zip(steps) {
            let mut released = None;
            match step {
                Step::Write(chunk) => {
                    disk[usize::try_from(chunk).unwrap()] = now;
                    kernel.insert(chunk);
                }
                Step::Seal => {
                    pending.extend(&kernel);
                    let harvest = harvest(now, std::mem::take(&mut kernel));
                    if let Some(sealed) = tracker.seal_epoch(&harvest, POLICY) {
                        pending.extend(content(sealed.chunks()));
                        let read = content(sealed.chunks()).into_iter();
                        let read = read.map(|c| (c, disk[usize::try_from(c).unwrap()])).collect();
                        flights.push(Sent { epoch: sealed.epoch(), completes: sealed.completes(), read });
                    }
                }
                Step::Ack(n) if n < flights.len() => {
                    for sent in flights.drain(..=n) {
                        sent.apply(&mut replica, &mut state);
                        durable = sent.epoch;
                    }
                    released = Some(tracker.handle_ack(durable));
                }
                Step::Resume(n) => {
                    // The target made the first n durable, and the acknowledgements were lost.
                    for sent in flights.drain(..n.min(flights.len())) {
                        sent.apply(&mut replica, &mut state);
                        durable = sent.epoch;
                    }
                    flights.clear();
                    released = Some(tracker.handle_resume(durable, state, MonotonicNs(now)));
                }
                Step::Ack(_) => {}
                Step::Abort => {
                    tracker.handle_abort();
                    flights.clear();
                }
                Step::Gap => {
                    pending.extend(0..CHUNKS);
                    tracker.handle_gap(GapReason::Requested, MonotonicNs(now));
                }
            }
            pending.retain(|c| !released.as_ref().is_some_and(|r| r.contains(ChunkIndex(*c))));
            let outstanding = content(&tracker.outstanding());
            for chunk in 0..CHUNKS {
                let at = usize::try_from(chunk).unwrap();
                let known = kernel.contains(&chunk) || outstanding.contains(&chunk);
                prop_assert!(disk[at] == replica[at] || known, "chunk {} forgotten", chunk);
            }
            prop_assert!(outstanding.is_subset(&pending), "a crash now would forget a chunk");
        }
    }
}
