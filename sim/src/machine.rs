//! The source machine: its disks, the applications that write to them, the kernel that tracks.

use std::collections::VecDeque;

use blocks::{DiskId, Epoch, Extent, Geometry, MarkKind, Sector, Slot};
use storage::FaultyStorage;

use crate::{
    clock::Step,
    conflicts::Conflicts,
    content::Content,
    disk::SimDisk,
    history::{History, Request},
    kernel::Kernel,
    rng::Rng,
    scenario::{DiskPlan, Scenario},
};

/// The machine.
pub(crate) struct Machine {
    pub(crate) is_up: bool,
    /// How often it was started.
    pub(crate) boot: usize,
    pub(crate) disks: Vec<SourceDisk>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) conflicts: Conflicts,
    /// The kernel skips the issue program of so many writes.
    pub(crate) skips_issue: u64,
    /// Where the agent keeps its state.
    pub(crate) state: FaultyStorage,
}

/// One disk and all that is known of it.
pub(crate) struct SourceDisk {
    pub(crate) plan: DiskPlan,
    pub(crate) disk: SimDisk,
    /// Nothing while no programs are attached.
    pub(crate) kernel: Option<Kernel>,
    /// A history for each start of the machine.
    pub(crate) histories: Vec<History>,
    /// Something was written that the programs did not see, and no gap has been opened since.
    pub(crate) unseen: bool,
    /// The programs are to miss the next completion.
    pub(crate) misses_next: bool,
    /// Reading it fails, once, after so many more reads.
    pub(crate) read_fails_after: Option<u64>,
}

/// An application that writes to all disks, one write at a time.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    number: u32,
    next: u64,
    habit: Habit,
    /// What it wrote before, to write again: an application may put things back as they were.
    before: VecDeque<(usize, Request)>,
}

/// Where a stream writes.
#[derive(Clone, Copy, Debug)]
enum Habit {
    Anywhere,
    /// The tail of a log: the same block, again and again, then the next.
    Tail,
    /// Few blocks, often.
    Hot,
}

impl Machine {
    pub(crate) fn new(scenario: &Scenario, began: Step) -> Self {
        let disks = scenario.disks.iter().map(|plan| SourceDisk::new(plan, began)).collect();
        let streams = (0..scenario.streams).map(Stream::new).collect();
        let (conflicts, state) = (Conflicts::new(), FaultyStorage::new());
        Self { is_up: true, boot: 0, disks, streams, conflicts, skips_issue: 0, state }
    }

    pub(crate) fn id_of(index: usize) -> DiskId {
        DiskId([u8::try_from(index + 1).expect("few disks"); 16])
    }

    pub(crate) fn index_of(id: DiskId) -> usize {
        usize::from(id.0[0]) - 1
    }
}

impl SourceDisk {
    fn new(plan: &DiskPlan, began: Step) -> Self {
        let sectors = usize::try_from(plan.geometry.sectors()).expect("a small disk");
        let content: Vec<Content> = vec![Content::ZEROES; sectors];
        Self {
            plan: plan.clone(),
            disk: SimDisk::new(content.clone(), plan.has_cache),
            kernel: None,
            histories: vec![History::new(content, began)],
            unseen: false,
            misses_next: false,
            read_fails_after: None,
        }
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.plan.geometry
    }

    pub(crate) fn history(&self) -> &History {
        self.histories.last().expect("there is always one")
    }

    pub(crate) fn history_mut(&mut self) -> &mut History {
        self.histories.last_mut().expect("there is always one")
    }

    /// Attaches the programs, if none are.
    pub(crate) fn attach(&mut self, slot: Slot) -> Attached {
        if self.kernel.is_some() {
            return Attached::Before;
        }
        let plan = &self.plan;
        self.kernel = Some(Kernel::attached(plan.geometry, slot, plan.class, plan.ring));
        Attached::Now
    }

    /// What programs and pending bits say of the newest acknowledged epoch.
    pub(crate) fn acked(&self) -> Epoch {
        self.kernel.as_ref().map_or(Epoch::NONE, |kernel| kernel.acked)
    }

    /// Whether a read that happens now fails.
    pub(crate) fn fails_this_read(&mut self) -> bool {
        match self.read_fails_after {
            Some(0) => {
                self.read_fails_after = None;
                true
            }
            Some(reads) => {
                self.read_fails_after = Some(reads - 1);
                false
            }
            None => false,
        }
    }

    /// The power is gone, and comes back.
    pub(crate) fn lose_power(&mut self, rng: &mut Rng, now: Step) {
        self.disk = self.disk.after_power_loss(rng);
        self.histories.push(History::new(self.disk.content().to_vec(), now));
        self.kernel = None;
        (self.misses_next, self.read_fails_after) = (false, None);
    }
}

/// Whether programs had been attached before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attached {
    Before,
    Now,
}

impl Stream {
    fn new(number: u32) -> Self {
        let habit = match number % 3 {
            0 => Habit::Anywhere,
            1 => Habit::Tail,
            _ => Habit::Hot,
        };
        Self { number, next: 0, habit, before: VecDeque::new() }
    }

    /// What it writes next, and to which disk.
    pub(crate) fn request(&mut self, disks: &[Geometry], rng: &mut Rng) -> (usize, Request) {
        self.next += 1;
        // No two writes of a run have one number, and none is that of zeroes.
        let content = Content((u64::from(self.number) + 1) << 40 | self.next);
        if !self.before.is_empty() && rng.chance(100) {
            let (disk, before) = self.before[rng.index(self.before.len())];
            return (disk, Request { number: self.next, ..before });
        }
        let index = rng.index(disks.len());
        let disk = disks[index].sectors();
        let start = match self.habit {
            Habit::Anywhere => rng.below(disk),
            Habit::Tail => self.next / 6 % disk,
            Habit::Hot => rng.below(disk.min(24)),
        };
        let longest = (disk - start).min(if rng.chance(50) { 120 } else { 20 });
        let extent = Extent { start: Sector(start), sectors: 1 + rng.below(longest) };
        let (kind, content) = match rng.below(100) {
            0..4 => (MarkKind::Discard, Content::ZEROES),
            4..8 => (MarkKind::Zeroes, Content::ZEROES),
            _ => (MarkKind::Write, content),
        };
        let (number, repeats) = (self.next, self.next);
        let request = Request { stream: self.number, number, repeats, extent, content, kind };
        self.before.push_back((index, request));
        if self.before.len() > 4 {
            self.before.pop_front();
        }
        (index, request)
    }
}
