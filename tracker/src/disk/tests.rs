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
fn after_an_unclean_stop_every_chunk_is_suspect() {
    let tracker = DiskTracker::new(geometry(), Start::Gap(GapReason::UncleanStop), MonotonicNs(1));
    assert_eq!(tracker.coverage(), Coverage::Gap(GapReason::UncleanStop));
    assert!(tracker.in_pass());
    assert_eq!(tracker.outstanding().count(), CHUNKS);
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
fn a_target_that_claims_what_was_never_sent_whole_makes_nothing_clean() {
    let mut tracker = following();
    let sealed = tracker.seal_epoch(&harvest(20, [2, 7]), POLICY).unwrap();
    // Its end was not let go when the connection broke; the target says that it has it.
    tracker.abort_after(tracker.acked());
    let released = tracker.handle_resume(sealed.epoch(), Replica::Follows, MonotonicNs(30));
    assert!(released.is_empty(), "{released:?} would be lost");
    let again = tracker.seal_epoch(&harvest(40, []), POLICY).unwrap();
    assert!(again.epoch() > sealed.epoch());
    assert_eq!(again.chunks(), sealed.chunks());
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

#[test]
fn a_gap_found_during_a_seed_leads_to_a_comparison_of_what_was_read_before() {
    let start = Start::Gap(GapReason::NeverReplicated);
    let mut tracker = DiskTracker::new(geometry(), start, MonotonicNs(1));
    tracker.seal_epoch(&harvest(1, []), POLICY).unwrap();
    tracker.handle_ack(Epoch(1));
    tracker.seal_epoch(&harvest(2, []), POLICY).unwrap();
    let reason = GapReason::CrossCheck { missing_sectors: 8 };
    tracker.handle_gap(reason, MonotonicNs(3));
    assert_eq!(tracker.coverage(), Coverage::Gap(GapReason::NeverReplicated));
    assert_eq!(tracker.coverage_to_log(), Coverage::Gap(reason));
    assert_eq!(tracker.outstanding().count(), CHUNKS);
    assert!(tracker.handle_ack(Epoch(2)).is_empty(), "its chunks are suspect");

    // The seed goes on where it was, and its end ends nothing: chunk 200 is written all the while.
    for epoch in 3..=5 {
        let sealed = tracker.seal_epoch(&harvest(epoch, [200]), POLICY).unwrap();
        assert!(matches!(sealed, SealedEpoch::Seed(_)) && !sealed.completes());
        assert!(!content(sealed.chunks()).contains(&0));
    }
    assert!(tracker.seal_epoch(&harvest(6, []), POLICY).is_none(), "the seed is in flight");
    tracker.handle_ack(Epoch(5));

    let mut compared = BTreeSet::new();
    while let Some(sealed) = tracker.seal_epoch(&harvest(7, []), POLICY) {
        let SealedEpoch::Compare(compare) = &sealed else { panic!("{sealed:?}") };
        assert_eq!(compare.reason(), reason);
        compared.extend(content(sealed.chunks()));
        assert_eq!(sealed.completes(), compared.len() == 129);
    }
    assert_eq!(compared, (0..128).chain([200]).collect());
    tracker.handle_ack(tracker.newest());
    assert_eq!(tracker.coverage(), Coverage::Complete);
    assert!(tracker.outstanding().is_empty());
}

#[test]
fn a_gap_found_while_a_seed_awaits_its_last_acknowledgement_is_not_forgotten_with_it() {
    let start = Start::Gap(GapReason::NeverReplicated);
    let mut tracker = DiskTracker::new(geometry(), start, MonotonicNs(1));
    let last = (0..5).filter_map(|i| tracker.seal_epoch(&harvest(i, []), POLICY)).last().unwrap();
    assert!(last.completes());
    tracker.handle_gap(GapReason::Requested, MonotonicNs(9));
    tracker.handle_resume(last.epoch(), Replica::Follows, MonotonicNs(10));
    assert_eq!(tracker.coverage(), Coverage::Gap(GapReason::Requested));
    let next = tracker.seal_epoch(&harvest(11, []), POLICY).unwrap();
    assert!(matches!(next, SealedEpoch::Compare(_)));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64),
    /// A write that tracking does not see.
    Miss(u64),
    Seal,
    Ack(usize),
    Abort,
    /// What was missed so far is noticed.
    Gap,
    /// The connection breaks, and the target turns out to hold the first of what was in flight.
    Resume(usize),
    /// The agent dies; the next one finds the target as [`Step::Resume`] does.
    Crash(usize),
    /// It dies after it has made the gap's chunks pending, and before it has logged the gap.
    CrashInGap(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..CHUNKS).prop_map(Step::Write),
        4 => (0..CHUNKS).prop_map(Step::Miss),
        12 => Just(Step::Seal),
        6 => (0usize..4).prop_map(Step::Ack),
        2 => Just(Step::Abort),
        3 => Just(Step::Gap),
        2 => (0usize..4).prop_map(Step::Resume),
        2 => (0usize..4).prop_map(Step::Crash),
        1 => (0usize..4).prop_map(Step::CrashInGap),
    ]
}

