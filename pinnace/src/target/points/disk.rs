//! A view of a point, as a disk that the NBD server can serve.

use std::io;
use std::ops::Range;

use nbd::{Content, Export, Run};
use replica::{Allocation, ReadError, View};

use crate::causes::with_causes;

/// One disk of a point. The view's lease lives as long as this.
#[derive(Debug)]
pub(super) struct PointDisk(pub(super) View);

impl Export for PointDisk {
    fn len(&self) -> u64 {
        self.0.len().0
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer).map_err(failed)
    }

    fn status(&self, range: Range<u64>, runs_max: usize) -> io::Result<Vec<Run>> {
        let parts = self.0.allocation(range.start, range.end - range.start).map_err(failed)?;
        let mut runs = Vec::new();
        for part in parts {
            let content = match part.state {
                Allocation::Data => Content::Data,
                Allocation::Zero | Allocation::Hole => Content::Hole,
            };
            let len = part.bytes.end - part.bytes.start;
            if !(Run { len, content }).append_to(&mut runs, runs_max) {
                break;
            }
        }
        Ok(runs)
    }
}

/// The words go to whoever reads, and to the log: a point that can't be read is news.
#[expect(clippy::needless_pass_by_value, reason = "it maps an error")]
fn failed(error: ReadError) -> io::Error {
    let words = with_causes(&error);
    tracing::error!(error = words, "a recovery point can't be read");
    io::Error::other(words)
}
