//! A raw image as a disk that can be read.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::export::{Export, Run};
use crate::sparse;

/// A file whose bytes are the disk's. Its holes are the disk's as well.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    len: u64,
}

impl RawFile {
    /// The image at `path`, as long as it is now.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }
}

impl Export for RawFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn status(&self, range: Range<u64>, runs_max: usize) -> io::Result<Vec<Run>> {
        let mut runs = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let run = sparse::run(&self.file, at..range.end)?;
            if !run.append_to(&mut runs, runs_max) {
                break;
            }
            at += run.len;
        }
        Ok(runs)
    }
}
