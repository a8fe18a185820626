//! Which chunks are written again and again: those are read first after T, so that they are the
//! shortest time at risk of a conflict.

use std::collections::HashMap;

/// In which of the last eight iterations the chunks of a disk were dirty.
#[derive(Clone, Debug, Default)]
pub struct Heat {
    chunks: HashMap<u64, Recent>,
}

#[derive(Clone, Copy, Debug)]
struct Recent {
    /// The newest iteration in the lowest bit.
    history: u8,
    /// When the history was last brought up to date.
    iteration: u32,
}

impl Recent {
    fn at(self, iteration: u32) -> u8 {
        let passed = iteration - self.iteration;
        self.history.checked_shl(passed).unwrap_or(0)
    }
}

impl Heat {
    /// The chunks of a word were dirty in an iteration; iterations rise.
    pub(super) fn note(&mut self, word: u64, bits: u64, iteration: u32) {
        for bit in (0..64).filter(|bit| bits >> bit & 1 == 1) {
            let recent = self.chunks.entry(64 * word + bit);
            let recent = recent.or_insert(Recent { history: 0, iteration });
            *recent = Recent { history: recent.at(iteration) | 1, iteration };
        }
    }

    /// In how many of the last eight iterations a chunk was dirty.
    pub(super) fn of(&self, chunk: u64, iteration: u32) -> u32 {
        self.chunks.get(&chunk).map_or(0, |recent| recent.at(iteration).count_ones())
    }

    /// What a later cut, whose iterations begin at 1 again, should know. Forgets what is cold.
    pub(super) fn settle(mut self, iteration: u32) -> Self {
        self.chunks.retain(|_, recent| {
            *recent = Recent { history: recent.at(iteration), iteration: 0 };
            recent.history != 0
        });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_often_is_hot_and_cools() {
        let mut heat = Heat::default();
        for iteration in 1..=5 {
            heat.note(0, 0b1, iteration);
        }
        heat.note(0, 0b10, 5);
        assert_eq!((heat.of(0, 5), heat.of(1, 5), heat.of(2, 5)), (5, 1, 0));
        assert_eq!(heat.of(0, 11), 2, "dirty in the iterations 4 and 5");
        let heat = heat.settle(12);
        assert_eq!((heat.of(0, 0), heat.of(1, 0)), (1, 1));
        assert_eq!(heat.of(0, 1), 0);
        assert!(heat.settle(1).chunks.is_empty());
    }
}
