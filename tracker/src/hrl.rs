//! The log of dirty chunks, one file a disk, after the Hyper-V Replica Log. `docs/hrl.md`
//! describes the file; this is its only reader and writer.
//!
//! The file is replaced whole, so that a crash leaves the old or the new one. It carries the dirty
//! set over an orderly stop of the machine, and records at any time which gap is open. It is no
//! proof that nothing was written since: that is for [`crate::start`] to judge.

use blocks::{
    Bitmap, ChunkSize, Coverage, DiskId, Epoch, GapReason, Generation, Geometry, TaintSet,
};
use storage::{Storage, StorageError, StorePath, read_whole, write_whole};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

#[cfg(test)]
mod tests;

const MAGIC: [u8; 8] = *b"PINHRL\r\n";
const VERSION: u32 = 1;
const PAGE_WORDS: usize = 64;

/// Whether the log was closed by an orderly stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogState {
    /// The agent was running: marks made since are not in the log.
    Open,
    /// The agent closed it, after its last harvest.
    Closed,
}

/// What the log says of its disk, beside the bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHeader {
    /// The disk.
    pub disk: DiskId,
    /// Its line of history.
    pub generation: Generation,
    /// Its shape.
    pub geometry: Geometry,
    /// The boot of the machine in which the log was written.
    pub boot_id: [u8; 16],
    /// The kernel's sequence number of the disk in that boot.
    pub disk_sequence: u64,
    /// The newest acknowledged epoch.
    pub acked: Epoch,
    /// What is known about the bitmap.
    pub coverage: Coverage,
    /// Whether it was closed.
    pub state: LogState,
}

/// A log: its header and the chunks that no acknowledged epoch holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Everything but the bitmap.
    pub header: LogHeader,
    /// The dirty chunks.
    pub dirty: Bitmap,
}

/// A log that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadLogError {
    /// The storage failed, or there is none.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It is no log, or of a version this program does not know.
    #[error("{0}: not a log of version {VERSION}")]
    Unknown(StorePath),
    /// A checksum or a value is wrong.
    #[error("{path}: damaged {what}")]
    Damaged {
        /// The file.
        path: StorePath,
        /// Where the damage is.
        what: &'static str,
    },
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U32,
    state: u8,
    coverage: u8,
    reserved: [u8; 2],
    disk: [u8; 16],
    generation: [u8; 16],
    boot_id: [u8; 16],
    sectors: U64,
    logical_block: U32,
    chunk: U32,
    disk_sequence: U64,
    acked: U64,
    coverage_value: U64,
    records: U64,
    header_crc: U32,
}

/// One page of 4096 chunks, or a run of pages that are all dirty (then no words follow).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRecord {
    page: U64,
    /// 0: the words of this page follow; otherwise so many pages are all dirty.
    full_pages: U32,
    crc: U32,
}

/// Writes the log, durably, in place of the one before.
pub fn write(storage: &dyn Storage, path: &StorePath, log: &Log) -> Result<(), StorageError> {
    write_whole(storage, path, &encode(log))
}

/// Reads and checks a log. At most the size of a log of `geometry` is read, and one of a disk of
/// more chunks is refused.
pub fn read(
    storage: &dyn Storage,
    path: &StorePath,
    geometry: Geometry,
) -> Result<Log, ReadLogError> {
    let bytes = read_whole(storage, path, len_max(geometry))?;
    decode(&bytes, path, geometry.chunks())
}

/// The longest that a log of a disk of `geometry` can be, in bytes.
pub fn len_max(geometry: Geometry) -> usize {
    size_of::<RawHeader>() + pages_of(geometry) * (size_of::<RawRecord>() + PAGE_WORDS * 8)
}

