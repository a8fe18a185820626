//! Array maps, mapped into this process as words.
//!
//! The kernel's programs and other processes change these words at any time, so there is no way to
//! them but atomics. The memory lives as long as the mapping, whatever becomes of pins and maps.

use std::{io, num::NonZeroUsize, os::fd::AsFd, ptr::NonNull, sync::atomic::AtomicU64};

use memmap2::{MmapMut, MmapOptions, MmapRaw};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

/// One array map or several, as `words` words one after the other.
#[derive(Debug)]
pub struct Mapped {
    memory: MmapRaw,
    words: usize,
}

impl Mapped {
    /// Maps the first `words` words of `map`, which was made with `BPF_F_MMAPABLE`.
    pub fn new(map: &impl AsFd, words: u64) -> io::Result<Self> {
        let words = usize::try_from(words).map_err(io::Error::other)?;
        let memory = MmapOptions::new().len(words * 8).map_raw(&map.as_fd())?;
        Ok(Self { memory, words })
    }

    /// Maps `maps` one after the other: `words_each` words of each, which are whole pages. They
    /// were made with `BPF_F_MMAPABLE`.
    pub fn joined<M: AsFd>(maps: &[M], words_each: u64) -> io::Result<Self> {
        let len = usize::try_from(8 * words_each).ok().and_then(NonZeroUsize::new);
        let len = len.ok_or(io::ErrorKind::InvalidInput)?;
        // Room for all, of which each map takes its part.
        let memory = MmapRaw::from(MmapMut::map_anon(maps.len() * len.get())?);
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        for (index, map) in maps.iter().enumerate() {
            let at = memory.as_mut_ptr().wrapping_add(index * len.get());
            let at = NonNull::new(at).ok_or(io::ErrorKind::InvalidInput)?.addr();
            // SAFETY: the part lies within the room, which is as long as all parts together, is
            // ours alone, and has no reference to it yet.
            unsafe {
                mmap(Some(at), len, access, MapFlags::MAP_SHARED | MapFlags::MAP_FIXED, map, 0)
            }?;
        }
        Ok(Self { memory, words: maps.len() * len.get() / 8 })
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        let start = self.memory.as_mut_ptr().cast::<AtomicU64>();
        // SAFETY: the mapping is readable, writable and shared, at least `8 * words` bytes long,
        // page-aligned, and lives as long as `self`. The kernel backs it with the maps' own
        // memory, which is never truncated. All access here is through atomics.
        unsafe { std::slice::from_raw_parts(start, self.words) }
    }
}
