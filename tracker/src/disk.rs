//! One disk: what is active, what is in flight, and what is known about both.
//!
//! ```text
//!   marks, harvests --> active --seal_epoch--> in flight --handle_ack--> gone
//!                         ^                        |
//!                         +------ handle_abort ----+
//! ```
//!
//! Invariants:
//! - a chunk leaves `active ∪ in flight ∪ suspect` only by the acknowledgement of an epoch that
//!   held it;
//! - `acked < epochs in flight < next_epoch`, rising from front to back;
//! - the coverage of the active set is a gap until everything it must visit has been sealed, and
//!   that of the disk until all of that is acknowledged and nothing is suspect.
//!
//! A gap is worked off by a *pass*: segments are taken in disk order so that a busy region can't
//! starve the rest, and once the pass has met the end of the disk the remainder is taken whole,
//! which closes the gap. Epochs in flight at once never share a chunk: only the segments of a pass
//! overlap in time, and each lies behind the one before.
//!
//! A gap makes *suspect* what nothing has still to read: every chunk that is not active. What is
//! active will be read later than the gap was found, so nothing written before can be missing from
//! it. The suspects are compared in a pass of their own, which begins once the pass under way, if
//! one is, has met the end and is acknowledged: a gap found meanwhile costs a comparison, and never
//! the way that was come already.

use std::collections::VecDeque;
use std::time::Duration;

use blocks::{
    Bitmap, ByteLen, ChunkIndex, Coverage, Epoch, GapReason, Geometry, Mark, MonotonicNs, Mutant,
    SealedEpoch,
};

use crate::start::Start;

mod cut;
#[cfg(test)]
mod tests;

/// What one sweep of the kernel's bitmap found and cleared.
#[derive(Debug)]
pub struct Harvest {
    /// When the sweep began. Every mark older than this is in `chunks` or in an earlier harvest.
    pub started: MonotonicNs,
    /// The chunks that were set.
    pub chunks: Bitmap,
}

/// How large an epoch may become.
#[derive(Clone, Copy, Debug)]
pub struct SealPolicy {
    /// The largest segment of a seed or comparison.
    pub segment: ByteLen,
    /// A delta of at least this many thousandths of the disk becomes a comparison. Hyper-V
    /// Replica's rule is 500.
    pub dirty_threshold_permille: u16,
}

impl Default for SealPolicy {
    fn default() -> Self {
        Self { segment: ByteLen(256 << 20), dirty_threshold_permille: 500 }
    }
}

/// The dirty set of one disk and the epochs cut from it.
#[derive(Debug)]
pub struct DiskTracker {
    geometry: Geometry,
    active: Bitmap,
    coverage: Coverage,
    /// Where the pass of an open gap goes on; `None` once it has met the end of the disk.
    cursor: Option<ChunkIndex>,
    suspects: Option<Suspects>,
    in_flight: VecDeque<Flight>,
    next_epoch: Epoch,
    acked: Epoch,
    last_harvest: MonotonicNs,
    oldest_dirty: Option<MonotonicNs>,
    sweep_due: bool,
}

/// What the newest gap makes suspect, until a comparison of it begins.
#[derive(Debug)]
struct Suspects {
    chunks: Bitmap,
    reason: GapReason,
}

#[derive(Debug)]
struct Flight {
    epoch: Epoch,
    chunks: Bitmap,
    coverage: Coverage,
    oldest_dirty: Option<MonotonicNs>,
}

/// What the target says it holds when a session opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replica {
    /// Nothing.
    Empty,
    /// Part of an initial synchronisation or of a comparison.
    Partial,
    /// A copy that follows.
    Follows,
}

/// What an administrator is shown of one disk's tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackerStatus {
    /// Marked or suspect, and not yet sealed.
    pub active: ByteLen,
    /// Sealed and not yet acknowledged.
    pub in_flight: ByteLen,
    /// What is known about the active set.
    pub coverage: Coverage,
    /// The newest acknowledged epoch.
    pub acked: Epoch,
    /// The age of the oldest write that the replica may lack.
    pub lag: Duration,
}