/// The bytes of a log.
pub fn encode(log: &Log) -> Vec<u8> {
    let mut body = Vec::new();
    let mut records = 0;
    let mut at = 0;
    let pages = pages_of(log.header.geometry) as u64;
    while at < pages {
        let words = page_words(&log.dirty, at);
        if words == [0; PAGE_WORDS] {
            at += 1;
            continue;
        }
        let full = (at..pages).take_while(|p| page_words(&log.dirty, *p) == [u64::MAX; PAGE_WORDS]);
        let full_pages = u32::try_from(full.count()).unwrap_or(u32::MAX);
        let content =
            if full_pages == 0 { words.map(u64::to_le_bytes).concat() } else { Vec::new() };
        let record = sealed_record(at, full_pages, &content);
        body.extend_from_slice(record.as_bytes());
        body.extend_from_slice(&content);
        records += 1;
        at += u64::from(full_pages.max(1));
    }
    let mut bytes = raw_header(&log.header, records).as_bytes().to_vec();
    bytes.extend_from_slice(&body);
    bytes
}

fn raw_header(header: &LogHeader, records: u64) -> RawHeader {
    let (coverage, value) = coverage_to_numbers(header.coverage);
    let mut raw = RawHeader {
        magic: MAGIC,
        version: VERSION.into(),
        state: u8::from(header.state == LogState::Closed),
        coverage,
        reserved: [0; 2],
        disk: header.disk.0,
        generation: header.generation.0,
        boot_id: header.boot_id,
        sectors: header.geometry.sectors().into(),
        logical_block: header.geometry.logical_block().into(),
        chunk: u32::try_from(header.geometry.chunk().bytes()).expect("at most 1 MiB").into(),
        disk_sequence: header.disk_sequence.into(),
        acked: header.acked.0.into(),
        coverage_value: value.into(),
        records: records.into(),
        header_crc: 0.into(),
    };
    raw.header_crc = header_crc(&raw).into();
    raw
}

/// Checks the bytes of a log that was found at `path`. One of a disk of more than `chunks_max` chunks
/// is refused: its bitmap takes that much memory.
pub fn decode(bytes: &[u8], path: &StorePath, chunks_max: u64) -> Result<Log, ReadLogError> {
    let damaged = |what| ReadLogError::Damaged { path: path.clone(), what };
    let unknown = || ReadLogError::Unknown(path.clone());
    let (raw, mut rest) = RawHeader::ref_from_prefix(bytes).map_err(|_| unknown())?;
    if raw.magic != MAGIC || raw.version != VERSION {
        return Err(unknown());
    }
    if raw.header_crc.get() != header_crc(raw) {
        return Err(damaged("header"));
    }
    let header = checked_header(raw).ok_or_else(|| damaged("header"))?;
    if header.geometry.chunks() > chunks_max {
        return Err(damaged("geometry"));
    }
    let mut dirty = Bitmap::new(header.geometry.chunks());
    let mut next = 0;
    for _ in 0..raw.records.get() {
        let (record, after) = RawRecord::ref_from_prefix(rest).map_err(|_| damaged("length"))?;
        let words = if record.full_pages == 0 { PAGE_WORDS } else { 0 };
        let (content, after) =
            after.split_at_checked(words * 8).ok_or_else(|| damaged("length"))?;
        let sealed = sealed_record(record.page.get(), record.full_pages.get(), content);
        // Pages rise, so nothing is counted twice and the loop is bounded by the disk.
        if record.crc != sealed.crc || record.page.get() < next {
            return Err(damaged("page"));
        }
        next = insert_record(&mut dirty, record, content).ok_or_else(|| damaged("page"))?;
        rest = after;
    }
    if rest.is_empty() { Ok(Log { header, dirty }) } else { Err(damaged("length")) }
}

