//! How much memory a function holds at once: an allocator that counts.
//!
//! Counted is what Rust code asks for on the thread that measures, so that tests may run side by
//! side. What C libraries take for themselves is not counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use blocks::ByteLen;

/// No decoder has any business with this much at once; it fails at once instead of after swapping.
const REQUEST_MAX: usize = 1 << 30;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most memory that `work` held at once, beyond what was held before.
pub(crate) fn peak_of(work: impl FnOnce()) -> ByteLen {
    let before = HELD.get();
    PEAK.set(before);
    work();
    ByteLen(u64::try_from(PEAK.get() - before).expect("a peak is not below where it began"))
}

fn count(taken: usize, given_back: usize) {
    let difference = |bytes| i64::try_from(bytes).expect("allocations are below 2^63 bytes");
    // A thread that ends frees its thread-locals too: what it frees after does not matter.
    let held = HELD.try_with(|held| {
        held.set(held.get() + difference(taken) - difference(given_back));
        held.get()
    });
    if let Ok(held) = held {
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held)));
    }
}

struct Counting;

// SAFETY: every call is handed on to the system's allocator as it came, or answered with null, which
// the trait allows for any request. Counting allocates nothing: the cells are constants at first and
// need no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > REQUEST_MAX {
            return std::ptr::null_mut();
        }
        count(layout.size(), 0);
        // SAFETY: the caller's promises are the ones that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: `memory` came from `System` with this layout, since all of ours does.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > REQUEST_MAX {
            return std::ptr::null_mut();
        }
        count(layout.size(), 0);
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > REQUEST_MAX {
            return std::ptr::null_mut();
        }
        count(size, layout.size());
        // SAFETY: as in `dealloc`; the new size is the caller's to vouch for.
        unsafe { System.realloc(memory, layout, size) }
    }
}
