//! A writable disk over a read-only one. What is written goes to a file that has no name and is
//! gone with the last use of it, however the process ends; the disk below is never touched.
//!
//! The map says *whose* a granule is (one bit for each 4 KiB, held in pages that exist only where
//! something was written: at most 1/32768 of the disk's size), the file says *what* is in it. A
//! granule that was zeroed is a hole of the file.
//!
//! Invariant: of a granule that is ours, the file holds all bytes; of one that is not, nothing in
//! the file counts, since a write that failed may have left something there. So a granule becomes
//! ours only after the last write to it has succeeded.
//!
//! Nothing here is durable, and nothing is meant to be: a flush has no work to do.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use blocks::{Bitmap, ChunkIndex, ChunkRange};

use crate::export::{Export, Run, Writable, Zeroing};
use crate::sparse;

#[cfg(test)]
mod tests;

/// The unit of the map, in bytes.
const GRANULE: u64 = GRANULE_LEN as u64;
const GRANULE_LEN: usize = crate::BLOCK_PREFERRED as usize;

/// Why there is no overlay.
#[derive(Debug, thiserror::Error)]
#[error("making a scratch file in {directory}: {source}")]
pub struct OverlayError {
    directory: std::path::PathBuf,
    source: io::Error,
}

/// A disk whose changes are thrown away.
#[derive(Debug)]
pub struct Overlay {
    base: Arc<dyn Export>,
    file: File,
    punches: bool,
    ours: RwLock<Bitmap>,
}

impl Overlay {
    /// An overlay without changes over `base`. What will be written lies in `directory`, without a
    /// name, and takes as much room there as was changed.
    pub fn new(base: Arc<dyn Export>, directory: &Path) -> Result<Self, OverlayError> {
        let failed = |source| OverlayError { directory: directory.to_owned(), source };
        let file = tempfile::tempfile_in(directory).map_err(failed)?;
        let len = base.len();
        file.set_len(len).map_err(failed)?;
        let punches = sparse::punch(&file, 0..len.max(1)).is_ok();
        let ours = RwLock::new(Bitmap::new(len.div_ceil(GRANULE)));
        Ok(Self { base, file, punches, ours })
    }

    /// How much room the changes take, in bytes.
    pub fn used(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }

    /// The map is whole after any panic: a granule is either ours or not.
    fn map(&self) -> RwLockReadGuard<'_, Bitmap> {
        self.ours.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn map_mut(&self) -> RwLockWriteGuard<'_, Bitmap> {
        self.ours.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a granule; the last one may be short.
    fn granule(&self, index: u64) -> Range<u64> {
        index * GRANULE..((index + 1) * GRANULE).min(self.len())
    }

    /// The granules that lie within `range` as a whole.
    fn granules_within(&self, range: &Range<u64>) -> Range<u64> {
        let start = range.start.div_ceil(GRANULE);
        let end =
            if range.end == self.len() { range.end.div_ceil(GRANULE) } else { range.end / GRANULE };
        start..end.max(start)
    }

    fn write_locked(&self, ours: &mut Bitmap, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let range = offset..offset + bytes.len() as u64;
        let (first, last) = (range.start / GRANULE, (range.end - 1) / GRANULE);
        self.complete(ours, first, &range)?;
        if last != first {
            self.complete(ours, last, &range)?;
        }
        self.file.write_all_at(bytes, offset)?;
        ours.insert_range(chunks(first..last + 1));
        Ok(())
    }

    /// Puts the base's content of a granule into the file, if a write of `range` would leave part
    /// of it undefined there.
    fn complete(&self, ours: &Bitmap, index: u64, range: &Range<u64>) -> io::Result<()> {
        let granule = self.granule(index);
        let covered = range.start <= granule.start && granule.end <= range.end;
        if covered || ours.contains(ChunkIndex(index)) {
            return Ok(());
        }
        let mut content = [0; GRANULE_LEN];
        let len = usize::try_from(granule.end - granule.start).expect("at most a granule");
        self.base.read_at(granule.start, &mut content[..len])?;
        self.file.write_all_at(&content[..len], granule.start)
    }