impl DiskTracker {
    /// A tracker of a disk of this geometry, with what `start` found.
    pub fn new(geometry: Geometry, start: Start, now: MonotonicNs) -> Self {
        let (active, coverage, acked) = match start {
            Start::Gap(GapReason::UncleanStop) if Mutant::UncleanStopIgnored.is_on() => {
                (Bitmap::new(geometry.chunks()), Coverage::Complete, Epoch::NONE)
            }
            Start::Gap(reason) => {
                (Bitmap::full(geometry.chunks()), Coverage::Gap(reason), Epoch::NONE)
            }
            Start::Continue { pending, coverage, acked } => (pending, coverage, acked),
        };
        let oldest_dirty = (!active.is_empty()).then_some(now);
        let cursor = matches!(coverage, Coverage::Gap(_)).then_some(ChunkIndex(0));
        Self {
            geometry,
            active,
            coverage,
            cursor,
            suspects: None,
            in_flight: VecDeque::new(),
            next_epoch: acked.next(),
            acked,
            last_harvest: MonotonicNs(0),
            oldest_dirty,
            sweep_due: false,
        }
    }

    /// Takes records of the ring. They make the dirty set and its age visible between harvests;
    /// correctness never rests on them.
    pub fn handle_events(&mut self, marks: &[Mark]) {
        // A mark from before the last harvest is in that harvest, or its bit was set a tick after
        // its time at most, and then the next harvest has it. Counting it again would ship its
        // chunks twice.
        let fresh = self.last_harvest;
        for mark in marks.iter().filter(|mark| mark.at >= fresh) {
            self.active.insert_range(self.geometry.chunks_of(mark.extent));
            self.note_dirty(mark.at);
        }
    }

    /// Ring records were lost. No bit was: the next sweep of the bitmap finds them all.
    pub fn handle_loss(&mut self) {
        self.sweep_due = true;
    }

    /// Whether the kernel's bitmap should be swept although no epoch is due.
    pub fn sweep_due(&self) -> bool {
        self.sweep_due
    }

    /// Takes a sweep of the kernel's bitmap.
    pub fn handle_harvest(&mut self, harvest: &Harvest) {
        if !harvest.chunks.is_empty() {
            // A bit without a record was set at some time since the harvest before.
            let since = self.last_harvest;
            self.note_dirty(if since == MonotonicNs(0) { harvest.started } else { since });
        }
        if !Mutant::RingOverflowIgnored.is_on() {
            self.active.union_with(&harvest.chunks);
        }
        self.last_harvest = self.last_harvest.max(harvest.started);
        self.sweep_due = false;
    }

    /// Writes may be missing from what was tracked: what was read before is suspect, and only a
    /// comparison helps. A pass that is under way goes on, and the comparison follows it.
    ///
    /// The caller must make the gap survive its own death first: fill the pending bits, and log
    /// [`Self::coverage_to_log`] after.
    pub fn handle_gap(&mut self, reason: GapReason, now: MonotonicNs) {
        let mut chunks = Bitmap::full(self.geometry.chunks());
        chunks.subtract(&self.active);
        // Those of an earlier gap are either suspect still or, active by now, read later than both.
        self.suspects = Some(Suspects { chunks, reason });
        self.note_dirty(now);
    }

    /// Seals what is due, or nothing when no chunk is dirty.
    ///
    /// A seal takes a harvest, since the last one before a cut must come from the bitmap. A delta
    /// takes everything; a gap is worked off in segments. While epochs are in flight nothing is
    /// sealed unless [`Self::may_overlap`].
    pub fn seal_epoch(&mut self, harvest: &Harvest, policy: SealPolicy) -> Option<SealedEpoch> {
        self.handle_harvest(harvest);
        if !self.in_flight.is_empty() && !self.may_overlap() {
            return None;
        }
        if self.is_beyond_threshold(policy) {
            self.handle_gap(GapReason::DirtyThreshold, harvest.started);
        }
        self.turn_to_suspects();
        // An empty epoch is of use only to end a pass, and one that leaves suspects ends nothing.
        let ends_nothing = self.coverage == Coverage::Complete || self.suspects.is_some();
        if self.active.is_empty() && ends_nothing {
            return None;
        }
        let coverage = self.coverage;
        let chunks = self.take_due(policy);
        let all_taken =
            self.active.is_empty() || (Mutant::PassEndsEarly.is_on() && self.cursor.is_none());
        let completes = all_taken && self.suspects.is_none();
        if completes {
            self.coverage = Coverage::Complete;
            self.cursor = None;
        }
        let epoch = self.next_epoch;
        self.next_epoch = epoch.next();
        let oldest_dirty = if completes { self.oldest_dirty.take() } else { self.oldest_dirty };
        self.in_flight.push_back(Flight { epoch, chunks: chunks.clone(), coverage, oldest_dirty });
        Some(SealedEpoch::seal(epoch, chunks, coverage, completes))
    }

