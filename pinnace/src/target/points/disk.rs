//! A view of a point, as a disk that the NBD server can serve.

use std::fmt;
use std::io;
use std::ops::Range;

use nbd::{Content, Export, Run};
use replica::{Allocation, ReadError, View};

use crate::causes::with_causes;
use crate::target::retention::Retention;

/// One disk of a point. The view's lease lives as long as this; when it ends, retention hears of
/// it, since the point may be overdue.
#[derive(Debug)]
pub(super) struct PointDisk {
    view: View,
    // After the view: fields are dropped in their order.
    _afterwards: Look,
}

struct Look(Retention);

impl Drop for Look {
    fn drop(&mut self) {
        self.0.look();
    }
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Look")
    }
}

impl PointDisk {
    pub(super) fn new(view: View, retention: Retention) -> Self {
        Self { view, _afterwards: Look(retention) }
    }
}

impl Export for PointDisk {
    fn len(&self) -> u64 {
        self.view.len().0
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.view.read_at(offset, buffer).map_err(failed)
    }

    fn status(&self, range: Range<u64>, runs_max: usize) -> io::Result<Vec<Run>> {
        let len = range.end - range.start;
        let parts = self.view.allocation(range.start, len, runs_max).map_err(failed)?;
        let runs = parts.into_iter().map(|part| Run {
            len: part.bytes.end - part.bytes.start,
            content: match part.state {
                Allocation::Data => Content::Data,
                Allocation::Zero | Allocation::Hole => Content::Hole,
            },
        });
        Ok(Run::bridge(runs))
    }
}

/// The words go to whoever reads, and to the log: a point that can't be read is news.
#[expect(clippy::needless_pass_by_value, reason = "it maps an error")]
fn failed(error: ReadError) -> io::Error {
    let words = with_causes(&error);
    tracing::error!(error = words, "a recovery point can't be read");
    io::Error::other(words)
}
