//! The verified cut: how a set of disks is read at one instant while they are written to.
//!
//! Pure: [`Cut`] says what to do next ([`Cut::poll`]) and is told what came of it. It never reads,
//! sleeps or looks at a clock. `docs/cut.md` has the algorithm and why what it calls verified is
//! the state of all disks at one instant T; this file is that algorithm.
//!
//! ```text
//!            +--------------------- again -----------------------+
//!            v                                                   |
//!   Flip (= T) --> Harvest --> Read, look after each --> Check --+--> Done: verified
//!                     |                                          +--> Done: unsettled
//!                     +--> Done: too large, can't keep up
//! ```
//!
//! Every iteration is an attempt. One that meets a conflict was a round: what it read stays in the
//! image, what it did not read is due in the next, with what was written meanwhile.
//!
//! Invariants:
//! - a chunk that was handed in or harvested is *due* until it is read after that, and then in the
//!   *image*; it never leaves the union of both;
//! - nothing is read between a flip and the last harvest that follows it;
//! - verified means: nothing is due, every chunk that was read since the last flip was looked at
//!   after its read and had no conflict, and no program that notes conflicts was skipped.

use std::collections::BTreeMap;
use std::time::Duration;

use blocks::{Bitmap, ChunkIndex, ChunkRange, CutTime, Geometry, MonotonicNs, Mutant};

mod heat;
mod limits;
mod outcome;
mod reads;
#[cfg(test)]
mod tests;

pub use heat::Heat;
pub use limits::{CutLimits, Freeze, Hold};
pub use outcome::{Finished, HotChunk, Outcome, Verified};

use limits::Pauses;

/// A disk to cut.
#[derive(Debug)]
pub struct CutDisk {
    /// Its shape.
    pub geometry: Geometry,
    /// The chunks that were harvested and not shipped: what its tracker holds active.
    pub dirty: Bitmap,
    /// What earlier cuts learnt of its chunks.
    pub heat: Heat,
}

/// A read to issue. It may complete before or after others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its number; numbers rise over a cut.
    pub id: u64,
    /// Which of the disks.
    pub disk: usize,
    /// What of it.
    pub chunks: ChunkRange,
}

/// What the conflict table said of a read's chunks after the read had completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// No write to them was issued since the flip.
    Clear,
    /// Maybe one was.
    Conflict,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the count of skipped programs, freeze if the hold says so, flip the conflict table,
    /// take the time: that is T. Then [`Cut::handle_flip`].
    Flip(Hold),
    /// Harvest every disk: [`Cut::handle_dirty`] for each word, [`Cut::handle_harvested`] for each
    /// disk.
    Harvest,
    /// Issue a read, and ask for the next step.
    Read(Read),
    /// Nothing before a read has completed: [`Cut::handle_read`].
    Wait,
    /// Every look was made. Read the count of skipped programs again, thaw, and
    /// [`Cut::handle_check`].
    Check,
    /// Let some time pass.
    Pause(Duration),
    /// The cut has ended: [`Cut::finish`].
    Done,
}

/// One cut under way.
#[derive(Debug)]
pub struct Cut {
    limits: CutLimits,
    freeze: Freeze,
    disks: Vec<Disk>,
    state: State,
    began: MonotonicNs,
    /// Iterations begun: flips.
    attempts: u32,
    /// Iterations begun with the present hold.
    in_hold: u32,
    hold: Hold,
    /// T of this iteration, and the count of skipped programs before it.
    flip: Option<(CutTime, u64)>,
    /// Reads of this iteration that were not issued, the next one last.
    queue: Vec<Read>,
    outstanding: BTreeMap<u64, (Read, MonotonicNs)>,
    next_read: u64,
    /// Chunks due when this iteration began to read, and the one before.
    due: u64,
    due_before: u64,
    /// Iterations in a row that were large and no smaller than the one before.
    not_shrinking: u32,
    /// Chunks in the image.
    held: u64,
    conflicts: BTreeMap<(usize, ChunkIndex), u32>,
    conflicted: bool,
    /// The longest that a read has taken.
    latency: Duration,
    pauses: Pauses,
}

#[derive(Debug)]
struct Disk {
    geometry: Geometry,
    heat: Heat,
    due: Bitmap,
    image: Bitmap,
    harvested: bool,
}

#[derive(Debug)]
enum State {
    Flip,
    Harvest,
    Read,
    Check,
    Pause(Duration),
    Done(Outcome),
}

