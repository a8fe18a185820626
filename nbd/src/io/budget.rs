//! What all connections together may hold of what clients sent, or have not taken yet.
//!
//! Every holder ends within the connection's patience, so waiting for one does as well.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A number of bytes to be shared.
#[derive(Debug)]
pub(super) struct Budget {
    left: Mutex<u64>,
    returned: Condvar,
}

impl Budget {
    /// `bytes` to share; at least as many as any lease will ask for.
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self { left: Mutex::new(bytes), returned: Condvar::new() })
    }

    /// Waits until `bytes` can be had.
    pub(super) fn lease(self: &Arc<Self>, bytes: u32) -> Lease {
        let bytes = u64::from(bytes);
        let short = |left: &mut u64| *left < bytes;
        let waited = self.returned.wait_while(self.left(), short);
        *waited.unwrap_or_else(PoisonError::into_inner) -= bytes;
        Lease { budget: Arc::clone(self), bytes }
    }

    fn left(&self) -> MutexGuard<'_, u64> {
        // A number is whole after any panic.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of the budget, until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.budget.left() += self.bytes;
        self.budget.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_leased_is_waited_for_and_comes_back() {
        let budget = Budget::new(10);
        let first = budget.lease(7);
        let waiting = std::thread::spawn({
            let budget = Arc::clone(&budget);
            move || drop(budget.lease(4))
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waiting.is_finished(), "four of three were given out");
        drop(first);
        waiting.join().unwrap();
        drop(budget.lease(10));
    }
}
