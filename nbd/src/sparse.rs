//! What a sparse file can do beside reading and writing.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

use crate::export::{Content, Run, Zeroing};

static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// Gives the room of a range back; it reads as zeroes afterwards.
pub(crate) fn punch(file: &File, range: Range<u64>) -> io::Result<()> {
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE;
    allocate(file, punch | FallocateFlags::FALLOC_FL_KEEP_SIZE, range)
}

/// Makes a range read as zeroes, by writing them where the file system has no other way.
pub(crate) fn zero(file: &File, range: Range<u64>, how: Zeroing) -> io::Result<()> {
    let zeroed = match how {
        Zeroing::Punch => punch(file, range.clone()),
        Zeroing::Allocate => {
            let zero = FallocateFlags::FALLOC_FL_ZERO_RANGE;
            allocate(file, zero | FallocateFlags::FALLOC_FL_KEEP_SIZE, range.clone())
        }
    };
    zeroed.or_else(|_| write_zeroes(file, range))
}

fn allocate(file: &File, flags: FallocateFlags, range: Range<u64>) -> io::Result<()> {
    let signed = |bytes: u64| i64::try_from(bytes).map_err(|_| io::Error::from(Errno::EFBIG));
    Ok(fallocate(file, flags, signed(range.start)?, signed(range.end - range.start)?)?)
}

fn write_zeroes(file: &File, range: Range<u64>) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        let part = left.min(ZEROES.len());
        file.write_all_at(&ZEROES[..part], at)?;
        at += part as u64;
    }
    Ok(())
}

/// What the file holds at the start of `range`, and for how long. Data where it can't say.
pub(crate) fn run(file: &File, range: Range<u64>) -> io::Result<Run> {
    let start = i64::try_from(range.start).map_err(|_| io::Error::from(Errno::EFBIG))?;
    let len = range.end - range.start;
    let until = |at: i64| u64::try_from(at).map_or(len, |at| (at - range.start).min(len));
    match lseek(file, start, Whence::SeekData) {
        // Nothing but a hole up to the end of the file.
        Err(Errno::ENXIO) => Ok(Run { len, content: Content::Hole }),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(Run { len, content: Content::Data }),
        Err(errno) => Err(errno.into()),
        Ok(data) if data > start => Ok(Run { len: until(data), content: Content::Hole }),
        Ok(_) => {
            let hole = lseek(file, start, Whence::SeekHole)?;
            Ok(Run { len: until(hole), content: Content::Data })
        }
    }
}