    /// Everything up to `epoch` is durable on the target. Answers with the chunks that nothing
    /// outstanding holds any more: their pending bits may be dropped.
    pub fn handle_ack(&mut self, epoch: Epoch) -> Bitmap {
        let mut released = Bitmap::new(self.geometry.chunks());
        while let Some(flight) = self.in_flight.pop_front_if(|flight| flight.epoch <= epoch) {
            released.union_with(&flight.chunks);
        }
        // An epoch may have been aborted with a later one that failed, and be durable after all.
        // Its chunks are dirty again, but the next epoch must build on it.
        self.acked = self.acked.max(epoch);
        self.next_epoch = self.next_epoch.max(epoch.next());
        released.subtract(&self.active);
        self.suspects.iter().for_each(|suspects| released.subtract(&suspects.chunks));
        self.in_flight.iter().for_each(|flight| released.subtract(&flight.chunks));
        released
    }

    /// Nothing in flight will be acknowledged: all of it is dirty again, and a gap that an epoch
    /// in flight was to close is open again.
    pub fn handle_abort(&mut self) {
        self.abort_after(Epoch::NONE);
    }

    /// The same for the epochs in flight after this one. Those that were never sent whole are
    /// dirty, whatever a target says it holds.
    pub fn abort_after(&mut self, epoch: Epoch) {
        while let Some(flight) = self.in_flight.pop_back_if(|flight| flight.epoch > epoch) {
            if !Mutant::AbortForgets.is_on() {
                self.active.union_with(&flight.chunks);
            }
            if flight.coverage != Coverage::Complete {
                self.coverage = flight.coverage;
                let first = flight.chunks.runs().next().map(|run| run.start);
                self.cursor = first.or(self.cursor).or(Some(ChunkIndex(0)));
            }
            if let Some(at) = flight.oldest_dirty {
                self.note_dirty(at);
            }
        }
    }

    /// A session has opened, and the target says up to which epoch it is durable. Epochs of which
    /// only the acknowledgement was lost are acknowledged, later ones are aborted; a replica that
    /// holds less than it had acknowledged is a gap. Answers as [`Self::handle_ack`].
    pub fn handle_resume(&mut self, durable: Epoch, replica: Replica, now: MonotonicNs) -> Bitmap {
        let released = self.handle_ack(durable);
        self.handle_abort();
        match (self.coverage(), replica) {
            (_, Replica::Empty) => self.seed_from_the_start(durable, now),
            (Coverage::Complete, Replica::Partial) => {
                self.handle_gap(GapReason::ReplicaBehind, now);
            }
            // The agent died before it saw the seed acknowledged. Tracking went on, so what is
            // still outstanding is all there is.
            (Coverage::Gap(GapReason::NeverReplicated), Replica::Follows) => {
                self.coverage = Coverage::Complete;
                self.cursor = None;
            }
            _ if durable < self.acked => self.handle_gap(GapReason::ReplicaBehind, now),
            _ => {}
        }
        self.acked = durable;
        self.next_epoch = self.next_epoch.max(durable.next());
        released
    }

    /// Starts an initial synchronisation over, unless one has only just begun.
    fn seed_from_the_start(&mut self, durable: Epoch, now: MonotonicNs) {
        let seeding = Coverage::Gap(GapReason::NeverReplicated);
        if self.coverage != seeding || durable < self.acked {
            self.coverage = seeding;
            self.active = Bitmap::full(self.geometry.chunks());
            self.cursor = Some(ChunkIndex(0));
            // All of it is read anew.
            self.suspects = None;
            self.note_dirty(now);
        }
    }

    /// The chunks that no acknowledged epoch holds: what a log must carry over a stop.
    pub fn outstanding(&self) -> Bitmap {
        let mut all = self.unsealed();
        self.in_flight.iter().for_each(|flight| all.union_with(&flight.chunks));
        all
    }

    /// What is known about everything outstanding: a gap stays one until the epoch that closes it
    /// is acknowledged. Of several, the one that is being worked off.
    pub fn coverage(&self) -> Coverage {
        let open = |flight: &&Flight| flight.coverage != Coverage::Complete;
        let worked_off =
            self.in_flight.iter().find(open).map_or(self.coverage, |flight| flight.coverage);
        match (worked_off, &self.suspects) {
            (Coverage::Complete, Some(suspects)) => Coverage::Gap(suspects.reason),
            _ => worked_off,
        }
    }

