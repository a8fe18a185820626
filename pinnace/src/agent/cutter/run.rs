//! One cut being carried out: what the core says, done on real disks.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use blocks::CutTime;
use ebpf::device::DeviceNumber;
use ebpf::{ConflictTable, TrackedDisk};
use shipper::{DiskImage, Window};
use tracker::cut::{Cut, Hold, Look, Read, Step};

use super::mistake::{self, Mistake};
use crate::agent::clock;
use crate::agent::freeze::Freezer;

/// The reads under way; with a look that was made too early, by mistake.
type Reads = BTreeMap<u64, (Read, Option<Look>)>;

/// One cut being carried out.
pub(super) struct Run<'a> {
    pub(super) table: &'a mut ConflictTable,
    pub(super) window: Window<'a>,
    pub(super) disks: &'a [TrackedDisk],
    pub(super) numbers: Vec<DeviceNumber>,
    pub(super) freeze_limit: Duration,
    /// Made when it is first needed.
    pub(super) freezer: Option<Freezer>,
    /// For mistakes made on purpose.
    pub(super) memory: mistake::Memory,
}

impl Run<'_> {
    /// Carries out what the core says until it has ended; the images of the disks, and how long
    /// file systems stood still.
    pub(super) fn drive(mut self, cut: &mut Cut) -> (Vec<DiskImage>, Duration) {
        let mut reads = Reads::new();
        loop {
            match cut.poll(clock::now()) {
                Step::Flip(hold) => self.flip(cut, hold),
                Step::Harvest => self.harvest(cut),
                Step::Read(read) => self.read(cut, read, &mut reads),
                Step::Wait => self.wait(cut, &mut reads),
                Step::Check => self.check(cut),
                Step::Pause(pause) => std::thread::sleep(pause),
                Step::Done => {
                    self.thaw();
                    let frozen = self.freezer.as_ref().map_or(Duration::ZERO, Freezer::total);
                    return (self.window.finish(), frozen);
                }
            }
        }
    }

    fn flip(&mut self, cut: &mut Cut, hold: Hold) {
        if hold != Hold::None
            && let Err(error) = self.freeze()
        {
            return cut.handle_unfreezable(format!("{error:#}"));
        }
        self.memory.begin_attempt();
        Mistake::SummaryBehindBit.widen();
        if Mistake::HarvestBeforeFlip.is_on() {
            self.harvest_early();
        }
        match self.table.misses() {
            Ok(misses) => {
                let before = cut_time();
                Mistake::InstantBeforeFlip.widen();
                self.table.flip();
                let at = if Mistake::InstantBeforeFlip.is_on() { before } else { cut_time() };
                if hold == Hold::Instant {
                    self.thaw();
                }
                cut.handle_flip(misses, at);
            }
            Err(error) => cut.fail(format!("the counts of skipped programs: {error}")),
        }
    }

    fn freeze(&mut self) -> Result<()> {
        let freezer = match &mut self.freezer {
            Some(freezer) => freezer,
            none => none.insert(Freezer::prepare(&self.numbers, self.freeze_limit)?),
        };
        freezer.freeze()
    }

    fn thaw(&mut self) {
        if let Some(freezer) = &mut self.freezer {
            freezer.thaw();
        }
    }

    /// Takes what is dirty, now that T has passed.
    fn harvest(&mut self, cut: &mut Cut) {
        for (index, disk) in self.disks.iter().enumerate() {
            if Mistake::HarvestBeforeFlip.is_on() {
                let early = self.memory.early.extract_if(.., |(of, ..)| *of == index);
                early.for_each(|(_, word, bits)| cut.handle_dirty(index, word, bits));
            } else {
                let dirty = &mut |word, bits| cut.handle_dirty(index, word, bits);
                mistake::harvest(self.table, disk, dirty);
            }
            cut.handle_harvested(index);
        }
    }

    /// The mistake of that name.
    fn harvest_early(&mut self) {
        for (index, disk) in self.disks.iter().enumerate() {
            disk.harvest(&mut |word, bits| self.memory.early.push((index, word, bits)));
        }
        Mistake::HarvestBeforeFlip.widen();
    }

    fn read(&mut self, cut: &mut Cut, read: Read, reads: &mut Reads) {
        let early = Mistake::LookBeforeRead.is_on().then(|| self.conflicts(read));
        reads.insert(read.id, (read, early));
        if let Err(error) = self.window.read(read.id, read.disk, read.chunks) {
            return cut.fail(error.to_string());
        }
        loop {
            match self.window.completed() {
                Ok(Some(id)) => self.look(cut, id, reads),
                Ok(None) if self.window.is_full() => return self.wait(cut, reads),
                Ok(None) => return,
                Err(error) => return cut.fail(error.to_string()),
            }
        }
    }

    fn wait(&mut self, cut: &mut Cut, reads: &mut Reads) {
        self.memory.widen_once(Mistake::LookBeforeRead);
        match self.window.wait() {
            Ok(id) => self.look(cut, id, reads),
            Err(error) => cut.fail(error.to_string()),
        }
    }

    /// A read has completed, so now is the time to see whether it was in time.
    fn look(&mut self, cut: &mut Cut, id: u64, reads: &mut Reads) {
        let Some((read, early)) = reads.remove(&id) else { return };
        let look = early.unwrap_or_else(|| self.conflicts(read));
        if Mistake::ClearedAfterRead.is_on() {
            // As if the bits of what was read were only cleared now.
            Mistake::ClearedAfterRead.widen();
            self.disks[read.disk].harvest(&mut |_, _| {});
        }
        cut.handle_read(id, look, clock::now());
    }

    fn conflicts(&self, read: Read) -> Look {
        let slot = self.disks[read.disk].slot();
        match self.table.conflicted(slot, read.chunks) && !Mistake::NoLook.is_on() {
            true => Look::Conflict,
            false => Look::Clear,
        }
    }

    fn check(&mut self, cut: &mut Cut) {
        let overflowed = self.table.overflowed() && !Mistake::NoLook.is_on();
        match self.table.misses() {
            Ok(misses) => cut.handle_check(misses, overflowed, clock::now()),
            Err(error) => cut.fail(format!("the counts of skipped programs: {error}")),
        }
        self.thaw();
        self.table.clear_other();
    }
}

/// Now, by both clocks.
fn cut_time() -> CutTime {
    let monotonic = clock::now();
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let unix_ns = unix.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    CutTime { unix_ns, monotonic }
}