/// Version numbers of chunks.
type Versions = Vec<u64>;

/// The obvious model: a disk of version numbers, a replica that applies durable epochs, a kernel
/// that keeps the dirty and the pending bits, a log that keeps the coverage.
struct Model {
    tracker: DiskTracker,
    disk: Versions,
    /// Chunks whose last write was not seen, and not noticed either.
    missed: BTreeSet<u64>,
    dirty: BTreeSet<u64>,
    pending: BTreeSet<u64>,
    log: Coverage,
    acked: Epoch,
    flights: VecDeque<Sent>,
    target: Target,
    /// A gap was noticed, and no epoch sealed since has completed the replica.
    open: bool,
}

struct Target {
    replica: Versions,
    state: Replica,
    durable: Epoch,
}

/// An epoch on its way.
struct Sent {
    epoch: Epoch,
    read: Vec<(usize, u64)>,
    /// What the replica must hold at least once an epoch that completes it is applied.
    promised: Option<Versions>,
    /// It was sealed after the newest gap was noticed, and completes the replica.
    closes: bool,
}

fn at(chunk: u64) -> usize {
    usize::try_from(chunk).unwrap()
}

impl Target {
    fn apply(&mut self, sent: &Sent) -> Result<(), TestCaseError> {
        sent.read.iter().for_each(|(chunk, version)| self.replica[*chunk] = *version);
        self.state = Replica::Partial;
        self.durable = sent.epoch;
        if let Some(promised) = &sent.promised {
            self.state = Replica::Follows;
            let kept = self.replica.iter().zip(promised).all(|(held, promised)| held >= promised);
            prop_assert!(kept, "{:?} completes a replica that lacks a write", sent.epoch);
        }
        Ok(())
    }
}

impl Model {
    fn new(tracker: DiskTracker, state: Replica) -> Self {
        let pending = content(&tracker.outstanding());
        let (log, acked) = (tracker.coverage_to_log(), tracker.acked());
        // What was never replicated differs all over.
        let version = u64::from(state != Replica::Follows);
        Self {
            tracker,
            disk: vec![version; at(CHUNKS)],
            missed: BTreeSet::new(),
            dirty: BTreeSet::new(),
            pending,
            log,
            acked,
            flights: VecDeque::new(),
            target: Target { replica: vec![0; at(CHUNKS)], state, durable: acked },
            open: false,
        }
    }

