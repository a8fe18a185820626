//! Who decodes which frame: one thread at a time each, since the next may find it done.

use std::{
    collections::HashSet,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// The frames that are being decoded.
#[derive(Debug, Default)]
pub(super) struct Turns {
    taken: Mutex<HashSet<u32>>,
    over: Condvar,
}

/// A thread's turn at a frame, over when this is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    frame: u32,
}

impl Turns {
    /// Takes a turn; waits while another thread has it.
    pub(super) fn take(&self, frame: u32) -> Turn<'_> {
        let mut taken = self.lock();
        while !taken.insert(frame) {
            taken = self.over.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        Turn { turns: self, frame }
    }

    /// Takes a turn that no other thread has.
    pub(super) fn try_take(&self, frame: u32) -> Option<Turn<'_>> {
        let is_free = self.lock().insert(frame);
        is_free.then(|| Turn { turns: self, frame })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.frame);
        self.turns.over.notify_all();
    }
}
