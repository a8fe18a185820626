//! The conflict table: where writes were issued since the last flip.
//!
//! A model of what the issue programs of `ebpf/bpf` keep. It has two halves; a program loads which
//! one is in use when it starts, and may act on that much later. Chunks of all disks share the bits
//! of a half, so a look may find a conflict that is none.

use blocks::ChunkRange;

use crate::rng::mix;

/// Bits of a half: few, so that chunks that share one occur.
const BITS: u64 = 1 << 14;

/// Which half a program marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Half(usize);

/// The table of one machine.
#[derive(Clone, Debug)]
pub(crate) struct Conflicts {
    halves: [Vec<bool>; 2],
    in_use: Half,
    /// Programs that the kernel skipped.
    pub(crate) misses: u64,
}

impl Conflicts {
    pub(crate) fn new() -> Self {
        let half = || vec![false; usize::try_from(BITS).expect("few")];
        Self { halves: [half(), half()], in_use: Half(0), misses: 0 }
    }

    /// What a program that starts now will mark.
    pub(crate) fn in_use(&self) -> Half {
        self.in_use
    }

    pub(crate) fn mark(&mut self, half: Half, disk: usize, chunks: ChunkRange) {
        bits(disk, chunks).for_each(|bit| self.halves[half.0][bit] = true);
    }

    /// The other half is in use from now on: this is T.
    pub(crate) fn flip(&mut self) {
        self.in_use = Half(1 - self.in_use.0);
    }

    /// After an attempt: the half that was in use before is clean for the next flip.
    pub(crate) fn clear_other(&mut self) {
        self.halves[1 - self.in_use.0].fill(false);
    }

    /// Whether a write to these chunks may have been issued since the flip.
    pub(crate) fn conflicted(&self, disk: usize, chunks: ChunkRange) -> bool {
        bits(disk, chunks).any(|bit| self.halves[self.in_use.0][bit])
    }
}

fn bits(disk: usize, chunks: ChunkRange) -> impl Iterator<Item = usize> {
    (chunks.start.0..chunks.end.0)
        .map(move |chunk| usize::try_from(mix(chunk << 8 | disk as u64) % BITS).expect("few"))
}
