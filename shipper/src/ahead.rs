//! How far to read ahead of the workers.
//!
//! Pure. A slow disk needs many batches under way to be busy; behind a fast one, what is read too
//! early falls out of the processor's cache before a worker comes to it, and costs a second trip
//! to memory. So the number of batches under way follows the workers: one more whenever they are
//! found without work, one fewer whenever enough is waiting for them.
//!
//! Invariant: `1 <= batches <= most`.

/// The controller of reading ahead.
#[derive(Clone, Debug)]
pub(crate) struct ReadAhead {
    batches: usize,
    most: usize,
    backlog_max: usize,
}

impl ReadAhead {
    /// Starts half way to `most` batches; `backlog_max` batches waiting are enough.
    pub(crate) fn new(most: usize, backlog_max: usize) -> Self {
        Self { batches: most.div_ceil(2).max(1), most: most.max(1), backlog_max }
    }

    /// How many batches may be under way from the disk.
    pub(crate) fn batches(&self) -> usize {
        self.batches
    }

    /// A batch was read while `backlog` others were waiting for a worker.
    pub(crate) fn handle_read(&mut self, backlog: usize) {
        if backlog == 0 {
            self.batches = (self.batches + 1).min(self.most);
        } else if backlog >= self.backlog_max {
            self.batches = (self.batches - 1).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_workers_make_it_read_further_ahead_and_a_backlog_less_far() {
        let mut ahead = ReadAhead::new(32, 4);
        assert_eq!(ahead.batches(), 16);
        (0..100).for_each(|_| ahead.handle_read(0));
        assert_eq!(ahead.batches(), 32);
        (0..100).for_each(|_| ahead.handle_read(2));
        assert_eq!(ahead.batches(), 32, "work for all, and not too much of it");
        (0..100).for_each(|_| ahead.handle_read(4));
        assert_eq!(ahead.batches(), 1);
    }
}
