//! What the tracking programs keep in the kernel for one disk, and what the kernel counts itself.
//!
//! A model of `ebpf/bpf` and of the harvest in `ebpf/src/harvest.rs`, which need a kernel: the dirty
//! bitmap that is marked at completion, always before the application is told; pending bits that
//! outlive the agent; a ring of hints that may be full; taints; the count of sectors and the disk's
//! own statistics. All of it outlives the agent and goes with the machine.

use std::collections::VecDeque;

use blocks::{
    Bitmap, ChunkIndex, Epoch, Geometry, Mark, MonotonicNs, Mutant, Slot, Taint, TaintSet,
};

use crate::history::Request;

/// Which of the two a disk's completion tells first: the programs or the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Request-based: the programs run before the statistics are updated.
    Request,
    /// Bio-based: the driver has updated the statistics before.
    Bio,
}

/// What the kernel holds of one disk.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) class: Class,
    geometry: Geometry,
    slot: Slot,
    dirty: Vec<u64>,
    pending: Vec<u64>,
    ring: VecDeque<Mark>,
    ring_capacity: usize,
    pub(crate) ring_lost: u64,
    pub(crate) taints: TaintSet,
    /// Sectors the programs saw completed.
    pub(crate) counted: u64,
    /// Sectors the kernel's statistics show.
    pub(crate) statistics: u64,
    /// The cross-check's settled offset, kept for the next agent.
    pub(crate) baseline: Option<i64>,
    /// The newest acknowledged epoch, kept for the next agent.
    pub(crate) acked: Epoch,
}

impl Kernel {
    /// As it is when programs have just been attached.
    pub(crate) fn attached(geometry: Geometry, slot: Slot, class: Class, ring: usize) -> Self {
        let words = usize::try_from(geometry.chunks().div_ceil(64)).expect("a small disk");
        Self {
            class,
            geometry,
            slot,
            dirty: vec![0; words],
            pending: vec![0; words],
            ring: VecDeque::new(),
            ring_capacity: ring,
            ring_lost: 0,
            taints: TaintSet::default(),
            counted: 0,
            statistics: 0,
            baseline: None,
            acked: Epoch::NONE,
        }
    }

    /// The programs see a completion.
    pub(crate) fn see_completion(&mut self, request: &Request, now: u64) {
        self.counted += request.extent.sectors;
        if Mutant::DiscardIgnored.is_on() && request.kind != blocks::MarkKind::Write {
            return;
        }
        let mut fresh = false;
        let range = self.geometry.chunks_of(request.extent);
        for chunk in range.start.0..range.end.0 {
            let (word, bit) = place(chunk);
            fresh |= self.dirty[word] & bit == 0;
            self.dirty[word] |= bit;
        }
        if !fresh {
            return;
        }
        if self.ring.len() < self.ring_capacity {
            let at = MonotonicNs(now);
            let (slot, extent, kind) = (self.slot, request.extent, request.kind);
            self.ring.push_back(Mark { slot, extent, at, kind });
        } else {
            self.ring_lost += 1;
        }
    }

    /// The kernel counts a completion.
    pub(crate) fn count(&mut self, request: &Request) {
        self.statistics += request.extent.sectors;
    }

    pub(crate) fn taint(&mut self, taint: Taint) {
        self.taints = self.taints.with(taint);
    }

    pub(crate) fn clear_taints(&mut self, taints: TaintSet) {
        self.taints = TaintSet(self.taints.0 & !taints.0);
    }

    pub(crate) fn drain_ring(&mut self) -> Vec<Mark> {
        self.ring.drain(..).collect()
    }

    /// How many words a harvest goes through.
    pub(crate) fn words(&self) -> usize {
        self.dirty.len()
    }

    /// Harvests one word: to pending first, then cleared, then handed out.
    pub(crate) fn harvest_word(&mut self, word: usize) -> u64 {
        let bits = self.dirty[word];
        if !Mutant::PendingNotKept.is_on() {
            self.pending[word] |= bits;
        }
        self.dirty[word] &= !bits;
        bits
    }

    /// A harvest that leaves the bits for later: what a mutant does.
    pub(crate) fn copy_word(&mut self, word: usize) -> u64 {
        self.pending[word] |= self.dirty[word];
        self.dirty[word]
    }

    pub(crate) fn clear(&mut self, chunks: &Bitmap) {
        each(chunks, |word, bits| self.dirty[word] &= !bits);
    }

    pub(crate) fn fill_pending(&mut self) {
        self.keep_pending(&Bitmap::full(self.geometry.chunks()));
    }

    pub(crate) fn keep_pending(&mut self, chunks: &Bitmap) {
        each(chunks, |word, bits| self.pending[word] |= bits);
    }

    pub(crate) fn drop_pending(&mut self, chunks: &Bitmap) {
        each(chunks, |word, bits| self.pending[word] &= !bits);
    }

    pub(crate) fn pending(&self) -> Bitmap {
        let mut pending = Bitmap::new(self.geometry.chunks());
        (0..).zip(&self.pending).for_each(|(word, bits)| pending.insert_word(word, *bits));
        pending
    }

    /// Whether a chunk is dirty or pending: whether anybody remembers it.
    pub(crate) fn remembers(&self, chunk: ChunkIndex) -> bool {
        let (word, bit) = place(chunk.0);
        (self.dirty[word] | self.pending[word]) & bit != 0
    }

    /// Whether nothing is dirty and nothing pending.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty.iter().chain(&self.pending).all(|word| *word == 0)
    }
}

fn place(chunk: u64) -> (usize, u64) {
    (usize::try_from(chunk / 64).expect("a small disk"), 1 << (chunk % 64))
}

fn each(chunks: &Bitmap, mut act: impl FnMut(usize, u64)) {
    chunks.words().for_each(|(word, bits)| act(place(word * 64).0, bits));
}