    /// The coverage that a log must carry over a crash of the agent. It is that of the suspects,
    /// if there are any: the next agent knows only which chunks are pending, and compares them all.
    pub fn coverage_to_log(&self) -> Coverage {
        let suspects = self.suspects.as_ref();
        suspects.map_or_else(|| self.coverage(), |suspects| Coverage::Gap(suspects.reason))
    }

    /// Whether a gap is being worked off: there is always a next epoch to seal.
    pub fn in_pass(&self) -> bool {
        self.coverage != Coverage::Complete || self.suspects.is_some()
    }

    /// Whether so much is dirty that the next epoch would be the first of a comparison instead of a
    /// delta. While a pass is under way nothing is a delta.
    pub fn is_beyond_threshold(&self, policy: SealPolicy) -> bool {
        let permille = u64::from(policy.dirty_threshold_permille);
        !self.in_pass() && self.active.count() * 1000 >= self.geometry.chunks() * permille
    }

    /// Whether an epoch may be sealed although others are in flight: a segment of a pass shares no
    /// chunk with those before it. Any other epoch may, and so must wait for their answer.
    pub fn may_overlap(&self) -> bool {
        self.cursor.is_some_and(|cursor| cursor != ChunkIndex(0))
    }

    /// The newest epoch sealed and not aborted: what the next one builds on.
    pub fn newest(&self) -> Epoch {
        self.in_flight.back().map_or(self.acked, |flight| flight.epoch)
    }

    /// The newest epoch ever sealed, as far as this tracker knows: what was sealed before it began,
    /// it learns from [`Self::handle_resume`].
    pub fn sealed(&self) -> Epoch {
        Epoch(self.next_epoch.0 - 1)
    }

    /// How many epochs are sealed and not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The newest acknowledged epoch.
    pub fn acked(&self) -> Epoch {
        self.acked
    }

    /// The shape of the disk.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// A summary for people and metrics.
    pub fn status(&self, now: MonotonicNs) -> TrackerStatus {
        let chunk = self.geometry.chunk().bytes();
        let bytes = |chunks: u64| ByteLen((chunks * chunk).min(self.geometry.len().0));
        let flights = self.in_flight.iter();
        TrackerStatus {
            active: bytes(self.unsealed().count()),
            in_flight: bytes(flights.map(|flight| flight.chunks.count()).sum()),
            coverage: self.coverage(),
            acked: self.acked,
            lag: self.lag(now),
        }
    }

    /// The age of the oldest write that the replica may lack.
    pub fn lag(&self, now: MonotonicNs) -> Duration {
        let flights = self.in_flight.iter().filter_map(|flight| flight.oldest_dirty);
        flights.chain(self.oldest_dirty).min().map_or(Duration::ZERO, |at| now.since(at))
    }

    fn unsealed(&self) -> Bitmap {
        let mut unsealed = self.active.clone();
        self.suspects.iter().for_each(|suspects| unsealed.union_with(&suspects.chunks));
        unsealed
    }

    /// Begins to compare the suspects, if there are any and all that came before is acknowledged.
    /// What is still active goes with them, so that a busy disk can't put them off.
    fn turn_to_suspects(&mut self) {
        let met_the_end = self.cursor.is_none_or(|cursor| self.active.first_from(cursor).is_none());
        if !self.in_flight.is_empty() || !met_the_end {
            return;
        }
        if let Some(Suspects { chunks, reason }) = self.suspects.take() {
            self.active.union_with(&chunks);
            self.coverage = Coverage::Gap(reason);
            self.cursor = Some(ChunkIndex(0));
        }
    }

    fn note_dirty(&mut self, at: MonotonicNs) {
        self.oldest_dirty = Some(self.oldest_dirty.map_or(at, |oldest| oldest.min(at)));
    }

    /// Moves out of the active set what the next epoch holds.
    fn take_due(&mut self, policy: SealPolicy) -> Bitmap {
        let everything = self.geometry.chunks();
        let Some(cursor) = self.cursor else {
            return self.active.take(ChunkIndex(0), everything);
        };
        let limit = (policy.segment.0 / self.geometry.chunk().bytes()).max(1);
        let segment = self.active.take(cursor, limit);
        // Short of the limit, the pass has met the end of the disk. What is left was marked behind
        // the cursor; it goes alone, since those chunks may be in flight.
        let end = segment.runs().last().map(|run| run.end);
        self.cursor = end.filter(|_| segment.count() == limit);
        segment
    }
}
