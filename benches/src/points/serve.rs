//! A disk served over NBD, read by `nbdcopy`, which writes it nowhere.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use blocks::ByteLen;
use nbd::{Content, Export, Limits, Listen, Listener, NamedExport, Run, Server};
use replica::{Allocated, Allocation, View};
use vm_tests::Rig;

use crate::rival;

/// The first `len` bytes of a disk.
#[derive(Debug)]
struct First<E> {
    disk: E,
    len: u64,
}

/// A view as the server wants it, in the way of `pinnace point serve`.
#[derive(Debug)]
pub(super) struct Viewed(pub(super) View);

/// Runs that are asked for at a time.
const RUNS: usize = 4096;

impl<E: Export> Export for First<E> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buffer)
    }

    fn status(&self, range: Range<u64>, runs_max: usize) -> io::Result<Vec<Run>> {
        self.disk.status(range, runs_max)
    }
}

impl Export for Viewed {
    fn len(&self) -> u64 {
        self.0.len().0
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer).map_err(io::Error::other)
    }

    fn status(&self, range: Range<u64>, runs_max: usize) -> io::Result<Vec<Run>> {
        Ok(Run::bridge(runs(&self.0, range, runs_max)?))
    }
}

/// What a view says of its holes, all of them.
fn runs(view: &View, range: Range<u64>, runs_max: usize) -> io::Result<Vec<Run>> {
    let parts = view.allocation(range.start, range.end - range.start, runs_max);
    let run = |part: Allocated| Run {
        len: part.bytes.end - part.bytes.start,
        content: match part.state {
            Allocation::Data => Content::Data,
            Allocation::Zero | Allocation::Hole => Content::Hole,
        },
    };
    Ok(parts.map_err(io::Error::other)?.into_iter().map(run).collect())
}

/// Serves the first `len` bytes of a disk and reads all of them that are no hole: mebibytes a
/// second of those, whatever is sent for holes beside them.
pub(super) fn rate_over_nbd(
    rig: &Rig,
    disk: impl Export + 'static,
    len: ByteLen,
    data: ByteLen,
) -> Result<f64> {
    let socket = rig.fresh("points");
    let listener = Listener::bind(&Listen::Unix(socket.clone()), None)?;
    let export = Arc::new(First { disk, len: len.0 });
    let named = NamedExport { name: "disk".into(), description: String::new(), export };
    let server =
        Server::start(listener, vec![named], Limits::default()).context("starting the server")?;
    let took = rival::nbdcopy_to_nowhere(&socket)?;
    server.stop();
    Ok(rate(data.0, took))
}

/// How much of the first `len` bytes of a view is no hole.
pub(super) fn data_of_view(view: &View, len: ByteLen) -> Result<ByteLen> {
    data(len, |range| runs(view, range, RUNS))
}

/// How much of the first `len` bytes of a disk is no hole.
pub(super) fn data_of_disk(disk: &dyn Export, len: ByteLen) -> Result<ByteLen> {
    data(len, |range| disk.status(range, RUNS))
}

fn data(len: ByteLen, runs: impl Fn(Range<u64>) -> io::Result<Vec<Run>>) -> Result<ByteLen> {
    let (mut at, mut data) = (0, 0);
    while at < len.0 {
        for run in runs(at..len.0)? {
            at += run.len;
            data += if run.content == Content::Data { run.len } else { 0 };
        }
    }
    Ok(ByteLen(data))
}

/// Reads the first `len` bytes a mebibyte at a time: mebibytes a second.
pub(super) fn rate_in_order(
    len: ByteLen,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<()>,
) -> Result<f64> {
    let mut bytes = vec![0; 1 << 20];
    let began = Instant::now();
    for offset in (0..len.0).step_by(bytes.len()) {
        read(offset, &mut bytes)?;
    }
    Ok(rate(len.0, began.elapsed()))
}

fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / f64::from(1 << 20) / took.as_secs_f64()
}