/// Adds a record's chunks and returns the first page after it; `None` if it lies past the disk.
fn insert_record(dirty: &mut Bitmap, record: &RawRecord, content: &[u8]) -> Option<u64> {
    let first = record.page.get();
    let end = first.checked_add(u64::from(record.full_pages.get().max(1)))?;
    if end > dirty.len().div_ceil(PAGE_WORDS as u64 * 64) {
        return None;
    }
    let words = content.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let first_word = first * PAGE_WORDS as u64;
    if record.full_pages == 0 {
        (first_word..).zip(words).for_each(|(index, word)| dirty.insert_word(index, word));
    } else {
        let chunks = |word: u64| blocks::ChunkIndex(word * 64);
        let end = chunks(end * PAGE_WORDS as u64);
        dirty.insert_range(blocks::ChunkRange { start: chunks(first_word), end });
    }
    Some(end)
}

fn checked_header(raw: &RawHeader) -> Option<LogHeader> {
    let chunk = ChunkSize::from_bytes(raw.chunk.get().into()).ok()?;
    Some(LogHeader {
        disk: DiskId(raw.disk),
        generation: Generation(raw.generation),
        geometry: Geometry::new(raw.sectors.get(), raw.logical_block.get(), chunk).ok()?,
        boot_id: raw.boot_id,
        disk_sequence: raw.disk_sequence.get(),
        acked: Some(Epoch(raw.acked.get())).filter(|acked| *acked <= Epoch::MAX)?,
        coverage: coverage_from_numbers(raw.coverage, raw.coverage_value.get())?,
        state: match raw.state {
            0 => LogState::Open,
            1 => LogState::Closed,
            _ => return None,
        },
    })
}

fn sealed_record(page: u64, full_pages: u32, content: &[u8]) -> RawRecord {
    let mut record = RawRecord { page: page.into(), full_pages: full_pages.into(), crc: 0.into() };
    let crc = crc32c::crc32c(record.as_bytes());
    record.crc = crc32c::crc32c_append(crc, content).into();
    record
}

fn header_crc(raw: &RawHeader) -> u32 {
    let bytes = raw.as_bytes();
    crc32c::crc32c(&bytes[..bytes.len() - size_of::<U32>()])
}

fn page_words(dirty: &Bitmap, page: u64) -> [u64; PAGE_WORDS] {
    std::array::from_fn(|i| dirty.word(page * PAGE_WORDS as u64 + i as u64))
}

fn pages_of(geometry: Geometry) -> usize {
    let pages = geometry.chunks().div_ceil(PAGE_WORDS as u64 * 64);
    usize::try_from(pages).expect("a disk's pages fit a 64-bit usize")
}

fn coverage_to_numbers(coverage: Coverage) -> (u8, u64) {
    match coverage {
        Coverage::Complete => (0, 0),
        Coverage::Gap(GapReason::NeverReplicated) => (1, 0),
        Coverage::Gap(GapReason::UncleanStop) => (2, 0),
        Coverage::Gap(GapReason::TrackerLost) => (3, 0),
        Coverage::Gap(GapReason::CrossCheck { missing_sectors }) => (4, missing_sectors),
        Coverage::Gap(GapReason::Tainted(TaintSet(taints))) => (5, taints.into()),
        Coverage::Gap(GapReason::ReplicaBehind) => (6, 0),
        Coverage::Gap(GapReason::DiskChanged) => (7, 0),
        Coverage::Gap(GapReason::DirtyThreshold) => (8, 0),
        Coverage::Gap(GapReason::Requested) => (9, 0),
    }
}

fn coverage_from_numbers(kind: u8, value: u64) -> Option<Coverage> {
    Some(Coverage::Gap(match kind {
        0 => return Some(Coverage::Complete),
        1 => GapReason::NeverReplicated,
        2 => GapReason::UncleanStop,
        3 => GapReason::TrackerLost,
        4 => GapReason::CrossCheck { missing_sectors: value },
        5 => GapReason::Tainted(TaintSet(u32::try_from(value).ok()?)),
        6 => GapReason::ReplicaBehind,
        7 => GapReason::DiskChanged,
        8 => GapReason::DirtyThreshold,
        9 => GapReason::Requested,
        _ => return None,
    }))
}