impl Cut {
    /// A cut over these disks, which must not be harvested by anybody else until it has ended.
    /// `seed` is any number; pauses depend on it.
    pub fn new(
        limits: CutLimits,
        freeze: Freeze,
        disks: Vec<CutDisk>,
        seed: u64,
        now: MonotonicNs,
    ) -> Self {
        let disks: Vec<Disk> = disks.into_iter().map(Disk::new).collect();
        let mut cut = Self {
            limits,
            freeze,
            disks,
            state: State::Flip,
            began: now,
            attempts: 0,
            in_hold: 0,
            hold: Hold::None,
            flip: None,
            queue: Vec::new(),
            outstanding: BTreeMap::new(),
            next_read: 0,
            due: 0,
            due_before: u64::MAX,
            not_shrinking: 0,
            held: 0,
            conflicts: BTreeMap::new(),
            conflicted: false,
            latency: Duration::ZERO,
            pauses: Pauses::new(seed),
        };
        cut.refuse_beyond_memory();
        cut
    }

    /// What to do next. To be asked until it is [`Step::Done`].
    pub fn poll(&mut self, now: MonotonicNs) -> Step {
        match self.state {
            State::Flip => Step::Flip(self.hold),
            State::Harvest => Step::Harvest,
            State::Read => self.next_read(now),
            State::Check => Step::Check,
            State::Pause(pause) => {
                self.state = State::Flip;
                Step::Pause(pause)
            }
            State::Done(_) => Step::Done,
        }
    }

    /// The table was flipped at `at`; `misses` programs had been skipped before.
    pub fn handle_flip(&mut self, misses: u64, at: CutTime) {
        self.attempts += 1;
        self.in_hold += 1;
        self.flip = Some((at, misses));
        self.conflicted = false;
        self.disks.iter_mut().for_each(|disk| disk.harvested = false);
        self.state = State::Harvest;
    }

    /// A harvest after the flip found these chunks of a disk: bit `b` is chunk `64 * word + b`.
    pub fn handle_dirty(&mut self, disk: usize, word: u64, bits: u64) {
        let disk = &mut self.disks[disk];
        disk.due.insert_word(word, bits);
        disk.heat.note(word, bits, self.attempts);
    }

    /// A disk's harvest is complete. After the last one reading begins.
    pub fn handle_harvested(&mut self, disk: usize) {
        self.disks[disk].harvested = true;
        if !self.disks.iter().all(|disk| disk.harvested) {
            return;
        }
        if self.attempts > 1 {
            self.due_before = self.due;
        }
        self.due = self.chunks_due();
        let large = self.due > self.limits.depth && self.attempts > 1;
        let grows = large && self.due >= self.due_before;
        self.not_shrinking = if grows { self.not_shrinking + 1 } else { 0 };
        self.state = State::Read;
        self.refuse_beyond_memory();
        if self.not_shrinking >= self.limits.rounds_not_shrinking {
            self.state = State::Done(Outcome::CannotKeepUp {
                rounds: self.attempts,
                due: self.bytes_due(),
                hottest: self.hottest(),
            });
        }
        if matches!(self.state, State::Read) {
            self.queue = reads::plan(&self.disks, self.attempts, &self.limits, self.next_read);
            self.next_read += self.queue.len() as u64;
        }
    }

    /// A read has completed, and its chunks were looked up after that.
    pub fn handle_read(&mut self, id: u64, look: Look, now: MonotonicNs) {
        let Some((read, issued)) = self.outstanding.remove(&id) else { return };
        self.latency = self.latency.max(now.since(issued));
        let disk = &mut self.disks[read.disk];
        self.held += read.chunks.len() - disk.in_image(read.chunks);
        disk.due.remove_range(read.chunks);
        disk.image.insert_range(read.chunks);
        if look == Look::Conflict && !Mutant::ConflictIgnored.is_on() {
            self.conflicted = true;
            *self.conflicts.entry((read.disk, read.chunks.start)).or_default() += 1;
            // A small iteration is soon begun again. A large one is worth reading to its end: the
            // next is smaller for it.
            if self.due <= self.limits.depth {
                self.queue.clear();
            }
        }
    }

    /// All reads have completed: so many programs have been skipped by now, and whether something
    /// was issued that conflicts with everything.
    pub fn handle_check(&mut self, misses: u64, overflowed: bool, now: MonotonicNs) {
        let Some((at, misses_before)) = self.flip.take() else { return };
        let skipped = misses != misses_before && !Mutant::SkippedProgramIgnored.is_on();
        let void = self.conflicted || overflowed || skipped;
        let nothing_due = self.disks.iter().all(|disk| disk.due.is_empty());
        // A large iteration takes long to read, and so would its window: the next one is small. It
        // is a round, unless there have been enough of them.
        let is_round = self.hold == Hold::None
            && self.due > self.limits.depth
            && self.in_hold < self.limits.attempts;
        let as_asked = self.freeze != Freeze::Always || self.hold != Hold::None;
        self.state = match !void && nothing_due && as_asked && !is_round {
            true => State::Done(Outcome::Verified(Verified {
                at,
                hold: self.hold,
                attempts: self.attempts,
                window: now.since(at.monotonic),
                chunks: self.due,
            })),
            false => self.again(now),
        };
    }

