//! Mistakes in a cut, made on purpose: the tests must see that the points are none then.
//!
//! There are none without the feature `mutants`, which no release has. With it, the variable
//! `PINNACE_CUT_MISTAKE` has the agent make one.

use ebpf::{ConflictTable, TrackedDisk};

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    /// The conflict table is not asked.
    NoLook,
    /// The time is taken, and then the table is flipped.
    InstantBeforeFlip,
    /// The dirty bits are taken, and then the table is flipped.
    HarvestBeforeFlip,
    /// The table is asked when a read is issued, not when it has completed.
    LookBeforeRead,
    /// Dirty bits are cleared once their chunks have been read.
    ClearedAfterRead,
    /// What is dirty is taken by a summary of the dirty bits, which is set after them and only by
    /// who found one of them clear. It takes a mistake of the programs (`bpf/mutant.h`) too.
    SummaryBehindBit,
}

/// What mistakes have to remember of the cut under way.
#[derive(Default)]
pub(super) struct Memory {
    /// What was harvested before its time: disk, word, bits.
    pub(super) early: Vec<(usize, u64, u64)>,
    /// Whether this attempt was made longer.
    widened: bool,
}

impl Memory {
    /// An attempt begins.
    pub(super) fn begin_attempt(&mut self) {
        self.widened = false;
    }

    /// [`Mistake::widen`], the first time in an attempt: one that is longer by each of its reads
    /// would have too much to read again to succeed at all.
    pub(super) fn widen_once(&mut self, mistake: Mistake) {
        if !std::mem::replace(&mut self.widened, true) {
            mistake.widen();
        }
    }
}

#[cfg(not(feature = "mutants"))]
impl Mistake {
    /// Never.
    pub(super) const fn is_on(self) -> bool {
        false
    }

    /// Nothing.
    pub(super) const fn widen(self) {}
}

/// Takes what is dirty.
#[cfg(not(feature = "mutants"))]
pub(super) fn harvest(_: &ConflictTable, disk: &TrackedDisk, out: &mut dyn FnMut(u64, u64)) {
    disk.harvest(out);
}

#[cfg(feature = "mutants")]
impl Mistake {
    /// Whether it is to be made.
    pub(super) fn is_on(self) -> bool {
        static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| std::env::var("PINNACE_CUT_MISTAKE").ok());
        chosen.as_ref().is_some_and(|chosen| *chosen == format!("{self:?}"))
    }

    /// Makes the moment in which it does harm longer.
    pub(super) fn widen(self) {
        if self.is_on() {
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
    }
}

/// Takes what is dirty; of the one disk that there is, what the summary names, if that is the mistake.
#[cfg(feature = "mutants")]
pub(super) fn harvest(table: &ConflictTable, disk: &TrackedDisk, out: &mut dyn FnMut(u64, u64)) {
    if Mistake::SummaryBehindBit.is_on() {
        table.delay_summary(std::time::Duration::from_millis(2));
        stay_out_of_the_way();
        disk.harvest_summarized(table.take_summary(), out);
    } else {
        disk.harvest(out);
    }
}

/// Keeps this thread on the second processor: on the first the programs dawdle, and it would wait
/// for the very summary that is to be late.
#[cfg(feature = "mutants")]
fn stay_out_of_the_way() {
    let mut processors = nix::sched::CpuSet::new();
    let set = processors.set(1);
    let this_thread = nix::unistd::Pid::from_raw(0);
    if let Err(error) = set.and_then(|()| nix::sched::sched_setaffinity(this_thread, &processors)) {
        tracing::warn!(%error, "the mistake does less harm on one processor");
    }
}
