//! A disk served over NBD, read by `nbdcopy`, which writes it nowhere.

use std::fs::{File, read_dir};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use blocks::ByteLen;
use nbd::{Content, Export, Limits, Listen, Listener, NamedExport, Run, Server};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use replica::{Allocation, View};
use vm_tests::Rig;

use crate::rival;

/// The first `len` bytes of a disk; counts what is read of it.
#[derive(Debug)]
struct First<E> {
    disk: E,
    len: u64,
    read: AtomicU64,
}

/// A view as the server wants it.
#[derive(Debug)]
pub(super) struct Viewed(pub(super) View);

impl<E: Export> Export for First<E> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
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
        let parts = self.0.allocation(range.start, range.end - range.start, runs_max);
        let mut runs = Vec::new();
        for part in parts.map_err(io::Error::other)? {
            let content = match part.state {
                Allocation::Data => Content::Data,
                Allocation::Zero | Allocation::Hole => Content::Hole,
            };
            Run { len: part.bytes.end - part.bytes.start, content }.append_to(&mut runs, runs_max);
        }
        Ok(runs)
    }
}

/// Serves the first `len` bytes of a disk and reads all of them that are no hole: mebibytes a
/// second of what was read.
pub(super) fn rate_over_nbd(rig: &Rig, disk: impl Export + 'static, len: ByteLen) -> Result<f64> {
    let socket = rig.fresh("points");
    let listener = Listener::bind(&Listen::Unix(socket.clone()), None)?;
    let disk = Arc::new(First { disk, len: len.0, read: AtomicU64::new(0) });
    let export = Arc::clone(&disk) as Arc<dyn Export>;
    let named = NamedExport { name: "disk".into(), description: String::new(), export };
    let server =
        Server::start(listener, vec![named], Limits::default()).context("starting the server")?;
    let took = rival::nbdcopy_to_nowhere(&socket)?;
    server.stop();
    Ok(rate(disk.read.load(Ordering::Relaxed), took))
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

/// Drops what the page cache holds of all files under a directory; they are durable.
pub(super) fn forget_cached(directory: &Path) -> Result<()> {
    for entry in read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget_cached(&entry.path())?;
        } else {
            let file = File::open(entry.path())?;
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        }
    }
    Ok(())
}
