//! The independent log: what the writers did, kept in memory outside the device under test.
//!
//! A record is out before its write is submitted and marked after the write completed; what that
//! is good for is said at [`oracle::Record`].
//!
//! The log is a file on tmpfs, mapped: it outlives the process that wrote it.
//! Records are 64 bytes, native-endian, as only this machine reads them.

use std::{
    fs::File,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};
use blocks::{Bitmap, Extent, Geometry, MonotonicNs, Sector};
use memmap2::MmapRaw;
use nix::time::{ClockId, clock_gettime};
use oracle::{Issue, Outcome, Record, WriteKind};

const WORDS: usize = 8;
const RECORD: usize = 8 * WORDS;
const FAILED: u64 = u64::MAX;

/// The place of an issued write in its log.
#[derive(Clone, Copy, Debug)]
pub struct Ticket(usize);

/// A log with room for a fixed number of writes, shared by any number of writers.
pub struct WriteLog {
    map: MmapRaw,
    capacity: usize,
    run: u64,
}

impl WriteLog {
    /// A new log at `path`, which should lie on tmpfs, for at most `capacity` writes.
    pub fn create(path: &Path, capacity: usize) -> Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path);
        let file = file.with_context(|| format!("creating the log {}", path.display()))?;
        let len = (capacity + 1) * RECORD;
        file.set_len(len as u64).context("sizing the log")?;
        let map = MmapRaw::map_raw(&file).context("mapping the log")?;
        Ok(Self { map, capacity, run: monotonic_now().0 })
    }

    /// The run that stamps of writers with this log carry.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// Records a write before it is submitted. Fails when the log is full.
    pub fn issue(&self, issue: &Issue) -> Result<Ticket> {
        let claimed = self.word(0, 0).fetch_add(1, Ordering::AcqRel);
        let index = usize::try_from(claimed).expect("64-bit") + 1;
        ensure!(index <= self.capacity, "the write log is full at {} writes", self.capacity);
        let put = |word, value| self.word(index, word).store(value, Ordering::Relaxed);
        put(2, u64::from(issue.disk) << 32 | u64::from(issue.stream));
        put(3, issue.extent.start.0);
        put(4, issue.extent.sectors);
        put(5, issue.write);
        let (kind, of) = encode(issue.kind);
        put(6, kind);
        put(7, of);
        self.word(index, 0).store(monotonic_now().0, Ordering::Release);
        Ok(Ticket(index))
    }

    /// Records that a write completed.
    pub fn complete(&self, ticket: Ticket) {
        self.word(ticket.0, 1).store(monotonic_now().0, Ordering::Release);
    }

    /// Records that a write ended in an error.
    pub fn fail(&self, ticket: Ticket) {
        self.word(ticket.0, 1).store(FAILED, Ordering::Release);
    }

    /// All writes so far, in the order of their places in the log.
    pub fn records(&self) -> Vec<Record> {
        self.iter().collect()
    }

    /// The same, one after the other: a long run has millions.
    pub fn iter(&self) -> impl Iterator<Item = Record> {
        let claimed = self.word(0, 0).load(Ordering::Acquire);
        let used = usize::try_from(claimed).expect("64-bit").min(self.capacity);
        (1..=used).filter_map(|index| self.record(index))
    }

    /// The chunks of `disk` that any logged write touches, whatever its outcome.
    pub fn chunks(&self, disk: u32, geometry: &Geometry) -> Bitmap {
        Record::chunks(&self.records(), disk, geometry)
    }

    fn record(&self, index: usize) -> Option<Record> {
        let issued = self.word(index, 0).load(Ordering::Acquire);
        let completed = self.word(index, 1).load(Ordering::Acquire);
        let get = |word| self.word(index, word).load(Ordering::Relaxed);
        let low = |word: u64| u32::try_from(word & u64::from(u32::MAX)).expect("masked");
        let outcome = match completed {
            0 => Outcome::InFlight,
            FAILED => Outcome::Failed,
            at => Outcome::Completed(MonotonicNs(at)),
        };
        let issue = Issue {
            disk: low(get(2) >> 32),
            stream: low(get(2)),
            write: get(5),
            extent: Extent { start: Sector(get(3)), sectors: get(4) },
            kind: decode(get(6), get(7)),
        };
        (issued != 0).then_some(Record { issue, issued: MonotonicNs(issued), outcome })
    }

    /// Word `word` of record `index`; record 0 is the header, whose first word counts the claims.
    fn word(&self, index: usize, word: usize) -> &AtomicU64 {
        assert!(index <= self.capacity && word < WORDS, "within the log");
        // SAFETY: the mapping holds `capacity + 1` records, so the sum stays inside of it.
        let at = unsafe { self.map.as_mut_ptr().add(index * RECORD + word * 8) };
        // SAFETY: `at` is 8-byte aligned (the mapping is page-aligned), lives as long as `self`,
        // and is reached through atomics only.
        unsafe { AtomicU64::from_ptr(at.cast()) }
    }
}

/// A kind as two words: its number, and the write that is repeated.
fn encode(kind: WriteKind) -> (u64, u64) {
    match kind {
        WriteKind::Data => (0, 0),
        WriteKind::Discard => (1, 0),
        WriteKind::Zeroes => (2, 0),
        WriteKind::Repeat { of } => (3, of),
    }
}

fn decode(kind: u64, of: u64) -> WriteKind {
    match kind {
        0 => WriteKind::Data,
        1 => WriteKind::Discard,
        2 => WriteKind::Zeroes,
        _ => WriteKind::Repeat { of },
    }
}

/// Now, by the clock that the log uses (`CLOCK_MONOTONIC`).
pub fn monotonic_now() -> MonotonicNs {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("this clock always exists");
    let part = |value: i64| u64::try_from(value).expect("monotonic time is not negative");
    MonotonicNs(part(now.tv_sec()) * 1_000_000_000 + part(now.tv_nsec()))
}