    fn step(&mut self, now: u64, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Write(chunk) => {
                self.disk[at(chunk)] = now;
                self.dirty.insert(chunk);
                self.missed.remove(&chunk);
            }
            Step::Miss(chunk) => {
                self.disk[at(chunk)] = now;
                self.missed.insert(chunk);
            }
            Step::Seal => self.seal(now)?,
            Step::Ack(n) if n < self.flights.len() => {
                self.make_durable(n + 1)?;
                let before = self.tracker.coverage();
                let released = self.tracker.handle_ack(self.target.durable);
                self.release(&released);
                self.note_gap(before);
            }
            Step::Ack(_) => {}
            Step::Abort => {
                let before = self.tracker.coverage();
                self.tracker.handle_abort();
                self.flights.clear();
                self.note_gap(before);
            }
            Step::Gap => {
                self.pending.extend(0..CHUNKS);
                self.tracker.handle_gap(REASON, MonotonicNs(now));
                self.missed.clear();
                self.open = true;
                self.flights.iter_mut().for_each(|sent| sent.closes = false);
                self.log = self.tracker.coverage_to_log();
            }
            Step::Resume(n) => self.resume(n, now)?,
            Step::Crash(n) => self.crash(n, now)?,
            Step::CrashInGap(n) => {
                self.pending.extend(0..CHUNKS);
                self.missed.clear();
                self.crash(n, now)?;
            }
        }
        Ok(())
    }

    fn seal(&mut self, now: u64) -> Result<(), TestCaseError> {
        self.pending.extend(&self.dirty);
        let before = self.tracker.coverage();
        let harvest = harvest(now, std::mem::take(&mut self.dirty));
        if let Some(sealed) = self.tracker.seal_epoch(&harvest, POLICY) {
            let read = content(sealed.chunks()).into_iter().map(at);
            let read: Vec<_> = read.map(|chunk| (chunk, self.disk[chunk])).collect();
            // Of a write that nobody knows of, nothing is promised; of one to a chunk that is
            // read, it holds all the same.
            let mut promised = self.disk.clone();
            self.missed.iter().for_each(|chunk| promised[at(*chunk)] = 0);
            let promised = sealed.completes().then_some(promised);
            let is_delta = matches!(sealed, SealedEpoch::Delta(_));
            prop_assert!(!is_delta || !self.open, "a gap was shipped as a delta");
            let closes = sealed.completes();
            self.missed.retain(|chunk| !sealed.chunks().contains(ChunkIndex(*chunk)));
            self.flights.push_back(Sent { epoch: sealed.epoch(), read, promised, closes });
        }
        self.note_gap(before);
        Ok(())
    }

    fn make_durable(&mut self, count: usize) -> Result<(), TestCaseError> {
        let count = count.min(self.flights.len());
        for sent in self.flights.drain(..count) {
            self.open &= !sent.closes;
            self.target.apply(&sent)?;
        }
        Ok(())
    }

    fn resume(&mut self, durable: usize, now: u64) -> Result<(), TestCaseError> {
        self.make_durable(durable)?;
        self.flights.clear();
        let before = self.tracker.coverage();
        let Target { durable, state, .. } = self.target;
        let released = self.tracker.handle_resume(durable, state, MonotonicNs(now));
        self.pending.extend(content(&self.tracker.outstanding()));
        self.release(&released);
        self.note_gap(before);
        Ok(())
    }

    fn crash(&mut self, durable: usize, now: u64) -> Result<(), TestCaseError> {
        let pending = chunks(self.pending.iter().copied());
        let start = Start::Continue { pending, coverage: self.log, acked: self.acked };
        self.tracker = DiskTracker::new(geometry(), start, MonotonicNs(now));
        self.resume(durable, now)
    }

    fn release(&mut self, released: &Bitmap) {
        self.pending.retain(|chunk| !released.contains(ChunkIndex(*chunk)));
        self.acked = self.tracker.acked();
    }

    /// As the agent does when another gap is open than before.
    fn note_gap(&mut self, before: Coverage) {
        if self.tracker.coverage() != before {
            self.pending.extend(content(&self.tracker.outstanding()));
            self.log = self.tracker.coverage_to_log();
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let outstanding = content(&self.tracker.outstanding());
        for chunk in 0..CHUNKS {
            let equal = self.disk[at(chunk)] == self.target.replica[at(chunk)];
            let known = self.dirty.contains(&chunk) || outstanding.contains(&chunk);
            prop_assert!(equal || known || self.missed.contains(&chunk), "chunk {chunk} forgotten");
        }
        prop_assert!(outstanding.is_subset(&self.pending), "a crash now would forget a chunk");
        Ok(())
    }
}

const REASON: GapReason = GapReason::CrossCheck { missing_sectors: 8 };

proptest! {
    /// Promises 3 and 4: whatever differs between disk and replica is dirty in the kernel, active,
    /// in flight, suspect, or a write that was missed and not yet noticed; and an epoch that says
    /// that the replica is whole makes it whole.
    #[test]
    fn no_difference_is_ever_forgotten(
        seeding in any::<bool>(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let seed = Start::Gap(GapReason::NeverReplicated);
        let mut model = match seeding {
            true => Model::new(DiskTracker::new(geometry(), seed, MonotonicNs(1)), Replica::Empty),
            false => Model::new(following(), Replica::Follows),
        };
        for (now, step) in (10u64..).zip(steps) {
            model.step(now, &step)?;
            model.check()?;
        }
    }
}
