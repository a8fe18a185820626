//! Array maps, mapped into this process as words.
//!
//! The kernel's programs and other processes change these words at any time, so there is no way to
//! them but atomics. The memory lives as long as the mapping, whatever becomes of pins and maps.

use std::{io, os::fd::AsFd, sync::atomic::AtomicU64};

use memmap2::{MmapOptions, MmapRaw};

/// A mapped array map of `words` words.
#[derive(Debug)]
pub(crate) struct Mapped {
    memory: MmapRaw,
    words: usize,
}

impl Mapped {
    /// Maps the first `words` words of `map`, which was made with `BPF_F_MMAPABLE`.
    pub(crate) fn new(map: &impl AsFd, words: u64) -> io::Result<Self> {
        let words = usize::try_from(words).map_err(io::Error::other)?;
        let memory = MmapOptions::new().len(words * 8).map_raw(&map.as_fd())?;
        Ok(Self { memory, words })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        let start = self.memory.as_mut_ptr().cast::<AtomicU64>();
        // SAFETY: the mapping is readable, writable and shared, at least `8 * words` bytes long,
        // page-aligned, and lives as long as `self`. The kernel backs it with the map's own
        // memory, which is never truncated. All access here is through atomics.
        unsafe { std::slice::from_raw_parts(start, self.words) }
    }
}
