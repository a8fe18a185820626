//! Where a writer writes next, and how much: a sequence that follows from the seed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use blocks::{Extent, SECTOR_SIZE, Sector};

use super::{After, Load, Target};
use crate::{Fill, Random};

/// One in so many writes compresses well.
const REPEATING_ONE_IN: u64 = 8;

/// A write that is to be done, by its place on the target (not on the whole disk).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) extent: Extent,
    pub(super) fill: Fill,
}

/// The steps of a writer, until it is to end.
pub(super) struct Plan {
    random: Random,
    load: Load,
    sectors: u64,
    block_sectors: u64,
    started: Instant,
    done: u64,
    stop: Arc<AtomicBool>,
}

impl Plan {
    pub(super) fn new(target: &Target, load: Load, stop: Arc<AtomicBool>) -> Self {
        Self {
            random: Random::new(load.seed),
            load,
            sectors: target.sectors,
            block_sectors: u64::from(target.logical_block) / SECTOR_SIZE,
            started: Instant::now(),
            done: 0,
            stop,
        }
    }

    /// The room that the largest write needs, in bytes.
    pub(super) fn largest(&self) -> usize {
        usize::try_from(self.load.largest.0).expect("a write fits memory")
    }

    fn is_over(&self) -> bool {
        let over = match self.load.after {
            After::Writes(writes) => self.done >= writes,
            After::Elapsed(time) => self.started.elapsed() >= time,
        };
        over || self.stop.load(Ordering::Relaxed)
    }

    /// Evenly over the powers of two, then evenly between two of them.
    fn length(&mut self) -> u64 {
        let (smallest, largest) = (self.load.smallest.0, self.load.largest.0);
        let steps = u64::from(largest.ilog2() - smallest.ilog2()) + 1;
        let low = smallest << self.random.below(steps);
        let bytes = (low + self.random.below(low)).min(largest);
        let blocks = bytes / SECTOR_SIZE / self.block_sectors;
        blocks.max(1) * self.block_sectors
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.is_over() {
            return None;
        }
        self.done += 1;
        let sectors = self.length();
        let places = (self.sectors - sectors) / self.block_sectors + 1;
        let start = Sector(self.random.below(places) * self.block_sectors);
        let repeating = self.random.below(REPEATING_ONE_IN) == 0;
        let fill = if repeating { Fill::Repeating } else { Fill::Random };
        Some(Step { extent: Extent { start, sectors }, fill })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, path::PathBuf};

    use blocks::ByteLen;

    use super::*;
    use crate::Method;

    fn steps(seed: u64) -> Vec<Step> {
        let target = Target {
            path: PathBuf::new(),
            disk: 0,
            base: Sector(0),
            sectors: 16384,
            logical_block: 512,
        };
        let load = Load {
            method: Method::Direct,
            seed,
            smallest: ByteLen(512),
            largest: ByteLen(4 << 20),
            after: After::Writes(2000),
        };
        Plan::new(&target, load, Arc::default()).collect()
    }

    #[test]
    fn a_seed_decides_everything() {
        assert_eq!(steps(1), steps(1));
        assert_ne!(steps(1), steps(2));
    }

    #[test]
    fn sizes_cover_the_whole_range_and_stay_on_the_disk() {
        let steps = steps(3);
        assert!(steps.iter().all(|step| step.extent.end() <= Sector(16384)));
        let powers: HashSet<u32> = steps.iter().map(|step| step.extent.sectors.ilog2()).collect();
        assert_eq!(powers, (0..=13).collect());
    }
}