    /// The file systems can't be frozen: instead of [`Self::handle_flip`].
    pub fn handle_unfreezable(&mut self, why: String) {
        let (attempts, hottest) = (self.attempts, self.hottest());
        self.state = State::Done(match self.freeze {
            Freeze::Always => Outcome::Failed(why),
            Freeze::Never | Freeze::IfNeeded => {
                Outcome::Unsettled { attempts, hottest, unfreezable: Some(why) }
            }
        });
    }

    /// What can't be done ended the cut. Reads that are outstanding are of no use any more.
    pub fn fail(&mut self, why: String) {
        self.queue.clear();
        self.outstanding.clear();
        self.state = State::Done(Outcome::Failed(why));
    }

    /// The outcome, and the chunks of each disk: what the image holds if it is verified, and what
    /// is dirty again if it is not.
    ///
    /// # Panics
    /// If the cut has not ended.
    pub fn finish(self) -> Finished {
        let State::Done(outcome) = self.state else { panic!("a cut that has ended") };
        let attempts = self.attempts;
        let disks = self.disks.into_iter().map(|disk| disk.finish(attempts)).collect();
        Finished { outcome, disks, attempts }
    }

    fn next_read(&mut self, now: MonotonicNs) -> Step {
        match self.queue.pop() {
            Some(read) => {
                self.outstanding.insert(read.id, (read, now));
                Step::Read(read)
            }
            None if self.outstanding.is_empty() => {
                self.state = State::Check;
                Step::Check
            }
            None => Step::Wait,
        }
    }

    /// What follows an attempt that did not succeed.
    fn again(&mut self, now: MonotonicNs) -> State {
        let slow = self.latency > self.limits.slow;
        let time = if slow { self.limits.time_slow } else { self.limits.time };
        let spent = match self.hold {
            Hold::None => {
                self.in_hold >= self.limits.attempts && now.since(self.began) >= time
                    || self.freeze == Freeze::Always && self.due <= self.limits.depth
            }
            Hold::Instant | Hold::Throughout => self.in_hold >= self.limits.attempts_frozen,
        };
        if spent {
            let Some(hold) = self.hold.harder(self.freeze) else {
                let (attempts, hottest) = (self.attempts, self.hottest());
                return State::Done(Outcome::Unsettled { attempts, hottest, unfreezable: None });
            };
            self.hold = hold;
            self.in_hold = 0;
        }
        match slow && self.due <= self.limits.depth {
            true => State::Pause(self.pauses.next(self.limits.pause)),
            false => State::Flip,
        }
    }

    /// Ends the cut if its image would not fit in memory.
    fn refuse_beyond_memory(&mut self) {
        let bytes: u64 = self.disks.iter().map(Disk::bytes).sum();
        if bytes <= self.limits.memory.0 {
            return;
        }
        let due = self.bytes_due();
        self.state = State::Done(match self.attempts {
            0 | 1 => Outcome::TooLarge { due, memory: self.limits.memory },
            rounds => Outcome::CannotKeepUp { rounds, due, hottest: self.hottest() },
        });
    }

    fn chunks_due(&self) -> u64 {
        self.disks.iter().map(|disk| disk.due.count()).sum()
    }

    fn bytes_due(&self) -> blocks::ByteLen {
        let bytes = self.disks.iter().map(|d| d.due.count() * d.geometry.chunk().bytes());
        blocks::ByteLen(bytes.sum())
    }

    /// The chunks that conflicted most often.
    fn hottest(&self) -> Vec<HotChunk> {
        const NAMED: usize = 4;
        let mut all: Vec<HotChunk> = self
            .conflicts
            .iter()
            .map(|(&(disk, chunk), &conflicts)| HotChunk { disk, chunk, conflicts })
            .collect();
        all.sort_by_key(|hot| std::cmp::Reverse(hot.conflicts));
        all.truncate(NAMED);
        all
    }
}

impl Disk {
    fn new(disk: CutDisk) -> Self {
        let image = Bitmap::new(disk.geometry.chunks());
        let CutDisk { geometry, dirty, heat } = disk;
        Self { geometry, heat, due: dirty, image, harvested: false }
    }

    /// How many chunks of the range are in the image.
    fn in_image(&self, range: ChunkRange) -> u64 {
        let chunks = (range.start.0..range.end.0).map(ChunkIndex);
        chunks.filter(|chunk| self.image.contains(*chunk)).count() as u64
    }

    /// What the image holds, and what it will hold once all that is due is read.
    fn bytes(&self) -> u64 {
        let new: u64 = self.due.runs().map(|run| run.len() - self.in_image(run)).sum();
        (self.image.count() + new) * self.geometry.chunk().bytes()
    }

    fn finish(mut self, attempts: u32) -> outcome::FinishedDisk {
        self.image.union_with(&self.due);
        outcome::FinishedDisk { chunks: self.image, heat: self.heat.settle(attempts) }
    }
}
