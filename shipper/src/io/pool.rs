//! The buffers that disks are read into: a fixed number of equal ones in one mapping.
//!
//! They are mapped once, registered with the ring, and never grow: this bounds the memory of all
//! that was read and not yet sealed. A buffer returns to the pool when it is dropped, wherever
//! that is. The one used last is taken first, since it is still in the processor's cache.
//!
//! Invariant: of each index there is at most one [`PoolBuffer`], and none while it is in the free
//! list; so no two of them alias.

use std::{
    io,
    ptr::NonNull,
    slice,
    sync::{Arc, Mutex, PoisonError},
};

use memmap2::{Advice, MmapMut};

use super::wake::Waker;
use crate::plan::BATCH_BYTES;

/// Bytes in a buffer.
#[expect(clippy::cast_possible_truncation, reason = "1 MiB fits a usize")]
pub(crate) const BUFFER_BYTES: usize = BATCH_BYTES.0 as usize;

/// The buffers of an engine.
pub(crate) struct Pool {
    base: NonNull<u8>,
    count: u16,
    free: Mutex<Vec<u16>>,
    waker: Waker,
    /// Keeps `base` mapped; never accessed through.
    _mapping: MmapMut,
}

// SAFETY: the mapping belongs to the pool and stays where it is; its bytes are reached only
// through `PoolBuffer`s, which don't alias.
unsafe impl Send for Pool {}
// SAFETY: as above; what else is shared is behind a mutex, atomic, or never changes.
unsafe impl Sync for Pool {}

impl Pool {
    /// Maps `count` buffers. The reader is told when one comes back, if it wants one.
    pub(crate) fn new(count: u16, waker: Waker) -> io::Result<Self> {
        let mut mapping = MmapMut::map_anon(usize::from(count) * BUFFER_BYTES)?;
        // Fewer faults and fewer entries for the kernel to walk; it works without.
        let _ = mapping.advise(Advice::HugePage);
        let base = NonNull::new(mapping.as_mut_ptr()).expect("a mapping is not at address 0");
        let free = Mutex::new((0..count).rev().collect());
        Ok(Self { base, count, free, waker, _mapping: mapping })
    }

    /// A free buffer, with whatever it held before.
    pub(crate) fn take(self: &Arc<Self>) -> Option<PoolBuffer> {
        let index = self.free().pop()?;
        Some(PoolBuffer { pool: Arc::clone(self), index })
    }

    /// How many buffers there are.
    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// How many of them are free.
    pub(crate) fn free_count(&self) -> usize {
        self.free().len()
    }

    /// Address and length of every buffer, in the order of their indices.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = NonNull<u8>> {
        (0..self.count).map(|index| self.address(index))
    }

    fn address(&self, index: u16) -> NonNull<u8> {
        assert!(index < self.count, "a buffer of this pool");
        // SAFETY: index < count, so the offset lies within the mapping.
        unsafe { self.base.add(usize::from(index) * BUFFER_BYTES) }
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<u16>> {
        // A list of indices is whole after any panic.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} of {} free)", self.free_count(), self.count)
    }
}

/// A buffer of the pool, [`BUFFER_BYTES`] long and aligned to a page. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct PoolBuffer {
    pool: Arc<Pool>,
    index: u16,
}

impl PoolBuffer {
    /// Its place in the pool, and in the ring's table of buffers.
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// Its first byte.
    pub(crate) fn as_ptr(&self) -> NonNull<u8> {
        self.pool.address(self.index)
    }

    /// Its bytes. Not to be called while the kernel writes into it.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the buffer lies in the mapping, which `pool` keeps; anonymous memory is
        // initialised; and no other `PoolBuffer` has this index, so `&mut self` is exclusive.
        unsafe { slice::from_raw_parts_mut(self.as_ptr().as_ptr(), BUFFER_BYTES) }
    }
}

impl Drop for PoolBuffer {
    fn drop(&mut self) {
        self.pool.free().push(self.index);
        self.pool.waker.wake_if_wanted();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::wake;

    #[test]
    fn buffers_are_distinct_and_come_back() {
        let (waker, _sleeper) = wake::pair().unwrap();
        let pool = Arc::new(Pool::new(3, waker).unwrap());
        let mut taken: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((taken.len(), pool.free_count()), (3, 0));
        for (i, buffer) in (1..).zip(&mut taken) {
            buffer.bytes_mut().fill(i);
        }
        for (i, buffer) in (1..).zip(&mut taken) {
            assert_eq!(buffer.as_ptr().as_ptr() as usize % 4096, 0);
            assert!(buffer.bytes_mut().iter().all(|byte| *byte == i));
        }
        let last = taken.pop().unwrap().index();
        assert_eq!(pool.take().unwrap().index(), last, "the one used last is taken first");
        drop(taken);
        assert_eq!(pool.free_count(), 3);
    }
}
