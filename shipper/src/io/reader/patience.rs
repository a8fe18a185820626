//! How many reads to wait for before looking at those that have completed.
//!
//! Pure. Falling asleep and being woken costs the reader, and the workers that it hands batches to,
//! more than all else they do for a read of a fast disk. While reads complete in quick succession it
//! sleeps over some of them; they are a small part of those under way, so that the disk is kept busy.
//! Where they don't, it waits for one.

use std::time::Duration;

/// The most reads that are slept over.
const MOST: usize = 4;

/// Of the reads under way, one in so many is waited for at most.
const SHARE: usize = 4;

/// Reads that take longer to come together are not in quick succession.
const TOGETHER: Duration = Duration::from_micros(500);

/// The controller of waiting.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    reads: usize,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// So many reads.
    pub(super) reads: usize,
    /// Or until this has passed.
    pub(super) limit: Option<Duration>,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { reads: 1 }
    }

    /// What to wait for while so many reads are under way.
    pub(super) fn wish(&self, under_way: usize) -> Wish {
        let reads = self.reads.min(under_way / SHARE).max(1);
        Wish { reads, limit: (reads > 1).then_some(TOGETHER) }
    }

    /// So many had completed after the wait.
    pub(super) fn handle_wait(&mut self, wished: Wish, completed: usize) {
        self.reads = if completed >= wished.reads { (wished.reads + 1).min(MOST) } else { 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_reads_are_slept_over_and_slow_ones_are_not() {
        let mut patience = Patience::new();
        assert_eq!(patience.wish(32), Wish { reads: 1, limit: None });
        for _ in 0..10 {
            let wish = patience.wish(32);
            patience.handle_wait(wish, wish.reads);
        }
        assert_eq!(patience.wish(32), Wish { reads: MOST, limit: Some(TOGETHER) });
        assert_eq!(patience.wish(9).reads, 2, "a quarter of what is under way");
        assert_eq!(patience.wish(0), Wish { reads: 1, limit: None });
        patience.handle_wait(patience.wish(32), MOST - 1);
        assert_eq!(patience.wish(32).reads, 1);
    }
}
