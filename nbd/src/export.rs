//! What a server needs of a disk to serve it.
//!
//! Offsets and lengths are bytes, ranges are half-open, and the server calls with ranges that lie
//! within the disk and are not empty: it has checked them. Any number of threads call at once.

use std::fmt;
use std::io;
use std::ops::Range;

/// Requests of multiples of this many bytes are served best: the granule of an [`Overlay`], the
/// page of the cache below it, and the chunk of a replica.
///
/// [`Overlay`]: crate::Overlay
pub const BLOCK_PREFERRED: u32 = 4096;

/// The shortest hole between data that [`Run::bridge`] leaves.
const HOLE_MIN: u64 = 64 << 10;

/// A disk that can be read.
pub trait Export: fmt::Debug + Send + Sync {
    /// Its length in bytes. It does not change.
    fn len(&self) -> u64;

    /// Whether it holds no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` with what is at `offset`, or fails; never less.
    ///
    /// The words of an error reach the client, where the protocol has a place for them.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// What is in `range`: runs that cover it from its start, without a break, at least one and at
    /// most `runs_max` of them. They may stop before the end of the range, and not after it.
    ///
    /// It may always call data what is a hole, never the other way round.
    fn status(&self, range: Range<u64>, runs_max: usize) -> io::Result<Vec<Run>>;

    /// The same disk as one that can be written, if it can be.
    fn writable(&self) -> Option<&dyn Writable> {
        None
    }
}

/// A disk that can be written as well.
pub trait Writable: Export {
    /// Writes all of `bytes` at `offset`. After an error any part of them may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes a range read as zeroes.
    fn zero(&self, range: Range<u64>, how: Zeroing) -> io::Result<()>;

    /// Whether zeroing `how` takes less time than writing as many zeroes would.
    fn zeroes_fast(&self, how: Zeroing) -> bool;

    /// The content of a range is no longer needed; what it reads as from now on is anything.
    fn trim(&self, range: Range<u64>) -> io::Result<()>;

    /// Makes durable what was written before the call, as far as the disk outlives anything.
    fn flush(&self) -> io::Result<()>;
}

/// How a range is made to read as zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeroing {
    /// Its room is given back, if that can be done.
    Punch,
    /// Its room stays, so that a later write there can't fail for want of it.
    Allocate,
}

/// A stretch of a disk that is all of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its length in bytes; not zero.
    pub len: u64,
    /// What it holds.
    pub content: Content,
}

/// What a stretch of a disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes that have to be read to be known.
    Data,
    /// Nothing: it takes no room, and reads as zeroes.
    Hole,
}

impl<E: Export + ?Sized> Export for std::sync::Arc<E> {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buffer)
    }

    fn status(&self, range: Range<u64>, runs_max: usize) -> io::Result<Vec<Run>> {
        (**self).status(range, runs_max)
    }

    fn writable(&self) -> Option<&dyn Writable> {
        (**self).writable()
    }
}

impl Run {
    /// Puts this run after `runs`, as a longer last one if that is of the same kind. False if it
    /// would be one more than `runs_max`; then nothing has changed.
    pub fn append_to(self, runs: &mut Vec<Self>, runs_max: usize) -> bool {
        let full = runs.len() >= runs_max;
        match runs.last_mut() {
            Some(last) if last.content == self.content => last.len += self.len,
            _ if full => return false,
            _ => runs.push(self),
        }
        true
    }

    /// Calls data the holes of less than 64 KiB that lie between data. Scattered writes leave a disk
    /// in which every other run is of a few blocks; to a client that skips holes each run is a request
    /// of its own, and zeroes are sent in less time than a request takes.
    pub fn bridge(runs: impl IntoIterator<Item = Self>) -> Vec<Self> {
        Self::bridge_below(HOLE_MIN, runs)
    }

    fn bridge_below(hole_min: u64, runs: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut bridged: Vec<Self> = Vec::new();
        for run in runs {
            if run.content == Content::Data
                && let Some(hole) = bridged.pop_if(|last| last.len < hole_min)
            {
                match bridged.last_mut() {
                    Some(data) => data.len += hole.len,
                    None => bridged.push(hole),
                }
            }
            run.append_to(&mut bridged, usize::MAX);
        }
        bridged
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(len: u64, content: Content) -> Run {
        Run { len, content }
    }

    #[test]
    fn short_holes_between_data_are_bridged_and_no_others() {
        use Content::{Data, Hole};
        let [data, short, long] = [run(4, Data), run(3, Hole), run(8, Hole)];
        let bridge = |runs: &[Run]| Run::bridge_below(8, runs.iter().copied());
        assert_eq!(bridge(&[data, short, data, short, data]), [run(18, Data)]);
        assert_eq!(bridge(&[data, long, data]), [data, long, data]);
        assert_eq!(bridge(&[short, data, short]), [short, data, short]);
        assert_eq!(bridge(&[]), []);
    }

    proptest! {
        #[test]
        fn what_is_bridged_is_as_long_and_data_stays_data(
            lens in prop::collection::vec(1u64..20, 0..20), begins_with_data: bool,
        ) {
            let content = |at: usize| match at.is_multiple_of(2) == begins_with_data {
                true => Content::Data,
                false => Content::Hole,
            };
            let runs: Vec<_> =
                lens.iter().enumerate().map(|(at, len)| run(*len, content(at))).collect();
            let paint = |runs: &[Run]| -> Vec<Content> {
                runs.iter().flat_map(|run| (0..run.len).map(|_| run.content)).collect()
            };
            let bridged = Run::bridge_below(10, runs.iter().copied());
            let (before, after) = (paint(&runs), paint(&bridged));
            prop_assert_eq!(before.len(), after.len());
            let lost = before.iter().zip(&after).any(|pair| pair == (&Content::Data, &Content::Hole));
            prop_assert!(!lost);
            prop_assert!(bridged.is_sorted_by(|run, next| run.content != next.content));
            let inner = bridged.iter().skip(1).rev().skip(1);
            prop_assert!(inner.clone().all(|run| run.content == Content::Data || run.len >= 10));
        }
    }
}