    /// Writes zeroes over the parts of `range` that are no whole granules.
    fn zero_edges(
        &self,
        ours: &mut Bitmap,
        range: &Range<u64>,
        inner: &Range<u64>,
    ) -> io::Result<()> {
        const ZEROES: [u8; 2 * GRANULE_LEN] = [0; 2 * GRANULE_LEN];
        // Without a whole granule, what is left is less than two of them.
        let edges = if inner.is_empty() {
            [range.clone(), range.end..range.end]
        } else {
            [range.start..inner.start, inner.end..range.end]
        };
        for edge in edges.into_iter().filter(|edge| !edge.is_empty()) {
            let len = usize::try_from(edge.end - edge.start).expect("less than two granules");
            self.write_locked(ours, edge.start, &ZEROES[..len])?;
        }
        Ok(())
    }

    /// The bytes of granules, clipped to the disk.
    fn bytes(&self, granules: &Range<u64>) -> Range<u64> {
        let clip = |granule: u64| (granule * GRANULE).min(self.len());
        clip(granules.start)..clip(granules.end)
    }
}

impl Export for Overlay {
    fn len(&self) -> u64 {
        self.base.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let ours = self.map();
        let mut at = offset;
        let mut left = buffer;
        while !left.is_empty() {
            let (mine, end) = stretch(&ours, at, at + left.len() as u64);
            let len = usize::try_from(end - at).expect("within a buffer");
            let (part, rest) = left.split_at_mut(len);
            if mine {
                self.file.read_exact_at(part, at)?;
            } else {
                self.base.read_at(at, part)?;
            }
            (at, left) = (end, rest);
        }
        Ok(())
    }

    fn status(&self, range: Range<u64>, runs_max: usize) -> io::Result<Vec<Run>> {
        let ours = self.map();
        let mut runs = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let (mine, end) = stretch(&ours, at, range.end);
            let part = if mine {
                vec![sparse::run(&self.file, at..end)?]
            } else {
                self.base.status(at..end, runs_max - runs.len().min(runs_max - 1))?
            };
            for run in part {
                if !run.append_to(&mut runs, runs_max) {
                    return Ok(runs);
                }
                at += run.len;
            }
        }
        Ok(runs)
    }

    fn writable(&self) -> Option<&dyn Writable> {
        Some(self)
    }
}

impl Writable for Overlay {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_locked(&mut self.map_mut(), offset, bytes)
    }

    fn zero(&self, range: Range<u64>, how: Zeroing) -> io::Result<()> {
        let mut ours = self.map_mut();
        let granules = self.granules_within(&range);
        let inner = self.bytes(&granules);
        self.zero_edges(&mut ours, &range, &inner)?;
        if !inner.is_empty() {
            sparse::zero(&self.file, inner, how)?;
            ours.insert_range(chunks(granules));
        }
        Ok(())
    }

    fn zeroes_fast(&self, how: Zeroing) -> bool {
        self.punches && how == Zeroing::Punch
    }

    fn trim(&self, range: Range<u64>) -> io::Result<()> {
        let granules = self.granules_within(&range);
        let inner = self.bytes(&granules);
        // Where trimming would be writing, what is no longer needed may as well stay.
        if !self.punches || inner.is_empty() {
            return Ok(());
        }
        let mut ours = self.map_mut();
        sparse::punch(&self.file, inner)?;
        ours.insert_range(chunks(granules));
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the byte at `at` is ours, and up to where this does not change, `end` at most.
fn stretch(ours: &Bitmap, at: u64, end: u64) -> (bool, u64) {
    let granule = ChunkIndex(at / GRANULE);
    let mine = ours.contains(granule);
    let change = if mine { ours.first_absent_from(granule) } else { ours.first_from(granule) };
    (mine, change.map_or(end, |chunk| (chunk.0 * GRANULE).min(end)))
}

fn chunks(granules: Range<u64>) -> ChunkRange {
    ChunkRange { start: ChunkIndex(granules.start), end: ChunkIndex(granules.end) }
}
